//! The program, or its client, ends at a bad moment.

use std::time::{Duration, Instant};

use crate::rig::{Rig, Spot, after_sent, before_answer, before_sent, fault, nth, start_gateway};
use crate::support::{Action, Direction, Fault, PATIENCE, Pop3, Stored, messages};

fn plain(count: usize) -> Vec<Vec<u8>> {
    (1..=count)
        .map(|number| messages::plain(number, 700))
        .collect()
}

fn deletes(client: &mut Pop3, numbers: &[usize]) {
    for number in numbers {
        client.expect_ok(&format!("DELE {number}"));
    }
}

/// popgate is killed while QUIT stands still at a place.
fn killed_in_the_update(arguments: &[&str], places: &[Spot]) {
    let Some(mut rig) = Rig::start(arguments) else {
        return;
    };
    for place in places {
        rig.deliver("alice", &plain(6));
        let uid = rig.inbox("alice")[0].uid;
        rig.dovecot
            .imap("alice")
            .add_flags("INBOX", &(uid + 5).to_string(), "\\Deleted");
        let before = rig.inbox("alice");
        rig.arm(vec![fault(place, Action::Stall)]);
        let acted = rig.proxy.acted();
        let mut client = rig.login("alice");
        deletes(&mut client, &[1, 4]);
        client.send("QUIT");
        rig.proxy.wait_until_acted(acted + 1);
        rig.gateway.kill();
        client.expect_closed();
        let after = rig.inbox("alice");
        let trash = rig.dovecot.mailbox("alice", "Trash");
        for (at, stored) in before.iter().enumerate() {
            let there = after.iter().find(|other| other.uid == stored.uid);
            match there {
                // Marked by popgate, perhaps.
                Some(there) if [0, 3].contains(&at) => assert_eq!(there.octets, stored.octets),
                Some(there) => assert_eq!(there, stored, "{place:?}"),
                None => {
                    assert!([0, 3].contains(&at), "{place:?}: {stored:?} is gone");
                    let thrown = |other: &Stored| other.octets == stored.octets;
                    assert!(
                        arguments.contains(&"expunge") || trash.iter().any(thrown),
                        "{place:?}: {stored:?} is lost"
                    );
                }
            }
        }
        rig.gateway = start_gateway(&rig.proxy, arguments);
        let mut client = rig.login("alice");
        let count = client.unique_ids().len();
        let visible = after
            .iter()
            .filter(|stored| !stored.flags.contains(&"\\Deleted".to_owned()))
            .count();
        assert_eq!(count, visible, "{place:?}");
    }
}

#[test]
fn killed_while_moving() {
    let places = [
        nth(2, before_sent("SELECT INBOX")),
        nth(2, before_answer("[UIDVALIDITY")),
        before_sent("UID MOVE"),
        after_sent("\"Trash\"\r\n"),
        before_answer("[COPYUID"),
        before_answer("Move completed"),
        before_sent("(UID)\r\n"),
        nth(2, before_answer("OK Fetch completed")),
    ];
    killed_in_the_update(&["--delete", "trash"], &places);
}

#[test]
fn killed_while_expunging() {
    let places = [
        before_sent("UID STORE"),
        after_sent("(\\Deleted)\r\n"),
        before_answer("OK Store completed"),
        before_sent("UID EXPUNGE"),
        nth(2, before_answer("* VANISHED ")),
        before_answer("Expunge completed"),
    ];
    killed_in_the_update(&["--delete", "expunge"], &places);
}

#[test]
fn sigterm_during_the_update_waits_for_it() {
    for signals in [1, 2] {
        let Some(mut rig) = Rig::start(&["--delete", "expunge"]) else {
            return;
        };
        rig.deliver("alice", &plain(5));
        let mut idle = rig.login("bob");
        rig.arm(vec![Fault::Delay(
            Direction::ToClient,
            Duration::from_millis(150),
        )]);
        let mut client = rig.login("alice");
        deletes(&mut client, &[2, 3]);
        let sent = rig.proxy.octets(Direction::ToServer);
        client.send("QUIT");
        // The update has begun once anything goes upstream.
        let deadline = Instant::now() + PATIENCE;
        while rig.proxy.octets(Direction::ToServer) == sent {
            assert!(Instant::now() < deadline, "no update");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(rig.inbox("alice").len(), 5, "the update is over already");
        for _ in 0..signals {
            rig.gateway.terminate();
            rig.gateway.wait_for_log("stopping");
        }
        assert!(client.reply().starts_with("+OK"));
        client.expect_closed();
        idle.expect_closed();
        assert!(rig.gateway.wait().success());
        assert_eq!(rig.inbox("alice").len(), 3);
    }
}

#[test]
fn sigterm_ends_a_session_without_deleting() {
    let Some(mut rig) = Rig::start(&["--delete", "expunge"]) else {
        return;
    };
    rig.deliver("alice", &plain(4));
    let before = rig.inbox("alice");
    let mut client = rig.login("alice");
    deletes(&mut client, &[1, 2, 3, 4]);
    rig.gateway.terminate();
    client.expect_closed();
    assert!(rig.gateway.wait().success());
    assert_eq!(rig.inbox("alice"), before);
}

/// How a client goes away.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
}

