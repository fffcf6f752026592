//! Real POP3 clients against the real program, in front of a real Dovecot by
//! IMAP and a real Cyrus by JMAP: all mail arrives octet by octet, the second run
//! fetches nothing, and what a client deletes is gone upstream.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use support::{Cyrus, Dovecot, Gateway, MailServer, Stored, fetchers, messages};
use tempfile::TempDir;

/// What is behind popgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// Dovecot, by IMAP.
    Imap,
    /// Cyrus, by JMAP.
    Jmap,
}

enum Server {
    Dovecot(Dovecot),
    Cyrus(Cyrus),
}

/// Each of these is a test with either upstream.
macro_rules! clients {
    ($($client:ident),* $(,)?) => {
        mod imap {
            $(#[test] fn $client() { super::$client(super::Upstream::Imap) })*
        }
        mod jmap {
            $(#[test] fn $client() { super::$client(super::Upstream::Jmap) })*
        }
    };
}

clients!(
    curl,
    curl_with_a_token,
    python_poplib,
    fetchmail,
    mpop,
    getmail6
);

/// popgate in front of a server that holds `mail` in alice's INBOX.
struct Front {
    server: Server,
    gateway: Gateway,
    mail: Vec<Vec<u8>>,
    dir: TempDir,
}

/// How a client gets TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Implicit,
    Stls,
}

impl Front {
    fn start(upstream: Upstream, mail: Vec<Vec<u8>>) -> Option<Self> {
        let server = match upstream {
            Upstream::Imap => Server::Dovecot(Dovecot::with(&[("OAUTH", "1")])?),
            Upstream::Jmap => Server::Cyrus(Cyrus::start()?),
        };
        let url = match &server {
            Server::Dovecot(server) => server.imaps_url(),
            Server::Cyrus(server) => server.jmap_https_url(),
        };
        let mut imap = server.get().imap("alice");
        for (at, message) in mail.iter().enumerate() {
            // In JMAP what arrives within a second has no order.
            let time = format!("01-Jan-2026 00:{at:02}:00 +0000");
            imap.append_at("INBOX", &time, message);
        }
        let ca_file = server.get().ca_file();
        let more = ["--ca-file", ca_file.to_str().unwrap(), "--delete", "trash"];
        let gateway = Gateway::in_front_of(&url, &more);
        Some(Self {
            server,
            gateway,
            mail,
            dir: tempfile::tempdir().unwrap(),
        })
    }

    fn port(&self, tls: Tls) -> u16 {
        let protocol = match tls {
            Tls::Implicit => "pop3s",
            Tls::Stls => "pop3",
        };
        let address: SocketAddr = self.gateway.address(protocol);
        address.port()
    }

    fn ca_file(&self) -> PathBuf {
        self.gateway.ca_file()
    }

    /// Writes a file that only we can read, as clients demand of their
    /// configuration.
    fn file(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A Maildir for a client to deliver to.
    fn maildir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        for folder in ["cur", "new", "tmp"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        path
    }

    /// A script that delivers a message to a Maildir, through a filter.
    fn deliver(&self, maildir: &Path, filter: &str) -> PathBuf {
        let path = maildir.join("new/XXXXXXXX");
        let script = format!("file=$(mktemp {}) && {filter} >\"$file\"\n", path.display());
        self.file("deliver", &script)
    }

    /// Runs one of the clients that `scripts/fetch-servers` unpacks.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        fetchers::with_timeout()
            .arg(support::servers::scripts().join("run"))
            .arg(program)
            .args(arguments)
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    }

    fn succeed(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.run(program, arguments);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// What POP3 delivers: the messages, each with a line end at its end.
    fn on_the_wire(&self) -> Vec<Vec<u8>> {
        self.mail
            .iter()
            .map(|message| {
                let mut message = message.clone();
                if !message.ends_with(b"\r\n") {
                    message.extend_from_slice(b"\r\n");
                }
                message
            })
            .collect()
    }

    /// The same in the form that a Maildir holds, sorted.
    fn in_maildir(&self) -> Vec<Vec<u8>> {
        let without_cr = |message: Vec<u8>| -> Vec<u8> {
            message
                .into_iter()
                .filter(|octet| *octet != b'\r')
                .collect()
        };
        let mut all: Vec<Vec<u8>> = self.on_the_wire().into_iter().map(without_cr).collect();
        all.sort();
        all
    }

    fn assert_delivered(&self, maildir: &Path) {
        let delivered = delivered(maildir);
        let expected = self.in_maildir();
        assert_eq!(delivered.len(), expected.len(), "messages delivered");
        for (delivered, expected) in delivered.iter().zip(&expected) {
            assert_eq!(
                String::from_utf8_lossy(delivered),
                String::from_utf8_lossy(expected),
                "a message is not what it was"
            );
            assert_eq!(delivered, expected);
        }
    }

    /// All that a mailbox of alice's holds.
    fn mailbox(&self, mailbox: &str) -> Vec<Stored> {
        self.server.get().mailbox("alice", mailbox)
    }

    fn assert_untouched(&self) {
        let stored = self.mailbox("INBOX");
        assert!(stored.iter().map(|message| &message.octets).eq(&self.mail));
        assert!(
            stored.iter().all(|message| message.flags.is_empty()),
            "{stored:?}"
        );
    }

    /// All mail was deleted by the client: it lies in Trash.
    fn assert_moved_to_trash(&self) {
        assert!(self.mailbox("INBOX").is_empty());
        // What is moved at once comes there in any order.
        let sorted = |messages: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            let mut messages = messages;
            messages.sort();
            messages
        };
        let trash = self.mailbox("Trash").into_iter();
        let trash = sorted(trash.map(|message| message.octets).collect());
        assert!(trash == sorted(self.mail.clone()));
    }
}

impl Server {
    fn get(&self) -> &MailServer {
        match self {
            Self::Dovecot(server) => server,
            Self::Cyrus(server) => server,
        }
    }

    /// A token of alice's, and one that is no good.
    fn tokens(&self) -> (String, String) {
        match self {
            Self::Dovecot(server) => (
                server.token("alice", Duration::from_secs(3600)),
                server.expired_token("alice"),
            ),
            Self::Cyrus(server) => (server.jmap_token("alice"), server.jmap_token("bob")),
        }
    }
}

/// What a Maildir holds, sorted.
fn delivered(maildir: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(maildir.join("new")).unwrap();
    let mut all: Vec<Vec<u8>> = files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    all.sort();
    all
}

/// Mail as it comes: some plain messages, dots, UTF-8, one of 1 MB.
fn usual_mail() -> Vec<Vec<u8>> {
    let mut mail: Vec<Vec<u8>> = (1..=20)
        .map(|number| messages::plain(number, 3000))
        .collect();
    mail.push(messages::plain(21, 1_000_000));
    let header = "From: a@example.org\r\nTo: b@example.org\r\nMessage-ID: <x@example.org>\r\n";
    for body in [
        ".\r\n..\r\n.leading\r\n\r\n.\r\nend\r\n",
        "Gr\u{fc}\u{df}e, \u{4f60}\u{597d}\r\n",
        "no line end at the end",
    ] {
        mail.push(format!("{header}Subject: {}\r\n\r\n{body}", body.len()).into_bytes());
    }
    mail
}

fn curl(upstream: Upstream) {
    let mut mail = messages::awkward();
    mail.extend(usual_mail());
    let Some(front) = Front::start(upstream, mail) else {
        return;
    };
    let ca_file = front.ca_file();
    for tls in [Tls::Implicit, Tls::Stls] {
        let scheme = if tls == Tls::Implicit {
            "pop3s"
        } else {
            "pop3"
        };
        let url = format!("{scheme}://localhost:{}", front.port(tls));
        let curl = |url: &str, more: &[&str]| {
            let mut arguments = vec!["--silent", "--show-error", "--ssl-reqd", "--cacert"];
            arguments.extend([ca_file.to_str().unwrap(), "--user", "alice:pw-alice", url]);
            arguments.extend(more);
            front.succeed("curl", &arguments)
        };
        let list = String::from_utf8(curl(&url, &[])).unwrap();
        assert_eq!(list.lines().count(), front.mail.len());
        for (at, expected) in front.on_the_wire().into_iter().enumerate() {
            let got = curl(&format!("{url}/{}", at + 1), &[]);
            assert!(got == expected, "message {} by {tls:?}", at + 1);
        }
    }
    front.assert_untouched();
    let url = format!("pop3s://localhost:{}/3", front.port(Tls::Implicit));
    let ca_file = ca_file.to_str().unwrap();
    front.succeed(
        "curl",
        &[
            "-sS",
            "--cacert",
            ca_file,
            "--user",
            "alice:pw-alice",
            &url,
            "--request",
            "DELE",
            "--list-only",
        ],
    );
    let inbox = front.mailbox("INBOX");
    assert_eq!(inbox.len(), front.mail.len() - 1);
    assert!(inbox.iter().all(|message| message.octets != front.mail[2]));
    assert_eq!(front.mailbox("Trash")[0].octets, front.mail[2]);
}

fn curl_with_a_token(upstream: Upstream) {
    let Some(front) = Front::start(upstream, usual_mail()) else {
        return;
    };
    let ca_file = front.ca_file();
    let url = format!("pop3s://localhost:{}/1", front.port(Tls::Implicit));
    let fetch = |token: &str, mechanism: &str| {
        let option = format!("AUTH={mechanism}");
        let arguments = [
            "-sS",
            "--cacert",
            ca_file.to_str().unwrap(),
            "--user",
            "alice:",
            "--oauth2-bearer",
            token,
            "--login-options",
            &option,
            &url,
        ];
        front.run("curl", &arguments)
    };
    let (good, bad) = front.server.tokens();
    for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
        let output = fetch(&good, mechanism);
        assert!(output.status.success(), "{mechanism}: {output:?}");
        assert!(output.stdout == front.mail[0]);
        // 67: the server refused the login.
        assert_eq!(
            fetch(&bad, mechanism).status.code(),
            Some(67),
            "{mechanism}"
        );
    }
    front.assert_untouched();
}

