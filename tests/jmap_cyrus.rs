//! popgate in front of Cyrus's JMAP, whose other clients speak IMAP to it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "jmap_cyrus/policies.rs"]
mod policies;
#[path = "jmap/seam.rs"]
mod seam;
#[path = "jmap_cyrus/warm.rs"]
mod warm;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::{Action, Cyrus, Direction, Fault, FaultProxy, Gateway, Place, Pop3, messages};

/// Cyrus with `mail` in alice's inbox, in this order, and popgate in front.
fn front(mail: &[Vec<u8>], more: &[&str]) -> Option<(Cyrus, Gateway)> {
    let cyrus = Cyrus::start()?;
    fill(&cyrus, 0, mail);
    let gateway = start(&cyrus, more);
    Some((cyrus, gateway))
}

fn start(cyrus: &Cyrus, more: &[&str]) -> Gateway {
    let url = cyrus.jmap_url();
    let mut arguments = vec!["--pop3", "127.0.0.1:0", "--allow-cleartext"];
    arguments.extend(["--upstream", &url]);
    arguments.extend(more);
    Gateway::start(&arguments)
}

/// Appends a minute apart: what arrives within a second has no order in JMAP.
fn fill(cyrus: &Cyrus, from: usize, mail: &[Vec<u8>]) {
    let mut imap = cyrus.imap("alice");
    for (at, message) in mail.iter().enumerate() {
        let time = format!("01-Jan-2026 00:{:02}:00 +0000", from + at);
        imap.append_at("INBOX", &time, message);
    }
}

fn alice(gateway: &Gateway) -> Pop3 {
    let mut pop3 = gateway.pop3();
    pop3.login("alice", "pw-alice");
    pop3
}

fn plain(numbers: std::ops::RangeInclusive<usize>) -> Vec<Vec<u8>> {
    numbers.map(|number| messages::plain(number, 600)).collect()
}

/// The octets of what lies in a mailbox.
fn octets(cyrus: &Cyrus, mailbox: &str) -> Vec<Vec<u8>> {
    let stored = cyrus.mailbox("alice", mailbox);
    stored.into_iter().map(|stored| stored.octets).collect()
}

#[test]
fn two_identical_copies_are_one_message_and_leave_together() {
    for policy in ["expunge", "trash"] {
        let mut mail = plain(1..=3);
        mail.push(mail[1].clone());
        let Some((cyrus, gateway)) = front(&mail, &["--delete", policy]) else {
            return;
        };
        assert_eq!(cyrus.mailbox("alice", "INBOX").len(), 4);
        let mut pop3 = alice(&gateway);
        let unique_ids = pop3.unique_ids();
        assert_eq!(unique_ids.len(), 3, "two of the four are one Email");
        let copy = (1..=3)
            .find(|number| pop3.retrieve(*number) == mail[1])
            .unwrap();
        pop3.expect_ok(&format!("DELE {copy}"));
        assert!(pop3.quit().starts_with("+OK"));
        assert_eq!(octets(&cyrus, "INBOX"), [mail[0].clone(), mail[2].clone()]);
        let trash = octets(&cyrus, "Trash");
        if policy == "trash" {
            assert!(!trash.is_empty() && trash.iter().all(|it| *it == mail[1]));
        } else {
            assert!(trash.is_empty());
        }
    }
}

#[test]
fn a_message_in_two_mailboxes_loses_only_the_inbox() {
    let Some((cyrus, gateway)) = front(&plain(1..=2), &["--delete", "expunge"]) else {
        return;
    };
    let mut imap = cyrus.imap("alice");
    imap.ok("SELECT INBOX");
    imap.ok("UID COPY 1 Archive");
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("DELE 1");
    pop3.expect_ok("DELE 2");
    assert!(pop3.quit().starts_with("+OK"));
    assert!(octets(&cyrus, "INBOX").is_empty());
    assert_eq!(octets(&cyrus, "Archive"), plain(1..=1));
    assert!(octets(&cyrus, "Trash").is_empty());
}

