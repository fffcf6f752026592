//! IMAP servers as subjects of the contract.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use popgate::config::{self, Given, Origin, Overrides, Purpose};
use popgate::maildrop::{DeletePolicy, Policy};
use popgate::upstream::Upstream;
use popgate::upstream::imap::Imap as ImapUpstream;
use popgate::upstream::jmap::Jmap as JmapUpstream;

use crate::recorder::Recorder;
use crate::subject::{Change, Changed, Held, Other, PLAIN, Service, Subject, plain};
use crate::support::servers::{Courier, Cyrus, Dovecot, MailServer, scripts};
use crate::support::{ImapClient, Stored};

const USER: &str = "alice";

/// What protects the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    Tls,
    StartTls,
    None,
}

/// An IMAP server, with a recorder in front of it.
pub struct Imap {
    server: Server,
    recorder: Recorder,
    protection: Protection,
    trash: Option<&'static str>,
    policies: Vec<DeletePolicy>,
    password: Mutex<String>,
}

enum Server {
    Dovecot(Dovecot),
    Courier(Courier),
    Cyrus(Cyrus),
}

const ALL: [DeletePolicy; 4] = [
    DeletePolicy::TrashIfThere,
    DeletePolicy::Trash,
    DeletePolicy::Expunge,
    DeletePolicy::Refuse,
];

/// What Dovecot announces of what popgate looks at.
const DOVECOT: &[&str] = &[
    "SASL-IR",
    "LITERAL+",
    "ID",
    "ENABLE",
    "UIDPLUS",
    "MOVE",
    "ESEARCH",
    "SPECIAL-USE",
];

impl Imap {
    /// Dovecot, with options of `scripts/start-dovecot`.
    pub fn dovecot(protection: Protection, options: &[(&str, &str)]) -> Option<Self> {
        let dovecot = Dovecot::with(options)?;
        let server = Server::Dovecot(dovecot);
        Some(Self::new(server, protection, Some("Trash"), &ALL))
    }

    /// Dovecot with no Trash among its mailboxes.
    pub fn dovecot_without_trash() -> Option<Self> {
        let dovecot = Dovecot::with(&[("MAILBOXES", "Drafts Sent")])?;
        let server = Server::Dovecot(dovecot);
        let policies = [
            DeletePolicy::TrashIfThere,
            DeletePolicy::Expunge,
            DeletePolicy::Refuse,
        ];
        Some(Self::new(server, Protection::None, None, &policies))
    }

    /// Dovecot that does not say that it has these extensions. It still has
    /// them: which are used is seen on the wire only ([`Imap::commands`]).
    pub fn dovecot_hiding(hidden: &[&str]) -> Option<Self> {
        let announced: Vec<&str> = DOVECOT
            .iter()
            .filter(|name| !hidden.contains(name))
            .copied()
            .collect();
        let capabilities = format!("IMAP4rev1 {}", announced.join(" "));
        let dovecot = Dovecot::with(&[("CAPABILITY", &capabilities)])?;
        let hides = |name| hidden.contains(&name);
        let policies: &[DeletePolicy] = match (hides("MOVE"), hides("UIDPLUS")) {
            (true, true) => &[DeletePolicy::Refuse],
            (false, true) => &[
                DeletePolicy::TrashIfThere,
                DeletePolicy::Trash,
                DeletePolicy::Refuse,
            ],
            (_, false) => &ALL,
        };
        let server = Server::Dovecot(dovecot);
        Some(Self::new(server, Protection::None, Some("Trash"), policies))
    }

    /// Courier, which has UIDPLUS and little else.
    pub fn courier() -> Option<Self> {
        let server = Server::Courier(Courier::start()?);
        Some(Self::new(
            server,
            Protection::None,
            Some("INBOX.Trash"),
            &ALL,
        ))
    }

    /// Cyrus.
    pub fn cyrus(protection: Protection) -> Option<Self> {
        let server = Server::Cyrus(Cyrus::with(&[("EXTRA", "failedloginpause: 0")])?);
        Some(Self::new(server, protection, Some("Trash"), &ALL))
    }

    fn new(
        server: Server,
        protection: Protection,
        trash: Option<&'static str>,
        policies: &[DeletePolicy],
    ) -> Self {
        let port = match protection {
            Protection::Tls => server.get().imaps_port(),
            Protection::StartTls | Protection::None => server.get().imap_port(),
        };
        Self {
            recorder: Recorder::start(port),
            server,
            protection,
            trash,
            policies: policies.to_vec(),
            password: Mutex::new(format!("pw-{USER}")),
        }
    }

    /// The lines sent to the server so far, where there is no TLS.
    pub fn commands(&self) -> Vec<String> {
        assert_eq!(self.protection, Protection::None);
        self.recorder.commands()
    }

    /// The server itself.
    pub fn server(&self) -> &MailServer {
        self.server.get()
    }

    /// A session past the recorder.
    pub fn client(&self) -> ImapClient {
        let password = self
            .password
            .lock()
            .unwrap()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        let port = self.server.get().imap_port();
        ImapClient::login(port, USER, &format!("\"{password}\""))
    }

    fn held(&self, mailbox: &str) -> Vec<Held> {
        let held = |stored: Stored| Held {
            id: stored.uid.to_string(),
            flags: stored.flags,
            octets: stored.octets,
        };
        self.client().dump(mailbox).into_iter().map(held).collect()
    }
}

impl Server {
    fn get(&self) -> &MailServer {
        match self {
            Self::Dovecot(server) => server,
            Self::Courier(server) => server,
            Self::Cyrus(server) => server,
        }
    }
}

