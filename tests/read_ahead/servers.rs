//! Real servers.

use support::servers::{Courier, Cyrus, Dovecot, MailServer};

use super::*;

fn each(test: impl Fn(&MailServer)) {
    if let Some(server) = Dovecot::start() {
        test(&server);
    }
    if let Some(server) = Cyrus::start() {
        test(&server);
    }
    if let Some(server) = Courier::start() {
        test(&server);
    }
}

/// Some small, some large, and between.
fn mixed(count: usize) -> Vec<Vec<u8>> {
    let octets = |number: usize| match number % 10 {
        0 => 300_000,
        5 => 60_000,
        other => 500 + other * 1000,
    };
    (1..=count)
        .map(|number| messages::plain(number, octets(number)))
        .collect()
}

fn deliver(server: &MailServer, all: &[Vec<u8>]) {
    let mut client = server.imap("alice");
    for message in all {
        client.append("INBOX", message);
    }
}

#[test]
fn every_octet_in_any_order() {
    let all = mixed(80);
    each(|server| {
        deliver(server, &all);
        let rig = Rig::new(&server.plain_url());
        let orders: [Vec<usize>; 4] = [
            (0..80).collect(),
            (0..80).rev().collect(),
            (0..80).step_by(3).collect(),
            (40..60).chain(10..50).collect(),
        ];
        for order in orders {
            let mut session = rig.open();
            assert_retrieved(&mut session, &all, order);
            run(session.close());
        }
        assert!(rig.used() > rig.wasted(), "{}", rig.wasted());
    });
}

#[test]
fn tops_then_messages_then_quit() {
    let all = mixed(40);
    each(|server| {
        deliver(server, &all);
        let rig = Rig::new(&server.plain_url());
        let mut session = rig.open_under(&expunging());
        for lines in [0, 10] {
            for (message, octets) in all.iter().enumerate() {
                let top = Portion::Top { lines };
                let top = try_portion(&mut session, message, top).unwrap();
                assert!(octets.starts_with(&top), "message {message}");
            }
        }
        assert_retrieved(&mut session, &all, 0..40);
        let deleted: Vec<usize> = (0..40).filter(|it| it % 2 == 0).collect();
        quit(session, deleted);
        assert_eq!(server.mailbox("alice", "INBOX").len(), 20);
    });
}

#[test]
fn another_client_removes_what_is_on_its_way() {
    let all = mails(60, 3000);
    each(|server| {
        deliver(server, &all);
        let rig = Rig::new(&server.plain_url());
        let mut session = rig.open_under(&expunging());
        assert_retrieved(&mut session, &all, 0..2);
        server.imap("alice").expunge("INBOX", "3:30");
        for (message, mail) in all.iter().enumerate().skip(2) {
            match try_retrieve(&mut session, message) {
                // It was on its way already, or the server still has it.
                Ok(octets) => assert!(octets == *mail, "message {message}"),
                Err(UpstreamError::Gone) => assert!(message < 30, "message {message}"),
                Err(error) => panic!("message {message}: {error:?}"),
            }
        }
        let deleted = (0..60).collect();
        quit(session, deleted);
        assert!(server.mailbox("alice", "INBOX").is_empty());
    });
}