#[test]
fn a_mailbox_that_changes_during_the_session() {
    let mail = plain(1..=6);
    let Some((cyrus, gateway)) = front(&mail, &["--delete", "expunge"]) else {
        return;
    };
    let mut pop3 = alice(&gateway);
    let unique_ids = pop3.unique_ids();
    let mut imap = cyrus.imap("alice");
    imap.expunge("INBOX", "2");
    imap.ok("SELECT INBOX");
    imap.ok("UID MOVE 3 Archive");
    imap.ok("UID STORE 4 +FLAGS (\\Seen \\Flagged)");
    fill(&cyrus, 30, &plain(7..=8));
    // Numbers, sizes and unique ids stay.
    assert_eq!(pop3.unique_ids(), unique_ids);
    for number in [1, 4, 5, 6] {
        assert_eq!(pop3.retrieve(number), mail[number - 1]);
    }
    for number in [1, 2, 3, 4] {
        pop3.expect_ok(&format!("DELE {number}"));
    }
    assert!(pop3.quit().starts_with("+OK"));
    let left = [plain(5..=6), plain(7..=8)].concat();
    assert_eq!(octets(&cyrus, "INBOX"), left);
    assert_eq!(octets(&cyrus, "Archive"), plain(3..=3));
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.unique_ids()[..2], unique_ids[4..]);
    assert_eq!(pop3.unique_ids().len(), 4);
}

#[test]
fn unique_ids_are_the_same_by_http_and_https() {
    let Some((cyrus, gateway)) = front(&plain(1..=3), &[]) else {
        return;
    };
    let unique_ids = alice(&gateway).unique_ids();
    let ca_file = cyrus.ca_file();
    let more = ["--ca-file", ca_file.to_str().unwrap()];
    let by_tls = Gateway::in_front_of(&cyrus.jmap_https_url(), &more);
    let mut pop3 = by_tls.pop3s();
    pop3.login("alice", "pw-alice");
    assert_eq!(pop3.unique_ids(), unique_ids);
    assert_eq!(pop3.retrieve(2), plain(2..=2)[0]);
    // Without the authority nothing is sent.
    let stranger = Gateway::in_front_of(&cyrus.jmap_https_url(), &[]);
    let mut pop3 = stranger.pop3s();
    pop3.expect_ok("USER alice");
    assert!(pop3.expect_err("PASS pw-alice").starts_with("[SYS/PERM]"));
}

#[test]
fn who_reads_in_order_gets_every_octet_by_http_1_and_2() {
    let mail: Vec<_> = (1..=59).map(|it| messages::plain(it, 300 * it)).collect();
    let Some((cyrus, gateway)) = front(&mail, &[]) else {
        return;
    };
    let ca_file = cyrus.ca_file();
    let more = ["--ca-file", ca_file.to_str().unwrap()];
    // Over TLS Cyrus speaks HTTP/2.
    let by_tls = Gateway::in_front_of(&cyrus.jmap_https_url(), &more);
    for mut pop3 in [gateway.pop3(), by_tls.pop3s()] {
        pop3.login("alice", "pw-alice");
        for (at, message) in mail.iter().enumerate() {
            assert!(pop3.retrieve(at + 1) == *message, "message {}", at + 1);
        }
        for number in (1..=59).rev() {
            pop3.expect_ok(&format!("TOP {number} 1"));
            assert!(mail[number - 1].starts_with(&pop3.multiline()));
        }
        assert!(pop3.quit().starts_with("+OK"));
    }
}

