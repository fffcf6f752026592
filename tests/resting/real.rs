//! The real program in front of real servers, over TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;

use support::{Gateway, MailServer, Pop3, courier, cyrus, dovecot};

use super::*;

/// Longer than Dovecot and Cyrus take to announce what has changed.
const ANNOUNCED: Duration = Duration::from_secs(2);
/// Between the polls of a client: longer than who vouches must have idled.
const GAP: Duration = Duration::from_secs(1);

struct Front {
    gateway: Gateway,
}

impl Front {
    fn of(server: &MailServer) -> Self {
        let ca_file = server.ca_file();
        let trust = ["--ca-file", ca_file.to_str().unwrap()];
        Self::at(&server.imaps_url(), &trust)
    }

    fn at(url: &str, more: &[&str]) -> Self {
        let arguments = ["--allow-cleartext", "--delete", "expunge", "--http"];
        let arguments = [&arguments, &["127.0.0.1:0"][..], more].concat();
        let gateway = Gateway::in_front_of(url, &arguments);
        Self { gateway }
    }

    fn login(&self) -> Pop3 {
        let mut client = self.gateway.pop3();
        client.login("alice", "pw-alice");
        client
    }

    fn poll(&self) -> Vec<String> {
        let mut client = self.login();
        let ids = client.unique_ids();
        assert!(client.quit().starts_with("+OK"));
        ids
    }

    /// A number of /metrics.
    fn metric(&self, name: &str) -> u64 {
        let mut http = TcpStream::connect(self.gateway.address("http")).unwrap();
        http.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        http.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name}:\n{text}"));
        value.trim().parse().unwrap()
    }

    fn vouched(&self) -> u64 {
        self.metric("popgate_openings_total{how=\"vouched\"}")
    }

    /// Polls until the maildrop is this.
    fn shows(&self, ids: &[String]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.poll();
            if shown == ids {
                return;
            }
            assert!(Instant::now() < deadline, "{shown:?} instead of {ids:?}");
        }
    }

    /// A session that was opened without asking. How regularly a client comes
    /// depends on how busy this machine is.
    fn vouched_login(&self) -> Pop3 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            sleep(GAP);
            let before = self.vouched();
            let client = self.login();
            if self.vouched() > before {
                return client;
            }
            assert!(client.quit().starts_with("+OK"));
            assert!(Instant::now() < deadline, "nothing is vouched for");
        }
    }

    fn rests(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric("popgate_upstream_resting") != count {
            assert!(Instant::now() < deadline, "not {count} at rest");
            sleep(Duration::from_millis(5));
        }
    }
}

fn polls(server: &MailServer) {
    let front = Front::of(server);
    for number in 1..=3 {
        server.append("alice", "INBOX", &messages::plain(number, 300));
    }
    let first = front.poll();
    assert_eq!(first.len(), 3);
    front.rests(1);

    server.append("alice", "INBOX", &messages::plain(4, 300));
    let grown = loop {
        let ids = front.poll();
        if ids.len() == 4 {
            break ids;
        }
        assert_eq!(ids, first);
    };
    assert_eq!(grown[..3], first);

    // Nothing is asked, and it is the same.
    let mut client = front.vouched_login();
    assert_eq!(client.unique_ids(), grown);
    assert!(client.quit().starts_with("+OK"));

    // What the server tells of while it rests is seen.
    server.append("alice", "INBOX", &messages::plain(5, 300));
    sleep(ANNOUNCED);
    let grown = front.poll();
    assert_eq!(grown.len(), 5);
    let first_uid = || server.mailbox("alice", "INBOX")[0].uid.to_string();
    drop(front.vouched_login());
    server.imap("alice").expunge("INBOX", &first_uid());
    sleep(ANNOUNCED);
    front.shows(&grown[1..]);
    drop(front.vouched_login());
    server
        .imap("alice")
        .add_flags("INBOX", &first_uid(), "\\Deleted");
    sleep(ANNOUNCED);
    front.shows(&grown[2..]);

    // A session that was vouched for reads and removes.
    let mut client = front.vouched_login();
    assert_eq!(client.retrieve(1), messages::plain(3, 300));
    client.expect_ok("DELE 1");
    assert!(client.quit().starts_with("+OK"));
    let left = server.mailbox("alice", "INBOX");
    let left: Vec<_> = left.into_iter().map(|message| message.octets).collect();
    assert!(!left.contains(&messages::plain(3, 300)));
    assert!(left.contains(&messages::plain(4, 300)));
    assert_eq!(front.poll(), grown[3..]);

    // Another password goes upstream, and finds nothing of it.
    let mut guess = front.gateway.pop3();
    guess.expect_ok("USER alice");
    let refusal = guess.expect_err("PASS pw-alic");
    assert!(refusal.starts_with("[AUTH]"), "{refusal}");
    front.rests(1);

    // The server goes away: that is no matter of the password.
    server.kill();
    front.rests(0);
    let mut client = front.gateway.pop3();
    client.expect_ok("USER alice");
    let refusal = client.expect_err("PASS pw-alice");
    assert!(refusal.starts_with("[SYS/TEMP]"), "{refusal}");
}

#[test]
fn polls_of_dovecot() {
    let Some(server) = dovecot() else { return };
    polls(&server);
}

#[test]
fn polls_of_cyrus() {
    let Some(server) = cyrus() else { return };
    polls(&server);
}

#[test]
fn polls_of_courier() {
    let Some(server) = courier() else { return };
    let front = Front::at(&server.plain_url(), &[]);
    server.append("alice", "INBOX", &messages::plain(1, 300));
    assert_eq!(front.poll().len(), 1);
    front.rests(1);
    server.append("alice", "INBOX", &messages::plain(2, 300));
    let grown = loop {
        let ids = front.poll();
        if ids.len() == 2 {
            break ids;
        }
    };
    let mut client = front.login();
    assert_eq!(client.retrieve(2), messages::plain(2, 300));
    client.expect_ok("DELE 1");
    assert!(client.quit().starts_with("+OK"));
    assert_eq!(front.poll(), grown[1..]);
    assert_eq!(server.mailbox("alice", "INBOX").len(), 1);
}

#[test]
fn one_login_upstream_is_enough() {
    let Some(server) = dovecot() else { return };
    let mut front = Front::of(&server);
    server.append("alice", "INBOX", &messages::plain(1, 300));
    assert_eq!(front.poll().len(), 1);
    // Those that delivered the message are among them.
    let logins = || server.log().matches("imap-login: Info: Login").count();
    let before = logins();
    for _ in 0..20 {
        assert_eq!(front.poll().len(), 1);
    }
    assert_eq!(logins(), before);
    // The end of the program is the connection's.
    front.gateway.terminate();
    assert!(front.gateway.wait().success());
    let deadline = Instant::now() + PATIENCE;
    while !server.log().contains("Logged out") {
        assert!(Instant::now() < deadline, "{}", server.log());
        sleep(Duration::from_millis(5));
    }
}