fn python_poplib(upstream: Upstream) {
    let mut mail = messages::awkward();
    mail.extend(usual_mail());
    let Some(front) = Front::start(upstream, mail) else {
        return;
    };
    let script = front.file(
        "poplib.script",
        r#"
import hashlib, poplib, ssl, sys
poplib._MAXLINE = 1 << 20  # its own limit on lines, 2048, is below what mail has
port, kind, ca_file, action = int(sys.argv[1]), *sys.argv[2:]
context = ssl.create_default_context(cafile=ca_file)
if kind == "Implicit":
    pop3 = poplib.POP3_SSL("localhost", port, context=context, timeout=60)
else:
    pop3 = poplib.POP3("localhost", port, timeout=60)
    assert "STLS" in pop3.capa()
    pop3.stls(context)
pop3.user("alice")
pop3.pass_("pw-alice")
capabilities = pop3.capa()
assert "UIDL" in capabilities and "TOP" in capabilities and "STLS" not in capabilities, capabilities
count, octets = pop3.stat()
sizes = [int(line.split()[1]) for line in pop3.list()[1]]
ids = [line.split()[1] for line in pop3.uidl()[1]]
assert len(sizes) == len(set(ids)) == count and sum(sizes) == octets
for number in range(1, count + 1):
    lines = pop3.retr(number)[1]
    message = b"".join(line + b"\r\n" for line in lines)
    print(ids[number - 1].decode(), hashlib.sha256(message).hexdigest())
    header, _, body = message.partition(b"\r\n\r\n")
    top = b"".join(line + b"\r\n" for line in pop3.top(number, 1)[1])
    assert message.startswith(top) or top == message + b"\r\n", number
    if action == "delete":
        pop3.dele(number)
pop3.quit()
"#,
    );
    let hash = |message: &[u8]| -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, message);
        digest
            .as_ref()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect()
    };
    let run = |tls: Tls, action: &str| -> Vec<(String, String)> {
        let ca_file = front.ca_file();
        let arguments = [
            script.to_str().unwrap(),
            &front.port(tls).to_string(),
            &format!("{tls:?}"),
            ca_file.to_str().unwrap(),
            action,
        ];
        let output = String::from_utf8(front.succeed("python3.11", &arguments)).unwrap();
        let pair = |line: &str| {
            let (id, hash) = line.split_once(' ').unwrap();
            (id.to_owned(), hash.to_owned())
        };
        output.lines().map(pair).collect()
    };
    let first = run(Tls::Implicit, "read");
    let hashes: Vec<String> = front
        .on_the_wire()
        .iter()
        .map(|message| hash(message))
        .collect();
    assert!(first.iter().map(|(_, hash)| hash).eq(&hashes));
    assert_eq!(
        run(Tls::Stls, "read"),
        first,
        "unique ids stay, and so does the mail"
    );
    front.assert_untouched();
    run(Tls::Stls, "delete");
    front.assert_moved_to_trash();
}

