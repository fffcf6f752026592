//! An upstream that stands still or goes away.

use std::io::Write as _;
use std::sync::Barrier;

use crate::rig::{Rig, Spot, after_answer, after_sent, before_answer, fault, nth};
use crate::support::pop3::unstuff;
use crate::support::{Action, Direction, Fault, Place, messages};

/// A configuration with little patience.
fn impatient() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "[upstream_timeouts]\nconnect = \"1s\"\nsilence = \"1s\"\ncommand = \"3s\"\n\
                [upstream_rest]\nlongest = \"0s\"\n";
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Where the login stands still.
fn in_the_login() -> Vec<Spot> {
    vec![
        (Direction::ToClient, Place::Behind(0)),
        (Direction::ToClient, Place::Behind(5)),
        (Direction::ToServer, Place::Behind(0)),
        before_answer("Logged in"),
        before_answer("[UIDVALIDITY"),
        after_answer("OK [READ-WRITE]"),
        before_answer("FETCH ("),
        after_answer("FETCH ("),
        before_answer("OK Search completed"),
    ]
}

#[test]
fn a_login_that_stands_still_or_breaks_is_a_temporary_failure() {
    let config = impatient();
    let arguments = ["--config", config.path().to_str().unwrap()];
    let Some(rig) = Rig::start(&arguments) else {
        return;
    };
    rig.deliver("alice", &[messages::plain(1, 500), messages::plain(2, 500)]);
    let before = rig.inbox("alice");
    for place in in_the_login() {
        for action in [Action::Stall, Action::Cut, Action::Reset] {
            rig.arm(vec![fault(&place, action)]);
            let mut client = rig.gateway.pop3();
            client.expect_ok("USER alice");
            let refused = client.expect_err("PASS pw-alice");
            assert!(
                refused.starts_with("[SYS/TEMP]"),
                "{place:?}, {action:?}: {refused}"
            );
            // The same connection may try again, and is let in.
            client.login("alice", "pw-alice");
            assert_eq!(client.sizes().len(), 2);
            assert!(client.quit().starts_with("+OK"));
        }
    }
    assert_eq!(rig.inbox("alice"), before);
}

#[test]
fn an_upstream_that_is_down_is_a_temporary_failure() {
    let Some(rig) = Rig::start(&[]) else { return };
    rig.deliver("alice", &[messages::plain(1, 500), messages::plain(2, 500)]);
    let mut client = rig.login("alice");
    client.expect_ok("DELE 1");
    rig.dovecot.kill();
    for command in ["RETR 2", "TOP 2 0"] {
        let refused = client.expect_err(command);
        assert!(refused.starts_with("[SYS/TEMP]"), "{command}: {refused}");
    }
    assert_eq!(client.quit(), "-ERR [SYS/TEMP] 1 messages not removed");
    let mut client = rig.gateway.pop3();
    for _ in 0..5 {
        client.expect_ok("USER alice");
        let refused = client.expect_err("PASS pw-alice");
        assert!(refused.starts_with("[SYS/TEMP]"), "{refused}");
    }
}

#[test]
fn a_message_that_stands_still_is_a_temporary_failure_or_cut_short() {
    let config = impatient();
    let arguments = ["--config", config.path().to_str().unwrap()];
    let Some(rig) = Rig::start(&arguments) else {
        return;
    };
    let large = messages::plain(2, 3_000_000);
    rig.deliver("alice", &[messages::plain(1, 2000), large.clone()]);
    let before = rig.inbox("alice");
    for (message, place) in [
        (1, after_answer("BODY[] {")),
        (1, after_answer("line 3 of message 1 ")),
        (2, after_answer("BODY[] {")),
    ] {
        rig.arm(vec![fault(&place, Action::Stall)]);
        let mut client = rig.login("alice");
        let refused = client.expect_err(&format!("RETR {message}"));
        assert!(refused.starts_with("[SYS/TEMP]"), "{place:?}: {refused}");
        assert_eq!(client.retrieve(1), messages::plain(1, 2000));
    }
    rig.arm(vec![fault(
        &after_answer("line 20000 of message 2 "),
        Action::Stall,
    )]);
    let mut client = rig.login("alice");
    client.expect_ok("DELE 1");
    client.expect_ok("RETR 2");
    let short = client.try_multiline().unwrap_err();
    assert!(large.starts_with(&unstuff(&short.received)));
    assert_eq!(rig.inbox("alice"), before);
}

