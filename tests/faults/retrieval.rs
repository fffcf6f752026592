//! RETR: what came to an end with a dot is whole.

use std::io::ErrorKind;

use crate::rig::{Rig, Spot, after_answer, fault, nth, place_text};
use crate::support::pop3::{CutShort, unstuff};
use crate::support::{Action, Direction, Fault, Pop3, messages};

/// A message whose beginning, middle and end can be found on the wire.
fn marked(octets: usize) -> Vec<u8> {
    let mut message = messages::plain(7, octets / 2);
    message.extend_from_slice(b"THE MIDDLE\r\n");
    message.extend_from_slice(&messages::plain(8, octets / 2));
    message.extend_from_slice(b".the end\r\nTHE END\r\n");
    message
}

/// Places around and in the literal of a RETR: octet 0, 1, middle, n-1, n,
/// in front of the tagged OK, in it.
fn places(message: &[u8]) -> Vec<(&'static str, Spot)> {
    let literal = format!("BODY[] {{{}}}\r\n", message.len());
    let first = place_text(format!("{literal}F"));
    let literal = place_text(literal);
    vec![
        ("in front of the literal", after_answer("BODY[] {")),
        ("octet 0", after_answer(literal)),
        ("octet 1", after_answer(first)),
        ("middle", after_answer("THE MIDDLE")),
        ("octet n-1", after_answer("THE END\r")),
        ("octet n", after_answer("THE END\r\n")),
        (
            "in front of the tagged OK",
            after_answer("THE END\r\n)\r\n"),
        ),
        ("in the tagged OK", after_answer("THE END\r\n)\r\nP")),
        // Of listing and search, then of this.
        ("in its text", nth(2, after_answer("OK Fetch"))),
    ]
}

#[test]
fn a_small_message_is_whole_or_an_error() {
    let Some(rig) = Rig::start(&[]) else { return };
    let message = marked(3000);
    // The last one: nothing is asked for ahead of it.
    rig.deliver("alice", &[messages::plain(2, 500), message.clone()]);
    let before = rig.inbox("alice");
    let mut acted = 0;
    for (name, spot) in places(&message) {
        for action in [Action::Cut, Action::Reset] {
            let what = format!("{name}, {action:?}");
            rig.arm(vec![fault(&spot, action)]);
            let mut client = rig.login("alice");
            match client.command("RETR 2") {
                reply if reply.starts_with("+OK") => {
                    assert!(unstuff(&client.multiline()) == message, "{what}");
                }
                reply => assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{what}: {reply}"),
            }
            acted += 1;
            rig.proxy.wait_until_acted(acted);
            // The session goes on, on a new connection.
            assert_eq!(client.retrieve(1), messages::plain(2, 500), "{what}");
            assert!(client.retrieve(2) == message, "{what}");
            assert_eq!(client.quit().split(' ').next(), Some("+OK"), "{what}");
        }
    }
    assert_eq!(rig.inbox("alice"), before);
}

/// With a dot, all of it came; without, the connection is at its end.
fn assert_whole_or_cut_short(received: Result<Vec<u8>, CutShort>, message: &[u8], what: &str) {
    match received {
        Ok(received) => assert!(unstuff(&received) == message, "{what}"),
        Err(short) => {
            let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(
                closed.contains(&short.error.kind()),
                "{what}: {}",
                short.error
            );
            assert!(message.starts_with(&unstuff(&short.received)), "{what}");
        }
    }
}