impl Subject for Imap {
    fn upstream(&self, delete: &DeletePolicy) -> Service {
        let scheme = match self.protection {
            Protection::Tls => "imaps",
            Protection::StartTls => "imap+starttls",
            Protection::None => "imap+plain",
        };
        let url = format!("{scheme}://localhost:{}", self.recorder.port());
        let ca_file = match self.protection {
            Protection::None => None,
            Protection::Tls | Protection::StartTls => Some(self.server.get().ca_file()),
        };
        upstream(&url, ca_file, delete)
    }

    fn account(&self) -> (String, String) {
        (USER.to_owned(), self.password.lock().unwrap().clone())
    }

    fn change_password(&self, password: &str) -> Changed {
        let path = self.server.get().path();
        match &self.server {
            Server::Dovecot(_) => {
                let users = fs::read_to_string(path.join("users")).unwrap();
                let others = users.lines().filter(|line| !line.starts_with(USER));
                let mut users: Vec<String> = others.map(str::to_owned).collect();
                users.push(format!("{USER}:{{PLAIN}}{password}\n"));
                fs::write(path.join("users"), users.join("\n")).unwrap();
                // Dovecot looks once a second whether the file has changed.
                std::thread::sleep(Duration::from_millis(1100));
            }
            Server::Cyrus(_) => set_sasl_password(&path.join("sasldb2"), password),
            Server::Courier(_) => return Changed::Cannot,
        }
        password.clone_into(&mut self.password.lock().unwrap());
        Changed::Done
    }

    fn clear(&self) {
        let mut client = self.client();
        for mailbox in ["INBOX"].into_iter().chain(self.trash) {
            if !client.dump(mailbox).is_empty() {
                client.expunge(mailbox, "1:*");
            }
        }
    }

    fn deliver(&self, messages: &[Vec<u8>]) {
        let mut client = self.client();
        for message in messages {
            client.append("INBOX", message);
        }
    }

    fn fill(&self, count: usize) {
        match &self.server {
            Server::Dovecot(dovecot) => dovecot.fill(USER, count, PLAIN),
            Server::Courier(_) | Server::Cyrus(_) => self.deliver(&plain(1..=count)),
        }
    }

    fn inbox(&self) -> Vec<Held> {
        self.held("INBOX")
    }

    fn trash(&self) -> Vec<Held> {
        self.trash.map_or(Vec::new(), |trash| self.held(trash))
    }

    fn other_client(&self, change: Change, ids: &[&str]) {
        let (mut client, uids) = (self.client(), ids.join(","));
        match change {
            Change::Remove => client.expunge("INBOX", &uids),
            Change::MoveAway => {
                client.ok("SELECT INBOX");
                client.ok(&format!("UID COPY {uids} {}", self.trash.unwrap_or("Sent")));
                client.expunge("INBOX", &uids);
            }
            Change::MarkDeleted => client.add_flags("INBOX", &uids, "\\Deleted"),
            Change::Flag => client.add_flags("INBOX", &uids, "\\Seen \\Flagged"),
        }
    }

    fn other_session(&self) -> Other {
        let mut client = self.client();
        let message = plain(9_000_000..=9_000_000).remove(0);
        Box::new(move || {
            client.append("INBOX", &message);
            client.ok("SELECT INBOX");
            client.ok("UID STORE * +FLAGS (\\Flagged)");
            // The first may be leaving just now.
            client.command("STORE 1 +FLAGS (\\Answered)");
            client.ok("UID STORE * +FLAGS (\\Deleted)");
            client.ok("UID EXPUNGE *");
        })
    }

    fn can_mark_deleted(&self) -> bool {
        true
    }

    fn policies(&self) -> &[DeletePolicy] {
        &self.policies
    }

    fn has_trash(&self) -> bool {
        self.trash.is_some()
    }

    fn takes_nul(&self) -> bool {
        !matches!(self.server, Server::Cyrus(_))
    }

    fn keeps_what_was_removed(&self) -> bool {
        !matches!(self.server, Server::Dovecot(_))
    }

    fn received(&self) -> u64 {
        self.recorder.received()
    }
}

/// The upstream that a configuration would make.
pub fn upstream(url: &str, ca_file: Option<PathBuf>, delete: &DeletePolicy) -> Service {
    fn given<T>(value: T) -> Given<T> {
        let origin = Origin::Missing("test");
        Given { value, origin }
    }
    let overrides = Overrides {
        upstream: Some(given(url.to_owned())),
        ca_file: ca_file.map(given),
        ..Overrides::default()
    };
    let config = config::load(overrides, Purpose::Check).unwrap();
    let upstream: Arc<dyn Upstream> = match config.upstream.unwrap() {
        config::Upstream::Imap(config) => Arc::new(ImapUpstream::new(config, None)),
        config::Upstream::Jmap(config) => Arc::new(JmapUpstream::new(config, None)),
    };
    let policy = Policy {
        delete: delete.clone(),
        ..Policy::default()
    };
    Service {
        upstream,
        policy: Arc::new(policy),
    }
}

/// Cyrus's own tool, run as `scripts/start-cyrus` runs it.
fn set_sasl_password(database: &Path, password: &str) {
    let run = r#". "$0"
        find_root
        SASL_PATH=$SASL_PLUGINS unpacked usr/sbin/saslpasswd2 -p -f "$1" -u localhost "$2""#;
    let mut child = Command::new("bash")
        .args(["-c", run])
        .arg(scripts().join("lib.sh"))
        .args([database.as_os_str(), USER.as_ref()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(password.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "saslpasswd2 failed");
}
