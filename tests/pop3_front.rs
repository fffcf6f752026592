//! The POP3 front on the wire: the program itself, in front of a scripted IMAP
//! server, in the clear, under STLS and under implicit TLS. What the session
//! answers in each state is in `tests/transcripts`; here is what only sockets
//! show: framing, pipelining, TLS, and what reaches the upstream.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::messages::{awkward, plain};
use support::pop3::unstuff;
use support::{Gateway, PATIENCE, Pop3, ScriptedImap};

/// A gateway that lets clients log in without TLS, too.
fn in_front_of(imap: &ScriptedImap) -> Gateway {
    Gateway::in_front_of(&imap.plain_url(), &["--allow-cleartext"])
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

fn base64(text: &str) -> String {
    STANDARD.encode(text)
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

#[test]
fn every_mechanism_with_and_without_initial_response() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let exchanges = [
        ("PLAIN", base64("\0alice\0pw-alice")),
        ("PLAIN", base64("alice\0alice\0pw-alice")),
        (
            "XOAUTH2",
            base64("user=alice\x01auth=Bearer tok-alice\x01\x01"),
        ),
        (
            "OAUTHBEARER",
            base64("n,a=alice,\x01auth=Bearer tok-alice\x01\x01"),
        ),
    ];
    for (_, mut client) in clients(&gateway) {
        // Each exchange on the connection of the last, after a failure.
        assert_eq!(client.command("AUTH PLAIN"), "+ ");
        assert_eq!(client.expect_err("*"), "cancelled");
        assert_eq!(client.command("AUTH LOGIN"), "+ VXNlcm5hbWU6");
        assert_eq!(client.expect_err("=bad="), "bad base64");
        client.expect_err("AUTH PLAIN bad!");
        client.expect_err("AUTH PLAIN =");
        client.expect_err("AUTH CRAM-MD5");
        client.expect_err("AUTH GSSAPI dGVzdA==");
        client.expect_err(&format!("AUTH PLAIN {}", base64("\0alice\0")));
        client.quit();
    }
    assert_eq!(imap.connections(), 0);
    for (mechanism, response) in &exchanges {
        for (way, mut client) in clients(&gateway) {
            let reply = client.command(&format!("AUTH {mechanism} {response}"));
            assert_eq!(reply, "+OK 1 message (5 octets)", "{mechanism} {way}");
            client.quit();
        }
        let mut client = gateway.pop3();
        assert_eq!(
            client.command(&format!("auth {}", mechanism.to_lowercase())),
            "+ "
        );
        assert_eq!(client.command(response), "+OK 1 message (5 octets)");
        client.quit();
    }
    for (_, mut client) in clients(&gateway) {
        assert_eq!(client.command("AUTH LOGIN"), "+ VXNlcm5hbWU6");
        assert_eq!(client.command(&base64("alice")), "+ UGFzc3dvcmQ6");
        assert_eq!(
            client.command(&base64("pw-alice")),
            "+OK 1 message (5 octets)"
        );
        client.quit();
    }
    let mut client = gateway.pop3();
    let reply = client.command(&format!("AUTH LOGIN {}", base64("alice")));
    assert_eq!(reply, "+ UGFzc3dvcmQ6");
    assert_eq!(client.expect_err("*"), "cancelled");
    client.quit();
}

#[test]
fn user_names_and_passwords_of_any_kind() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok("UTF8");
    client.login("j\u{fc}rgen m", "pw-j\u{fc}rgen m");
    client.quit();
    let mut client = gateway.pop3s();
    let response = base64("\0\u{4f60}\u{597d}\0pw-\u{4f60}\u{597d}");
    client.expect_ok(&format!("AUTH PLAIN {response}"));
    client.quit();
    // USER again: the last one counts.
    let mut client = gateway.pop3();
    client.expect_ok("USER mallory");
    client.login("alice", "pw-alice");
    client.expect_err("USER alice");
    client.expect_err("PASS pw-alice");
    client.expect_err("AUTH PLAIN");
    client.quit();
    let credentials: Vec<String> = imap
        .commands_starting("AUTHENTICATE PLAIN ")
        .iter()
        .map(|line| {
            let response = STANDARD.decode(line.rsplit(' ').next().unwrap());
            String::from_utf8(response.unwrap()).unwrap()
        })
        .collect();
    assert_eq!(
        credentials,
        [
            "\0j\u{fc}rgen m\0pw-j\u{fc}rgen m",
            "\0\u{4f60}\u{597d}\0pw-\u{4f60}\u{597d}",
            "\0alice\0pw-alice",
        ]
    );
}

