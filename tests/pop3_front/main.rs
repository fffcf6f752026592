//! The POP3 front on the wire: the program itself, in front of a scripted IMAP
//! server, in the clear, under STLS and under implicit TLS. What the session
//! answers in each state is in `tests/transcripts`; here is what only sockets
//! show: framing, pipelining, TLS, and what reaches the upstream.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod framing;
mod logins;
mod policies;
mod tls;

use support::messages::awkward;
use support::pop3::unstuff;
use support::{Gateway, Pop3, ScriptedImap};

/// A gateway that lets clients log in without TLS, too.
fn in_front_of(imap: &ScriptedImap) -> Gateway {
    Gateway::with_fresh_connections(&imap.plain_url(), &["--allow-cleartext"])
}

/// A client of each kind.
fn clients(gateway: &Gateway) -> [(&'static str, Pop3); 3] {
    [
        ("in the clear", gateway.pop3()),
        ("under STLS", gateway.pop3_stls()),
        ("under implicit TLS", gateway.pop3s()),
    ]
}

/// `C:` is sent, `S:` must come, to the octet.
fn converse(client: &mut Pop3, conversation: &str) {
    for line in conversation.lines().map(str::trim) {
        if let Some(command) = line.strip_prefix("C: ") {
            client.send(command);
        } else {
            let expected = line.strip_prefix("S:").unwrap().trim_start();
            assert_eq!(client.line(), expected, "in:\n{conversation}");
        }
    }
}

#[test]
fn a_session_by_each_way_in() {
    let imap = ScriptedImap::with_messages(&[b"Subject: a\r\n\r\none\r\n", b"\r\n.\r\n..\r\n"]);
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        assert_eq!(client.greeting, "popgate ready", "{way}");
        converse(
            &mut client,
            "C: user alice
             S: +OK send PASS
             C: Pass pw-alice
             S: +OK 2 messages (28 octets)
             C: STAT
             S: +OK 2 28
             C: LIST
             S: +OK 2 messages (28 octets)
             S: 1 19
             S: 2 9
             S: .
             C: LIST 2
             S: +OK 2 9
             C: UIDL
             S: +OK 2 messages (28 octets)
             S: 1 000000016553f100
             S: 2 000000026553f100
             S: .
             C: UIDL 1
             S: +OK 1 000000016553f100
             C: RETR 1
             S: +OK 19 octets
             S: Subject: a
             S:
             S: one
             S: .
             C: TOP 2 1
             S: +OK top of message follows
             S:
             S: ..
             S: .
             C: RETR 2
             S: +OK 9 octets
             S:
             S: ..
             S: ...
             S: .
             C: NOOP
             S: +OK
             C: DELE 1
             S: +OK message 1 deleted
             C: STAT
             S: +OK 1 9
             C: LIST
             S: +OK 1 message (9 octets)
             S: 2 9
             S: .
             C: UIDL
             S: +OK 1 message (9 octets)
             S: 2 000000026553f100
             S: .
             C: LIST 1
             S: -ERR the message is deleted
             C: UIDL 1
             S: -ERR the message is deleted
             C: RETR 1
             S: -ERR the message is deleted
             C: TOP 1 0
             S: -ERR the message is deleted
             C: DELE 1
             S: -ERR the message is deleted
             C: LIST 2
             S: +OK 2 9
             C: RSET
             S: +OK 2 messages (28 octets)
             C: LIST 1
             S: +OK 1 19
             C: LANG
             S: +OK languages
             S: en English
             S: .
             C: LANG *
             S: +OK en English it is
             C: LANG fr
             S: -ERR the only language is en
             C: QUIT
             S: +OK bye",
        );
        client.expect_closed();
        assert_eq!(imap.uids("INBOX"), [1, 2], "{way}");
    }
}

#[test]
fn numbers_that_name_no_message() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    let wrong = [
        "0",
        "-1",
        "+1",
        "2",
        "99999999999999999999",
        "1x",
        "x",
        "1 1",
    ];
    for number in wrong {
        for command in ["LIST", "UIDL", "RETR", "DELE", "TOP"] {
            let lines = if command == "TOP" { " 1" } else { "" };
            // Not all of these are one session's worth of mistakes.
            let mut client = gateway.pop3();
            client.login("alice-2", "pw-alice-2");
            client.expect_err(&format!("{command} {number}{lines}"));
            client.quit();
        }
    }
    for lines in ["-1", "x", "1x", ""] {
        client.expect_err(&format!("TOP 1 {lines}"));
    }
    // Leading zeros are digits like others (RFC 1939 has no rule).
    assert_eq!(client.expect_ok("LIST 0001"), "1 5");
    client.expect_ok("TOP 1 99999999999999999999");
    assert_eq!(client.multiline(), b"\r\na\r\n");
    client.quit();
}

#[test]
fn capabilities_are_those_that_work() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let tail = ["LANG", "IMPLEMENTATION popgate"];
    let login = [
        "TOP",
        "UIDL",
        "USER",
        "RESP-CODES",
        "AUTH-RESP-CODE",
        "PIPELINING",
        "SASL PLAIN LOGIN XOAUTH2 OAUTHBEARER",
    ];
    let full = [&login[..], &["UTF8 USER"], &tail].concat();
    let full_with_stls = [&login[..], &["STLS", "UTF8 USER"], &tail].concat();
    let no_login = [
        &["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"][..],
        &["STLS", "UTF8"],
        &tail,
    ]
    .concat();

    let gateway = Gateway::in_front_of(&imap.plain_url(), &[]);
    let mut client = gateway.pop3();
    assert_eq!(client.lines("CAPA"), no_login);
    assert!(client.expect_err("USER alice").starts_with("[SYS/PERM] "));
    assert!(client.expect_err("AUTH PLAIN").starts_with("[SYS/PERM] "));
    let mut client = client.start_tls(&gateway.ca_file());
    assert_eq!(client.lines("CAPA"), full);
    client.expect_err("STLS");
    client.login("alice", "pw-alice");
    assert_eq!(client.lines("CAPA"), full);
    client.quit();
    let mut client = gateway.pop3s();
    assert_eq!(client.lines("CAPA"), full);
    client.expect_err("STLS");
    client.quit();
    assert!(imap.connections() == 1, "a refused login went upstream");

    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    assert_eq!(client.lines("CAPA"), full_with_stls);
    client.login("alice", "pw-alice");
    assert_eq!(client.lines("CAPA"), full);
    client.quit();
}

#[test]
fn awkward_messages_arrive_as_they_are() {
    let messages = awkward();
    let imap = ScriptedImap::builder().messages(&messages).start();
    let gateway = in_front_of(&imap);
    for (way, mut client) in clients(&gateway) {
        client.login("alice", "pw-alice");
        for (at, message) in messages.iter().enumerate() {
            let mut expected = message.clone();
            if !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            let number = at + 1;
            assert!(
                client.retrieve(number) == expected,
                "message {number} {way}"
            );
            // Once it was seen, its size is the true one.
            let listed = client.expect_ok(&format!("LIST {number}"));
            assert_eq!(listed, format!("{number} {}", expected.len()), "{way}");
            client.expect_ok(&format!("TOP {number} 1000000"));
            assert!(
                unstuff(&client.multiline()) == expected,
                "TOP {number} {way}"
            );
        }
        client.quit();
    }
}