fn leave(client: Pop3, how: Leave) {
    match how {
        Leave::Close => drop(client),
        Leave::Reset => client.reset(),
    }
}

#[test]
fn a_client_that_goes_away_deletes_nothing() {
    let Some(rig) = Rig::start(&["--delete", "expunge"]) else {
        return;
    };
    let large = messages::plain(3, 4_000_000);
    rig.deliver("alice", &[plain(2), vec![large]].concat());
    let before = rig.inbox("alice");
    type Reach = fn(&mut Pop3);
    let states: &[(&str, Reach)] = &[
        ("greeted", |_| {}),
        ("USER", |client| {
            client.expect_ok("USER alice");
        }),
        ("PASS sent", |client| {
            client.expect_ok("USER alice");
            client.send("PASS pw-alice");
        }),
        ("half a PASS", |client| {
            client.expect_ok("USER alice");
            client.send_octets(b"PASS pw-ali");
        }),
        ("logged in", |client| client.login("alice", "pw-alice")),
        ("DELE", |client| {
            client.login("alice", "pw-alice");
            deletes(client, &[1, 2, 3]);
        }),
        ("half a QUIT", |client| {
            client.login("alice", "pw-alice");
            deletes(client, &[1, 2, 3]);
            client.send_octets(b"QUIT");
        }),
        ("half a QUIT, CR", |client| {
            client.login("alice", "pw-alice");
            deletes(client, &[1, 2, 3]);
            client.send_octets(b"QUIT\r");
        }),
        ("RETR under way", |client| {
            client.login("alice", "pw-alice");
            deletes(client, &[1, 2]);
            client.expect_ok("RETR 3");
            client.read_some(100_000);
        }),
        ("QUIT before login", |client| {
            client.expect_ok("USER alice");
            client.send("QUIT");
        }),
        ("RSET, QUIT", |client| {
            client.login("alice", "pw-alice");
            deletes(client, &[1, 2, 3]);
            client.expect_ok("RSET");
            client.expect_ok("QUIT");
        }),
    ];
    let mut sessions = 0;
    for (state, reach) in states {
        for how in [Leave::Close, Leave::Reset] {
            let mut client = rig.gateway.pop3();
            reach(&mut client);
            leave(client, how);
            sessions += 1;
            rig.wait_until_ended(sessions);
            assert_eq!(rig.inbox("alice"), before, "{state}, {how:?}");
        }
    }
    // And the maildrop is free again.
    let mut client = rig.login("alice");
    assert_eq!(client.sizes().len(), 3);
}

#[test]
fn an_update_that_has_begun_ends_without_its_client() {
    let Some(rig) = Rig::start(&["--delete", "expunge"]) else {
        return;
    };
    for (sessions, how) in [(1, Leave::Close), (2, Leave::Reset)] {
        rig.deliver("alice", &plain(5));
        rig.arm(vec![Fault::Delay(
            Direction::ToClient,
            Duration::from_millis(50),
        )]);
        let mut client = rig.login("alice");
        deletes(&mut client, &[2, 5]);
        let sent = rig.proxy.octets(Direction::ToServer);
        client.send("QUIT");
        let deadline = Instant::now() + PATIENCE;
        while rig.proxy.octets(Direction::ToServer) == sent {
            assert!(Instant::now() < deadline, "no update");
            std::thread::sleep(Duration::from_millis(1));
        }
        leave(client, how);
        rig.wait_until_ended(sessions);
        let left = rig.inbox("alice");
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|stored| stored.flags.is_empty()));
    }
}
