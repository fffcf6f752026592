//! How TLS begins and ends.

use crate::in_front_of;
use crate::support::messages::plain;
use crate::support::{Answer, ScriptedImap};

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
                return Answer::Usual;
            }
            let mut cut = format!("* 1 FETCH (UID 1 BODY[] {{{octets}}}\r\n").into_bytes();
            cut.extend_from_slice(&head);
            Answer::Close(cut)
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