fn a_large_message_is_whole_or_cut_short(connect: impl Fn(&Rig) -> Pop3) {
    let Some(rig) = Rig::start(&[]) else { return };
    let message = marked(3_000_000);
    // The last one: nothing is asked for ahead of it.
    rig.deliver("alice", &[messages::plain(2, 500), message.clone()]);
    let before = rig.inbox("alice");
    let mut acted = 0;
    for (name, spot) in places(&message) {
        for action in [Action::Cut, Action::Reset] {
            let what = format!("{name}, {action:?}");
            rig.arm(vec![fault(&spot, action)]);
            let mut client = connect(&rig);
            client.login("alice", "pw-alice");
            client.expect_ok("DELE 1");
            client.send("RETR 2");
            // A reset may overtake the +OK.
            if let Ok(Some(reply)) = client.try_line() {
                let reply = String::from_utf8(reply).unwrap();
                if reply.starts_with("+OK") {
                    assert_whole_or_cut_short(client.try_multiline(), &message, &what);
                } else {
                    assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{what}: {reply}");
                }
            }
            acted += 1;
            rig.proxy.wait_until_acted(acted);
            // Not QUIT: nothing leaves.
            drop(client);
            rig.wait_until_ended(usize::try_from(acted).unwrap());
            assert_eq!(rig.inbox("alice"), before, "{what}");
        }
    }
    let mut client = connect(&rig);
    client.login("alice", "pw-alice");
    assert!(client.retrieve(2) == message);
}

#[test]
fn a_large_message_is_whole_or_cut_short_in_the_clear() {
    a_large_message_is_whole_or_cut_short(|rig| rig.gateway.pop3());
}

#[test]
fn a_large_message_is_whole_or_cut_short_under_tls() {
    a_large_message_is_whole_or_cut_short(|rig| rig.gateway.pop3s());
}

#[test]
fn a_top_is_as_long_as_asked_or_an_error() {
    let Some(rig) = Rig::start(&[]) else { return };
    let message = marked(100_000);
    rig.deliver("alice", std::slice::from_ref(&message));
    let mut client = rig.login("alice");
    client.expect_ok("TOP 1 3000");
    let right = client.multiline();
    assert!(client.quit().starts_with("+OK"));
    for spot in [
        after_answer("BODY[]<0> {"),
        after_answer("line 20 of message 7"),
        after_answer("THE MIDDLE"),
        after_answer("THE END\r"),
    ] {
        for action in [Action::Cut, Action::Reset] {
            rig.arm(vec![fault(&spot, action)]);
            let mut client = rig.login("alice");
            let reply = client.command("TOP 1 3000");
            if reply.starts_with("+OK") {
                if let Ok(top) = client.try_multiline() {
                    assert!(top == right, "{spot:?}, {action:?}");
                }
            } else {
                assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{spot:?}: {reply}");
            }
        }
    }
}

#[test]
fn slices_of_one_octet_change_nothing() {
    let Some(rig) = Rig::start(&["--delete", "trash"]) else {
        return;
    };
    let slices = || {
        vec![
            Fault::Slice(Direction::ToServer, 1),
            Fault::Slice(Direction::ToClient, 1),
        ]
    };
    let mut sent = messages::awkward();
    // As a line of 100,000 octets, one by one, it would take its time.
    sent.retain(|message| message.len() < 10_000);
    rig.deliver("alice", &sent);
    rig.arm(slices());
    let mut client = rig.login("alice");
    assert_eq!(client.sizes().len(), sent.len());
    for (number, message) in (1..).zip(&sent) {
        let mut expected = message.clone();
        if !expected.ends_with(b"\r\n") {
            expected.extend_from_slice(b"\r\n");
        }
        assert_eq!(client.retrieve(number), expected);
        client.lines(&format!("TOP {number} 0"));
    }
    for number in [1, 3, 4] {
        client.expect_ok(&format!("DELE {number}"));
    }
    assert!(client.quit().starts_with("+OK"));
    assert_eq!(rig.proxy.connections(), 1);
    let left: Vec<u32> = rig.inbox("alice").iter().map(|stored| stored.uid).collect();
    let all: Vec<u32> = (1..=u32::try_from(sent.len()).unwrap()).collect();
    let expected: Vec<u32> = all
        .into_iter()
        .filter(|uid| ![1, 3, 4].contains(uid))
        .collect();
    assert_eq!(left, expected);
    assert_eq!(rig.dovecot.mailbox("alice", "Trash").len(), 3);
}