fn fetchmail(upstream: Upstream) {
    for tls in [Tls::Implicit, Tls::Stls] {
        let Some(front) = Front::start(upstream, usual_mail()) else {
            return;
        };
        let maildir = front.maildir("mail");
        let deliver = front.deliver(&maildir, "cat");
        let fetch = |keep: &str| {
            let security = if tls == Tls::Implicit {
                "ssl"
            } else {
                "sslproto TLS1.2+"
            };
            let config = format!(
                "set idfile {dir}/fetchids\nset invisible\nset no bouncemail\n\
                 poll localhost protocol POP3 uidl service {port}\n\
                 user alice password pw-alice is root here {security}\n\
                 sslcertck sslcertfile {ca} no rewrite {keep} mda \"/bin/sh {deliver}\"\n",
                dir = front.dir.path().display(),
                port = front.port(tls),
                ca = front.ca_file().display(),
                deliver = deliver.display(),
            );
            let config = front.file("fetchmailrc", &config);
            let pidfile = front.dir.path().join("fetchmail.pid");
            front.run(
                "fetchmail",
                &[
                    "-f",
                    config.to_str().unwrap(),
                    "--pidfile",
                    pidfile.to_str().unwrap(),
                    "--nosyslog",
                ],
            )
        };
        let output = fetch("keep");
        assert_eq!(output.status.code(), Some(0), "{tls:?}: {output:?}");
        front.assert_delivered(&maildir);
        front.assert_untouched();
        // 1: there was no mail to fetch.
        let output = fetch("keep");
        assert_eq!(output.status.code(), Some(1), "{tls:?}: {output:?}");
        front.assert_delivered(&maildir);
        // What was seen before is deleted by a run that does not keep mail.
        let output = fetch("no keep fetchall");
        assert_eq!(output.status.code(), Some(0), "{tls:?}: {output:?}");
        front.assert_moved_to_trash();
    }
}