#[test]
fn an_update_that_stands_still_is_answered_by_the_truth() {
    let config = impatient();
    for (policy, places) in [
        (
            "trash",
            vec![
                nth(2, before_answer("[UIDVALIDITY")),
                after_sent("UID MOVE"),
                before_answer("[COPYUID"),
                before_answer("Move completed"),
                nth(2, before_answer("OK Fetch completed")),
            ],
        ),
        (
            "expunge",
            vec![
                after_sent("UID STORE"),
                before_answer("OK Store completed"),
                after_sent("UID EXPUNGE"),
                before_answer("Expunge completed"),
            ],
        ),
    ] {
        let path = config.path().to_str().unwrap();
        let Some(rig) = Rig::start(&["--config", path, "--delete", policy]) else {
            return;
        };
        for place in places {
            let sent: Vec<Vec<u8>> = (1..=4).map(|it| messages::plain(it, 600)).collect();
            rig.deliver("alice", &sent);
            let before = rig.inbox("alice");
            rig.arm(vec![fault(&place, Action::Stall)]);
            let mut client = rig.login("alice");
            client.expect_ok("DELE 1");
            client.expect_ok("DELE 3");
            let reply = client.quit();
            let after = rig.inbox("alice");
            let unmarked = [before[1].clone(), before[3].clone()];
            if reply.starts_with("+OK") {
                assert_eq!(after, unmarked, "{place:?}");
            } else {
                let left = after.len() - 2;
                let expected = format!("-ERR [SYS/TEMP] {left} messages not removed");
                assert_eq!(reply, expected, "{place:?}");
                assert!(
                    after.iter().all(|stored| before.contains(stored)),
                    "{place:?}: {after:?}"
                );
                assert!(
                    unmarked.iter().all(|stored| after.contains(stored)),
                    "{place:?}"
                );
            }
        }
    }
}

#[test]
fn one_users_outage_is_nobody_elses() {
    let Some(rig) = Rig::start(&["--delete", "expunge"]) else {
        return;
    };
    let users = ["alice", "bob", "carol", "dave"];
    let message = |user: usize| messages::plain(100 + user, 3_000_000);
    for (user, name) in users.iter().enumerate() {
        rig.deliver(name, &[message(user), messages::plain(user, 500)]);
    }
    // Carol's connection breaks in the middle of her message.
    let clients: Vec<_> = users
        .iter()
        .map(|name| {
            if *name == "carol" {
                let place = after_answer("line 20000 of message 102 ");
                rig.arm(vec![fault(&place, Action::Reset)]);
            }
            rig.login(name)
        })
        .collect();
    let together = Barrier::new(users.len());
    std::thread::scope(|threads| {
        for (user, mut client) in clients.into_iter().enumerate() {
            let together = &together;
            threads.spawn(move || {
                together.wait();
                client.expect_ok("RETR 1");
                let received = client.try_multiline();
                if users[user] == "carol" {
                    let received = received.unwrap_err().received;
                    assert!(message(user).starts_with(&unstuff(&received)));
                    return;
                }
                assert!(unstuff(&received.unwrap()) == message(user));
                client.expect_ok("DELE 1");
                assert!(client.quit().starts_with("+OK"));
            });
        }
    });
    for name in users {
        let left = if name == "carol" { 2 } else { 1 };
        assert_eq!(rig.inbox(name).len(), left, "{name}");
    }
    rig.proxy.wait_until_acted(1);
}

#[test]
fn a_slow_upstream_is_waited_for() {
    let config = impatient();
    let arguments = ["--config", config.path().to_str().unwrap()];
    let Some(rig) = Rig::start(&arguments) else {
        return;
    };
    rig.deliver("alice", &[messages::plain(1, 20_000)]);
    // Each piece comes within the longest silence, all of them do not.
    rig.arm(vec![
        Fault::Slice(Direction::ToClient, 2000),
        Fault::Delay(Direction::ToClient, std::time::Duration::from_millis(200)),
    ]);
    let mut client = rig.login("alice");
    assert_eq!(client.retrieve(1), messages::plain(1, 20_000));
    assert!(client.quit().starts_with("+OK"));
    assert_eq!(rig.proxy.connections(), 1);
}