#[test]
fn tokens() {
    let Some((cyrus, gateway)) = front(&plain(1..=1), &[]) else {
        return;
    };
    let good = cyrus.jmap_token("alice");
    for command in [
        format!("AUTH XOAUTH2 {}", xoauth2("alice", &good)),
        format!("AUTH OAUTHBEARER {}", oauth_bearer("alice", &good)),
    ] {
        let mut pop3 = gateway.pop3();
        pop3.expect_ok(&command);
        assert_eq!(pop3.retrieve(1), plain(1..=1)[0]);
        pop3.quit();
    }
    // Of another user, expired, or of nobody's making.
    let bob = cyrus.jmap_token("bob");
    for bad in [bob, cyrus.expired_token("alice"), "x.y.z".to_owned()] {
        let mut pop3 = gateway.pop3();
        let challenge = pop3.command(&format!("AUTH XOAUTH2 {}", xoauth2("alice", &bad)));
        assert!(challenge.starts_with("+ "), "{challenge}");
        assert!(pop3.expect_err("").starts_with("[AUTH]"));
    }
}

fn xoauth2(user: &str, token: &str) -> String {
    STANDARD.encode(format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}"))
}

fn oauth_bearer(user: &str, token: &str) -> String {
    STANDARD.encode(format!("n,a={user},\u{1}auth=Bearer {token}\u{1}\u{1}"))
}

#[test]
fn a_user_without_a_mailbox_yet() {
    let Some(cyrus) = Cyrus::start() else { return };
    let gateway = start(&cyrus, &[]);
    let mut pop3 = gateway.pop3();
    pop3.expect_ok("USER dave");
    let refusal = pop3.expect_err("PASS pw-dave");
    assert!(refusal.starts_with("[SYS/PERM]"), "{refusal}");
    // It is made at the first IMAP login, and found then.
    cyrus.imap("dave");
    let mut pop3 = gateway.pop3();
    pop3.login("dave", "pw-dave");
    assert!(pop3.unique_ids().is_empty());
}

#[test]
fn the_top_of_a_large_message_ends_long_before_its_end() {
    let large = messages::plain(1, 40_000_000);
    let Some((_cyrus, gateway)) = front(&[large.clone(), plain(2..=2).remove(0)], &[]) else {
        return;
    };
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("TOP 1 5");
    let top = pop3.multiline();
    assert!(large.starts_with(&top) && top.len() < 1000);
    assert_eq!(pop3.retrieve(2), plain(2..=2)[0]);
    assert!(pop3.retrieve(1) == large);
    let peak = gateway.peak_rss_kib();
    assert!(peak < 64 * 1024, "{peak} KiB");
}

/// popgate in front of a proxy that breaks the first connection of each session,
/// and only that.
fn behind_a_fault(cyrus: &Cyrus, fault: &Fault, more: &[&str]) -> (FaultProxy, Gateway) {
    let proxy = FaultProxy::to_port_once(cyrus.http_port(), fault.clone());
    let url = format!("http://127.0.0.1:{}/.well-known/jmap", proxy.port());
    let mut arguments = vec!["--pop3", "127.0.0.1:0", "--allow-cleartext"];
    arguments.extend(["--upstream", &url]);
    arguments.extend(more);
    let gateway = Gateway::start(&arguments);
    (proxy, gateway)
}

#[test]
fn bodies_that_are_cut_on_the_way() {
    let Some(cyrus) = Cyrus::start() else { return };
    let mail = [messages::plain(1, 600), messages::plain(2, 300_000)];
    fill(&cyrus, 0, &mail);
    for action in [Action::Cut, Action::Reset] {
        for (number, place) in [
            (1, Place::before("Subject: message 1\r")),
            (1, Place::after("line 3 of message 1")),
            (2, Place::before("Subject: message 2\r")),
            (2, Place::after("line 9 of message 2")),
            (2, Place::before("line 3000 of message 2")),
        ] {
            let name = format!("message {number} {place:?} {action:?}");
            let fault = Fault::At(Direction::ToClient, place, action);
            let (proxy, gateway) = behind_a_fault(&cyrus, &fault, &[]);
            let mut pop3 = alice(&gateway);
            pop3.send(&format!("RETR {number}"));
            let reply = pop3.try_line().ok().flatten().unwrap_or_default();
            if reply.starts_with(b"+OK") {
                let cut = pop3.try_multiline().expect_err(&name);
                assert!(mail[number - 1].starts_with(&cut.received), "{name}");
            } else if !reply.is_empty() {
                assert!(reply.starts_with(b"-ERR [SYS/TEMP]"), "{name}");
                // The next one comes over a new connection.
                assert_eq!(pop3.retrieve(number), mail[number - 1], "{name}");
            }
            assert_eq!(proxy.acted(), 1, "{name}");
        }
    }
}