fn mpop(upstream: Upstream) {
    for tls in [Tls::Implicit, Tls::Stls] {
        let Some(front) = Front::start(upstream, usual_mail()) else {
            return;
        };
        let fetch = |name: &str, keep: &str, ids: &str| -> PathBuf {
            let maildir = front.maildir(name);
            let config = format!(
                "account default\nhost localhost\nport {port}\nuser alice\npassword pw-alice\n\
                 tls on\ntls_starttls {stls}\ntls_trust_file {ca}\nkeep {keep}\n\
                 uidls_file {dir}/{ids}\nreceived_header off\ndelivery maildir {maildir}\n",
                port = front.port(tls),
                stls = if tls == Tls::Stls { "on" } else { "off" },
                ca = front.ca_file().display(),
                dir = front.dir.path().display(),
                maildir = maildir.display(),
            );
            let config = front.file("mpoprc", &config);
            front.succeed("mpop", &["--file", config.to_str().unwrap(), "--quiet"]);
            maildir
        };
        front.assert_delivered(&fetch("first", "on", "ids"));
        front.assert_untouched();
        assert!(
            delivered(&fetch("second", "on", "ids")).is_empty(),
            "{tls:?}"
        );
        front.assert_delivered(&fetch("third", "off", "other-ids"));
        front.assert_moved_to_trash();
    }
}

fn getmail6(upstream: Upstream) {
    // It has no STLS.
    let Some(front) = Front::start(upstream, usual_mail()) else {
        return;
    };
    let fetch = |name: &str, delete: bool, all: bool| -> PathBuf {
        let maildir = front.maildir(name);
        let config = format!(
            "[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\nport = {port}\n\
             username = alice\npassword = pw-alice\nca_certs = {ca}\n\
             [destination]\ntype = MDA_external\npath = /bin/sh\n\
             arguments = (\"{deliver}\",)\nallow_root_commands = true\n\
             [options]\ndelete = {delete}\nread_all = {all}\nreceived = false\n\
             delivered_to = false\nverbose = 0\n",
            port = front.port(Tls::Implicit),
            ca = front.ca_file().display(),
            // It always puts a Return-Path in front, and misses the end of a child
            // that was faster than itself: this one takes a moment.
            deliver = front
                .deliver(
                    &maildir,
                    "{ sed '1{/^Return-Path: <unknown>$/d}' && sleep 0.05; }"
                )
                .display(),
        );
        let config = front.file("getmailrc", &config);
        let dir = front.dir.path().to_str().unwrap();
        let state = format!("oldmail-localhost-{}-alice", front.port(Tls::Implicit));
        let state = front.dir.path().join(state);
        let before = fs::read(&state).ok();
        let arguments = ["--getmaildir", dir, "--rcfile", config.to_str().unwrap()];
        // A child of its own that ends too early is never noticed (6.18): now and
        // then it waits for it for ever.
        let run = || {
            let output = front.run("getmail", &arguments);
            (!fetchers::has_hung(&output)).then_some(output)
        };
        let output = run().unwrap_or_else(|| {
            for file in fs::read_dir(maildir.join("new")).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
            match &before {
                Some(before) => fs::write(&state, before).unwrap(),
                None => drop(fs::remove_file(&state)),
            }
            run().expect("getmail6 hangs each time")
        });
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        maildir
    };
    front.assert_delivered(&fetch("first", false, false));
    front.assert_untouched();
    assert!(delivered(&fetch("second", false, false)).is_empty());
    front.assert_delivered(&fetch("third", true, true));
    front.assert_moved_to_trash();
}
