//! Lines and their limits, pipelining, and clients that hang up.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::messages::plain;
use crate::support::pop3::unstuff;
use crate::support::{Gateway, PATIENCE, ScriptedImap};
use crate::{clients, in_front_of};

#[test]
fn two_hundred_commands_in_one_write() {
    let messages: Vec<Vec<u8>> = (0..66).map(|n| plain(n, 300)).collect();
    let imap = ScriptedImap::builder().messages(&messages).start();
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        let mut commands = "USER alice\r\nPASS pw-alice\r\n".to_owned();
        for number in 1..=66 {
            commands += &format!("LIST {number}\r\nRETR {number}\r\nTOP {number} 0\r\n");
        }
        commands += "STAT\r\nQUIT\r\n";
        client.send_octets(commands.as_bytes());
        assert_eq!(client.reply(), "+OK send PASS", "{way}");
        assert!(client.reply().starts_with("+OK 66 messages "), "{way}");
        for (at, message) in messages.iter().enumerate() {
            let (number, octets) = (at + 1, message.len());
            assert_eq!(client.reply(), format!("+OK {number} {octets}"), "{way}");
            assert_eq!(client.reply(), format!("+OK {octets} octets"), "{way}");
            assert_eq!(unstuff(&client.multiline()), *message, "{way}");
            assert!(client.reply().starts_with("+OK"), "{way}");
            assert!(message.starts_with(&client.multiline()), "{way}");
        }
        assert!(client.reply().starts_with("+OK 66 "), "{way}");
        assert_eq!(client.reply(), "+OK bye", "{way}");
        client.expect_closed();
    }
}

/// All that a server has to say to a client that says this and no more.
fn answers_to(gateway: &Gateway, octets: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address("pop3")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(octets).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    answers
}

#[test]
fn a_client_that_says_everything_and_hangs_up_is_answered() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n", b"\r\nb\r\n"]);
    let gateway = in_front_of(&imap);
    let answers = answers_to(
        &gateway,
        b"USER alice\r\nPASS pw-alice\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n",
    );
    assert_eq!(
        answers,
        "+OK popgate ready\r\n+OK send PASS\r\n+OK 2 messages (10 octets)\r\n+OK 2 10\r\n\
         +OK 5 octets\r\n\r\na\r\n.\r\n+OK message 1 deleted\r\n+OK bye\r\n"
    );
    assert_eq!(imap.uids("INBOX"), [2]);
    // The same without QUIT removes nothing, but is answered.
    let answers = answers_to(
        &gateway,
        b"USER alice\r\nPASS pw-alice\r\nDELE 1\r\nRETR 1\r\nUIDL 1\r\nTOP 1 0\r\nQUIT",
    );
    assert!(answers.contains("+OK message 1 deleted\r\n"), "{answers}");
    assert!(
        answers.ends_with("-ERR the message is deleted\r\n"),
        "{answers}"
    );
    assert!(
        gateway
            .wait_for_log("end=disconnected")
            .contains("deleted=0")
    );
    assert_eq!(imap.uids("INBOX"), [2]);
}

#[test]
fn what_is_sent_behind_quit_does_not_take_the_answer_back() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        let mut commands = b"NOOP\r\nQUIT\r\n".to_vec();
        commands.extend(b"NOOP\r\n".repeat(20_000));
        client.send_octets(&commands);
        assert!(client.reply().starts_with("-ERR"), "{way}");
        assert_eq!(client.reply(), "+OK bye", "{way}");
        let end = client.try_line();
        assert!(matches!(end, Ok(None)), "{way}: {end:?}");
    }
}

#[test]
fn lines_at_their_limits() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        // With its CRLF the line has 512 octets, then 513.
        let noop = |octets: usize| format!("NOOP{}", " ".repeat(octets - 6));
        assert_eq!(client.expect_err(&noop(512)), "log in first", "{way}");
        assert_eq!(client.expect_err(&noop(513)), "line too long", "{way}");
        assert_eq!(client.expect_err(&noop(100_000)), "line too long", "{way}");
        let auth = |octets: usize| format!("AUTH PLAIN {}", "!".repeat(octets - 13));
        assert_eq!(client.expect_err(&auth(16 * 1024)), "bad base64", "{way}");
        let too_long = auth(16 * 1024 + 1);
        assert_eq!(client.expect_err(&too_long), "line too long", "{way}");
        for (octets, answer) in [(16 * 1024, "bad base64"), (16 * 1024 + 1, "line too long")] {
            assert_eq!(client.command("AUTH PLAIN"), "+ ", "{way}");
            assert_eq!(client.expect_err(&"!".repeat(octets - 2)), answer, "{way}");
        }
        client.login("alice", "pw-alice");
        assert_eq!(client.expect_ok(&noop(512)), "", "{way}");
        assert_eq!(client.expect_err(&noop(513)), "line too long", "{way}");
        client.quit();
    }
}

#[test]
fn octets_that_no_command_has() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    for line in [
        &b"USER al\0ice\r\n"[..],
        b"USER alice\rPASS pw-alice\r\n",
        b"\0\r\n",
        b"\r\r\n",
        b"\r\n",
        b"USER \xff\r\n",
        b"\xff\xfe\r\n",
    ] {
        client.send_octets(line);
        let reply = client.reply();
        assert!(reply.starts_with("-ERR "), "{line:?}: {reply}");
    }
    // A bare LF ends a line: simple clients send it.
    client.send_octets(b"USER alice\nPASS pw-alice\nSTAT\nQUIT\n");
    assert_eq!(client.reply(), "+OK send PASS");
    assert_eq!(client.reply(), "+OK 1 message (5 octets)");
    assert_eq!(client.reply(), "+OK 1 5");
    assert_eq!(client.reply(), "+OK bye");
    assert_eq!(imap.connections(), 1);
}

#[test]
fn a_client_that_sends_octet_by_octet() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        for octet in b"USER alice\r\nPASS pw-alice\r\nRETR 1\r\nQUIT\r\n" {
            client.send_octets(&[*octet]);
        }
        for line in [
            "+OK send PASS",
            "+OK 1 message (5 octets)",
            "+OK 5 octets",
            "",
            "a",
            ".",
            "+OK bye",
        ] {
            assert_eq!(client.line(), line, "{way}");
        }
        client.expect_closed();
    }
}

#[test]
fn twenty_bad_commands_are_enough() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        client.send_octets(&b"BOGUS\r\n".repeat(5_000));
        for _ in 1..20 {
            assert_eq!(client.reply(), "-ERR unknown command", "{way}");
        }
        assert_eq!(client.reply(), "-ERR too many bad commands", "{way}");
        let end = client.try_line();
        assert!(matches!(end, Ok(None)), "{way}: {end:?}");
        gateway.wait_for_log("end=bad_commands");
    }
    // After a login as well, and then nothing is removed.
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client.expect_ok("DELE 1");
    client.send_octets(&b"BOGUS\r\n".repeat(20));
    for _ in 0..20 {
        assert!(client.reply().starts_with("-ERR "));
    }
    client.expect_closed();
    imap.wait_until_closed();
    assert_eq!(imap.uids("INBOX"), [1]);
}
