//! A mail server with popgate in front, and alice's mailboxes on it as another
//! client sees them.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{
    Contents, Cyrus, Dovecot, Gateway, ImapClient, MailServer, PATIENCE, Pop3, messages,
};

/// What stands behind popgate, and how it speaks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dovecot,
    Cyrus,
    CyrusJmap,
}

pub struct Site {
    kind: Kind,
    server: Server,
}

enum Server {
    Dovecot(Dovecot),
    Cyrus(Cyrus),
}

impl Site {
    /// `None` where the test cannot be run.
    pub fn start(kind: Kind) -> Option<Self> {
        let server = match kind {
            Kind::Dovecot => Server::Dovecot(Dovecot::with(&[
                ("SHARING", "1"),
                ("MAILBOXES", "Drafts Sent Trash Junk Archive"),
            ])?),
            Kind::Cyrus | Kind::CyrusJmap => Server::Cyrus(Cyrus::start()?),
        };
        let site = Self { kind, server };
        // Cyrus makes a user's mailboxes at the first login.
        for user in ["alice", "bob"] {
            site.server().imap(user).ok("SELECT INBOX");
        }
        Some(site)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn is_jmap(&self) -> bool {
        self.kind == Kind::CyrusJmap
    }

    pub fn server(&self) -> &MailServer {
        match &self.server {
            Server::Dovecot(server) => server,
            Server::Cyrus(server) => server,
        }
    }

    /// For `upstream`: in the clear.
    pub fn url(&self) -> String {
        match &self.server {
            Server::Cyrus(cyrus) if self.is_jmap() => cyrus.jmap_url(),
            _ => self.server().plain_url(),
        }
    }

    pub fn imap(&self) -> ImapClient {
        self.server().imap("alice")
    }

    pub fn contents(&self) -> Contents {
        self.server().contents("alice")
    }

    /// Empties alice's mailboxes, and puts plain messages, 1 to `count`, into her
    /// INBOX. What it then all holds.
    pub fn mail(&self, count: usize) -> Contents {
        let mut imap = self.imap();
        imap.empty_all();
        deliver(&mut imap, "INBOX", 1..=count);
        Contents::of(&mut imap)
    }

    /// Puts plain messages into one of alice's mailboxes, a minute apart.
    pub fn deliver(&self, mailbox: &str, numbers: std::ops::RangeInclusive<usize>) {
        deliver(&mut self.imap(), mailbox, numbers);
    }

    /// popgate in front, with a store of its own.
    pub fn popgate(&self, config: &str) -> Popgate {
        Popgate::start(&self.url(), config)
    }

    /// What has changed in alice's mailboxes since, in lower case: JMAP knows no
    /// other in keywords.
    #[track_caller]
    pub fn assert_changes(&self, before: &Contents, expected: &[&str], what: &str) {
        let lower = |changes: Vec<String>| -> Vec<String> {
            let mut lower: Vec<String> = changes.iter().map(|it| it.to_lowercase()).collect();
            lower.sort();
            lower
        };
        let expected = expected.iter().map(|it| full(it)).collect();
        let changes = lower(before.changes(&self.contents()));
        assert_eq!(changes, lower(expected), "{what}, {:?}", self.kind);
    }
}

/// `INBOX -3` stands for `INBOX -3@example.org`.
fn full(change: &str) -> String {
    let number = |word: &str| {
        let digits = word.trim_start_matches(['+', '-']);
        !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit())
    };
    let words = change.split(' ').map(|word| {
        let host = if number(word) { "@example.org" } else { "" };
        format!("{word}{host}")
    });
    words.collect::<Vec<String>>().join(" ")
}

/// In JMAP what arrives within a second has no order.
fn deliver(imap: &mut ImapClient, mailbox: &str, numbers: std::ops::RangeInclusive<usize>) {
    for number in numbers {
        let (hour, minute) = (number / 60, number % 60);
        let time = format!("01-Jan-2026 {hour:02}:{minute:02}:00 +0000");
        imap.append_at(mailbox, &time, &messages::plain(number, 600));
    }
}

/// popgate with a configuration file and a store, which outlive a crash of it.
pub struct Popgate {
    gateway: Gateway,
    dir: TempDir,
}

impl Popgate {
    /// In front of `upstream`, with these lines of configuration: the top level
    /// first, tables behind it.
    pub fn start(upstream: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let text = format!(
            "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nstate = \"state\"\n\
             upstream = \"{upstream}\"\n{config}\n"
        );
        fs::write(dir.path().join("popgate.toml"), text).unwrap();
        let gateway = serve(&dir);
        Self { gateway, dir }
    }

    /// Ends as a crash does, and is started again.
    pub fn crash(&mut self) {
        self.gateway.kill();
        self.gateway = serve(&self.dir);
    }

    /// Ends in order, and is started again.
    pub fn restart(&mut self) {
        self.gateway.terminate();
        assert!(self.gateway.wait().success());
        self.gateway = serve(&self.dir);
    }

    /// Ends as a crash does, and something is done to its store before it is
    /// started again.
    pub fn crash_and(&mut self, damage: impl FnOnce(&std::path::Path)) {
        self.gateway.kill();
        damage(&self.dir.path().join("state"));
        self.gateway = serve(&self.dir);
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// A session of alice's.
    pub fn alice(&self) -> Pop3 {
        self.login("alice")
    }

    /// A session with alice's password under another name of hers.
    /// It waits for a session that has not noticed yet that it is over.
    #[track_caller]
    pub fn login(&self, user: &str) -> Pop3 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut pop3 = self.gateway.pop3();
            pop3.expect_ok(&format!("USER {user}"));
            let reply = pop3.command("PASS pw-alice");
            if reply.starts_with("+OK") {
                return pop3;
            }
            let in_use = reply.starts_with("-ERR [IN-USE]");
            assert!(in_use && Instant::now() < deadline, "{user}: {reply}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The reply to PASS, where the login must be refused.
    #[track_caller]
    pub fn refused(&self, user: &str) -> String {
        let mut pop3 = self.gateway.pop3();
        let named = pop3.command(&format!("USER {user}"));
        if named.starts_with("-ERR") {
            return named;
        }
        let reply = pop3.command("PASS pw-alice");
        assert!(reply.starts_with("-ERR"), "{user}: {reply}");
        reply
    }
}

fn serve(dir: &TempDir) -> Gateway {
    let file = dir.path().join("popgate.toml");
    Gateway::start_expecting(1, &["--config".as_ref(), file.as_os_str()])
}

/// The numbers of the plain messages that a client is shown, in order.
pub fn shown(pop3: &mut Pop3) -> Vec<usize> {
    let count: usize = {
        let stat = pop3.expect_ok("STAT");
        stat.split(' ').next().unwrap().parse().unwrap()
    };
    (1..=count)
        .map(|at| {
            let header = pop3.lines(&format!("TOP {at} 0"));
            let subject = header
                .iter()
                .find_map(|it| it.strip_prefix("Subject: message "));
            subject.unwrap().parse().unwrap()
        })
        .collect()
}

/// DELE of the messages of these numbers in the maildrop, and QUIT, which must
/// succeed.
#[track_caller]
pub fn delete(mut pop3: Pop3, numbers: &[usize]) {
    for number in numbers {
        pop3.expect_ok(&format!("DELE {number}"));
    }
    let reply = pop3.quit();
    assert!(reply.starts_with("+OK"), "{reply}");
}
