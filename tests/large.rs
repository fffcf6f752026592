//! Large mailboxes and large messages: time and memory do not grow with them.
//! Memory is the most that the whole program ever had (`VmHWM`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::sync::Barrier;

use support::{Action, Direction, Dovecot, Fault, FaultProxy, Gateway, Place, Pop3, messages};

#[track_caller]
fn assert_memory(gateway: &Gateway, megabytes: u64) {
    let (peak, bound) = (gateway.peak_rss_kib() * 1024, megabytes * 1_000_000);
    println!("peak: {peak} octets of {bound}");
    assert!(peak < bound, "{peak} octets of memory, not below {bound}");
}

/// The same, but for what it had before.
fn assert_more(gateway: &Gateway, before: u64, megabytes: u64) {
    let more = gateway.peak_rss_kib() * 1024 - before;
    println!("{more} octets more than {before}");
    assert!(more < megabytes * 1_000_000, "{more} octets more of memory");
}

fn start(proxy: &FaultProxy) -> Gateway {
    Gateway::in_front_of(&proxy.plain_url(), &["--allow-cleartext"])
}

fn login(gateway: &Gateway, user: &str) -> Pop3 {
    let mut client = gateway.pop3();
    client.login(user, &format!("pw-{user}"));
    client
}

#[test]
fn a_mailbox_of_100_000_messages_opens_as_a_small_one_does() {
    const MANY: usize = 100_000;
    const FEW: usize = 100;
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    dovecot.fill("alice", MANY, 300);
    // A name as long as alice's: the same commands have the same length.
    dovecot.fill("carol", FEW, 300);
    let proxy = FaultProxy::to_port(dovecot.imap_port(), |_| Vec::new());
    let gateway = start(&proxy);
    let sent = |user: &str| {
        let before = proxy.octets(Direction::ToServer);
        let client = login(&gateway, user);
        (client, proxy.octets(Direction::ToServer) - before)
    };
    let (mut few, few_sent) = sent("carol");
    assert_eq!(few.sizes().len(), FEW);
    // With the program itself, which is what it is.
    let small = gateway.peak_rss_kib() * 1024;
    let (mut many, many_sent) = sent("alice");
    assert_eq!(many_sent, few_sent, "octets of commands");

    let sizes = many.sizes();
    assert_eq!(sizes.len(), MANY);
    assert_eq!(
        many.expect_ok("STAT"),
        format!("{MANY} {}", sizes.iter().sum::<usize>())
    );
    for number in [1, 2, 50_000, MANY] {
        let message = messages::plain(number, 300);
        assert_eq!(sizes[number - 1], message.len());
        assert_eq!(many.retrieve(number), message);
    }
    let mut unique_ids = many.unique_ids();
    assert_eq!(unique_ids.len(), MANY);
    unique_ids.sort_unstable();
    unique_ids.dedup();
    assert_eq!(unique_ids.len(), MANY);

    // Every other one of 2,000 leaves.
    for number in (1..=2000).step_by(2) {
        many.expect_ok(&format!("DELE {number}"));
    }
    assert_eq!(many.quit(), "+OK bye");
    let many = login(&gateway, "alice").sizes();
    assert_eq!(many.len(), MANY - 1000);
    assert_more(&gateway, small, 14);
}

/// A message of about so many octets, with long lines and dots.
fn large(octets: usize) -> Vec<u8> {
    let mut message = messages::plain(1, 0);
    let line = format!("{}\r\n", "0123456789".repeat(97));
    while message.len() < octets {
        message.extend_from_slice(b"..a dot\r\n");
        message.extend_from_slice(line.as_bytes());
    }
    message.extend_from_slice(b"THE END\r\n");
    message
}

/// Reads a message (RETR) without holding it.
fn compare(client: &mut Pop3, number: usize, message: &[u8]) {
    client.expect_ok(&format!("RETR {number}"));
    let mut rest = message;
    loop {
        let line = client.try_line().unwrap().expect("cut short");
        if line == b"." {
            assert!(rest.is_empty(), "{} octets are missing", rest.len());
            return;
        }
        let line = line.strip_prefix(b".").unwrap_or(&line);
        let behind = rest
            .strip_prefix(line)
            .and_then(|rest| rest.strip_prefix(b"\r\n"));
        let at = message.len() - rest.len();
        rest = behind.unwrap_or_else(|| panic!("another octet behind {at}"));
    }
}

#[test]
fn a_message_of_50_mb_streams() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    let message = large(50_000_000);
    dovecot.append("alice", "INBOX", &message);
    let proxy = FaultProxy::to_port(dovecot.imap_port(), |connection| match connection {
        0 => Vec::new(),
        _ => {
            let half = Place::Behind(25_000_000);
            vec![Fault::At(Direction::ToClient, half, Action::Stall)]
        }
    });
    let gateway = start(&proxy);
    let mut client = login(&gateway, "alice");
    let small = gateway.peak_rss_kib() * 1024;
    compare(&mut client, 1, &message);
    assert_eq!(client.quit(), "+OK bye");

    // Half of it is there, and only half comes from upstream.
    let mut client = login(&gateway, "alice");
    client.expect_ok("RETR 1");
    client.read_some(24_000_000);
    assert_more(&gateway, small, 6);
}

#[test]
fn twenty_large_messages_stream_side_by_side() {
    const SESSIONS: usize = 20;
    let user = |number: usize| format!("user{number:02}");
    let users: Vec<String> = (0..SESSIONS)
        .map(|number| format!("{0}:{{PLAIN}}pw-{0}", user(number)))
        .collect();
    let Some(dovecot) = Dovecot::with(&[("USERS", &users.join("\n"))]) else {
        return;
    };
    let message = large(50_000_000);
    for number in 0..SESSIONS {
        deliver_by_link(&dovecot, &user(number), &message);
    }
    let proxy = FaultProxy::to_port(dovecot.imap_port(), |_| Vec::new());
    let gateway = start(&proxy);
    let together = Barrier::new(SESSIONS);
    std::thread::scope(|threads| {
        for number in 0..SESSIONS {
            let (gateway, message, together) = (&gateway, &message, &together);
            threads.spawn(move || {
                let mut client = login(gateway, &user(number));
                together.wait();
                compare(&mut client, 1, message);
                assert_eq!(client.quit(), "+OK bye");
            });
        }
    });
    assert_memory(&gateway, 64);
}

/// Puts one file into many users' INBOXes.
fn deliver_by_link(dovecot: &Dovecot, user: &str, message: &[u8]) {
    dovecot.imap(user).ok("SELECT INBOX");
    let stored = dovecot.path().join("large.eml");
    if !stored.exists() {
        fs::write(&stored, message).unwrap();
    }
    let maildir = dovecot.path().join("home").join(user).join("Maildir");
    let size = message.len();
    let name = format!("1700000000.M1P1.link,S={size},W={size}");
    fs::hard_link(&stored, maildir.join("new").join(name)).unwrap();
}