#[test]
fn updates_whose_request_or_answer_is_lost() {
    let Some(cyrus) = Cyrus::start() else { return };
    for policy in ["trash", "expunge"] {
        for action in [Action::Cut, Action::Reset] {
            for (direction, place) in [
                (Direction::ToServer, Place::before("Email/set")),
                (Direction::ToServer, Place::after("Email/set")),
                (Direction::ToServer, Place::after("ifInState")),
                (Direction::ToClient, Place::before("Email/set")),
                (Direction::ToClient, Place::after("Email/set")),
            ] {
                let name = format!("{policy} {action:?} {direction:?} {place:?}");
                let mut imap = cyrus.imap("alice");
                for mailbox in ["INBOX", "Trash"] {
                    if !imap.dump(mailbox).is_empty() {
                        imap.expunge(mailbox, "1:*");
                    }
                }
                fill(&cyrus, 0, &plain(1..=4));
                let fault = Fault::At(direction, place, action);
                let (proxy, gateway) = behind_a_fault(&cyrus, &fault, &["--delete", policy]);
                let mut pop3 = alice(&gateway);
                pop3.expect_ok("DELE 1");
                pop3.expect_ok("DELE 3");
                // One break is mended: the truth is looked at, and acted upon.
                assert!(pop3.quit().starts_with("+OK"), "{name}");
                assert_eq!(proxy.acted(), 1, "{name}");
                let left = [plain(2..=2), plain(4..=4)].concat();
                assert_eq!(octets(&cyrus, "INBOX"), left, "{name}");
                let trash = octets(&cyrus, "Trash").len();
                assert_eq!(trash, if policy == "trash" { 2 } else { 0 }, "{name}");
            }
        }
    }
}

#[test]
fn a_large_mailbox_takes_few_requests_and_little_memory() {
    let Some(cyrus) = Cyrus::start() else { return };
    cyrus.fill("alice", 20_000, 300);
    let gateway = start(&cyrus, &[]);
    let mut pop3 = alice(&gateway);
    let unique_ids = pop3.unique_ids();
    assert_eq!(unique_ids.len(), 20_000);
    pop3.expect_ok("DELE 20000");
    assert!(pop3.quit().starts_with("+OK"));
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.unique_ids(), unique_ids[..19_999]);
    let peak = gateway.peak_rss_kib();
    assert!(peak < 48 * 1024, "{peak} KiB");
}

#[test]
fn check_walks_the_way_to_the_mailbox() {
    let Some(cyrus) = Cyrus::start() else { return };
    fill(&cyrus, 0, &plain(1..=3));
    let check = |url: &str, more: &[&str], password: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_popgate"))
            .args(["check", "alice", "--upstream", url])
            .args(more)
            .env("POPGATE_PASSWORD", password)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(!told.contains(password), "{told}");
        (output.status.code(), told)
    };
    let ca_file = cyrus.ca_file();
    let trusting = ["--ca-file", ca_file.to_str().unwrap()];
    for (url, more, steps) in [
        (cyrus.jmap_url(), &[][..], 7),
        (cyrus.jmap_https_url(), &trusting, 8),
    ] {
        let (code, told) = check(&url, more, "pw-alice");
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(told.matches(" ok: ").count(), steps, "{told}");
        assert!(told.contains("3 messages"), "{told}");
    }
    let (code, told) = check(&cyrus.jmap_https_url(), &[], "pw-alice");
    assert_eq!(code, Some(1));
    assert!(told.contains("ca_file"), "{told}");
    let (code, told) = check(&cyrus.jmap_url(), &[], "pw-wrong");
    assert_eq!(code, Some(1));
    assert!(
        told.contains("login          FAILED") && told.contains("password"),
        "{told}"
    );
}