#[test]
fn a_login_may_be_tried_again_on_the_same_connection() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    assert_eq!(
        client.expect_err("PASS  two  spaces "),
        "[AUTH] invalid user name or password"
    );
    // The user must be named again.
    assert_eq!(client.expect_err("PASS pw-alice"), "send USER first");
    client.expect_ok("USER alice");
    client.expect_ok("PASS pw-alice");
    client.quit();
    let refused = imap.commands_starting("AUTHENTICATE PLAIN ").remove(0);
    assert!(
        refused.ends_with(&base64("\0alice\0 two  spaces ")),
        "{refused}"
    );
}

#[test]
fn an_empty_password_never_goes_upstream() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (_, mut client) in clients(&gateway) {
        client.expect_ok("USER alice");
        assert!(client.expect_err("PASS ").starts_with("[AUTH] "));
        client.expect_ok("USER alice");
        client.expect_err("PASS");
        client.expect_err("USER ");
        client.expect_err("USER");
        client.expect_err(&format!("AUTH PLAIN {}", base64("\0alice\0")));
        client.expect_err(&format!("AUTH PLAIN {}", base64("\0\0pw-alice")));
        client.command("AUTH LOGIN");
        client.command(&base64("alice"));
        client.expect_err("");
        client.expect_err(&format!(
            "AUTH XOAUTH2 {}",
            base64("user=alice\x01auth=Bearer \x01\x01")
        ));
        client.quit();
    }
    assert_eq!(imap.connections(), 0);
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

#[test]
fn plaintext_behind_stls_ends_the_connection() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for injected in [
        &b"STLS\r\nUSER alice\r\nPASS pw-alice\r\n"[..],
        b"STLS\r\nU",
        b"STLS\r\n\r\n",
    ] {
        let mut client = gateway.pop3();
        client.send_octets(injected);
        assert!(client.reply().starts_with("+OK "));
        client.expect_closed();
    }
    // In a packet of its own it is garbage where a handshake is due.
    let mut client = gateway.pop3();
    client.expect_ok("STLS");
    client.send_octets(b"USER alice\r\nPASS pw-alice\r\n");
    let answer = client.try_line();
    assert!(
        !matches!(&answer, Ok(Some(line)) if line.starts_with(b"+OK")),
        "{answer:?}"
    );
    assert_eq!(imap.connections(), 0);
    // What was said before TLS is forgotten.
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    let mut client = client.start_tls(&gateway.ca_file());
    assert_eq!(client.expect_err("PASS pw-alice"), "send USER first");
    client.quit();
}

#[test]
fn tls_says_when_it_ends_in_order_and_does_not_where_a_message_breaks_off() {
    // Large enough not to be held whole before it is sent.
    let large = plain(1, 400_000);
    let (head, octets) = (large[..200_000].to_vec(), large.len());
    let imap = ScriptedImap::builder()
        .messages(&[large])
        .on("UID FETCH", move |command, _| {
            if !command.arguments.contains("BODY.PEEK[]") {
                return support::Answer::Usual;
            }
            let mut cut = format!("* 1 FETCH (UID 1 BODY[] {{{octets}}}\r\n").into_bytes();
            cut.extend_from_slice(&head);
            support::Answer::Close(cut)
        })
        .start();
    let gateway = in_front_of(&imap);
    for mut client in [gateway.pop3s(), gateway.pop3_stls()] {
        client.login("alice", "pw-alice");
        client.send("QUIT");
        assert_eq!(client.reply(), "+OK bye");
        // Without a close_notify this would be an error.
        assert!(matches!(client.try_line(), Ok(None)));
    }
    for mut client in [gateway.pop3(), gateway.pop3s(), gateway.pop3_stls()] {
        client.login("alice", "pw-alice");
        client.expect_ok("RETR 1");
        let cut = client.try_multiline().unwrap_err();
        assert_eq!(cut.error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(!cut.received.ends_with(b"\r\n.\r\n"));
        gateway.wait_for_log("end=upstream");
    }
}
