//! Answers to what only some policies ask: arrangements of mailboxes, ids and
//! times in listings, rights. They are bounded and checked like all others.

use std::time::Duration;

use super::memory::floods_with;
use super::*;
use crate::support::Answer;

const JUNK: &str = "folders = [\"INBOX\", \"Junk\"]";

fn many(line: &str) -> Vec<u8> {
    line.as_bytes().repeat(64 * 1024 / line.len() + 1)
}

#[test]
fn arrangements_without_end() {
    for answer in [
        many("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n"),
        many("* LIST () \"/\" Junk\r\n"),
        many("* LIST (\\Junk) \"/\" x\r\n"),
        [b"* NAMESPACE (".to_vec(), many("(\"a\" \"/\")")].concat(),
    ] {
        floods_with(JUNK, "NAMESPACE", answer.clone());
        floods_with(JUNK, "LIST", answer);
    }
}

#[test]
fn ids_and_times_without_end() {
    let ids = "unique_ids = \"%g\"\nmax_age = \"30d\"";
    let long = "x".repeat(255);
    for row in [
        format!("* 1 FETCH (UID 1 RFC822.SIZE 500 X-GUID {long})\r\n"),
        format!("* 1 FETCH (UID 1 X-GUID {{255}}\r\n{long} EMAILID ({long}))\r\n"),
        "* 1 FETCH (UID 1 INTERNALDATE \"01-Jan-2024 00:00:00 +0000\")\r\n".to_owned(),
    ] {
        floods_with(ids, "UID FETCH", many(&row));
    }
    floods_with(
        ids,
        "UID FETCH",
        [b"* 1 FETCH (X-GUID \"".to_vec(), many("x")].concat(),
    );
}

#[test]
fn other_answers_without_end() {
    let hide = "seen = \"on-retr\"";
    for command in ["SELECT", "UID SEARCH"] {
        floods_with(hide, command, many("* MYRIGHTS INBOX lrswite\r\n"));
        floods_with(
            hide,
            command,
            many("* OK [PERMANENTFLAGS (a b c \\*)] x\r\n"),
        );
    }
}

/// Nothing here may pass for a mailbox that was found and listed.
#[test]
fn answers_that_make_no_sense() {
    for (command, answer) in [
        ("NAMESPACE", "* NAMESPACE\r\n"),
        ("NAMESPACE", "* NAMESPACE ((\"\" \"/\" NIL NIL\r\n"),
        ("NAMESPACE", "* BYE no\r\n"),
        ("LIST", "* LIST\r\n"),
        ("LIST", "* LIST () \"/\"\r\n"),
        ("SELECT \"Junk\"", "* MYRIGHTS\r\n"),
        ("SELECT \"Junk\"", "* 3 EXISTS\r\n"),
    ] {
        let server = builder(3)
            .world(|world| {
                let junk = support::scripted_imap::Mailbox::new("Junk", None);
                world.mailboxes.push(junk);
            })
            .on(command, move |command, _| {
                Answer::send(format!("{answer}{}", command.ok("done")))
            })
            .start();
        let front = Front::with(&server, "expunge", "2s", JUNK);
        let refusal = front.login_refusal();
        assert!(is_temporary(&refusal), "{command}, {answer}: {refusal}");
        check_wire(&server);
    }
}

/// A mailbox name that no client could have chosen goes out as a name, if at all.
#[test]
fn names_that_look_like_protocol() {
    for name in ["a\" \"b", "x\\\\", "&AAo-", "Gr\u{fc}n {5}", "*", "%"] {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let server = builder(3)
            .without(&["MOVE"])
            .on("LIST", move |command, _| {
                Answer::send(format!(
                    "* LIST (\\Trash) \"/\" \"{quoted}\"\r\n{}",
                    command.ok("done")
                ))
            })
            .start();
        let front = Front::with(&server, "trash", "2s", "");
        let mut client = front.login();
        client.expect_ok("DELE 1");
        // There is no such mailbox: nothing leaves, and nothing else happens.
        let reply = client.quit();
        assert!(reply.contains("1 messages not removed"), "{reply}");
        assert_eq!(server.uids("INBOX"), [1, 2, 3]);
        check_wire(&server);
        let copies = server.commands_starting("UID COPY");
        assert_eq!(copies.len(), 1, "{copies:?}");
    }
}

#[test]
fn a_server_that_hangs_at_the_second_folder() {
    let server = builder(3)
        .world(|world| {
            let junk = support::scripted_imap::Mailbox::new("Junk", None);
            world.mailboxes.push(junk);
        })
        .on("SELECT \"Junk\"", |_, _| Answer::Hang(Vec::new()))
        .start();
    let front = Front::with(&server, "expunge", "1s", JUNK);
    let refusal = front.login_refusal();
    assert!(is_temporary(&refusal), "{refusal}");
    let server = builder(1)
        .on("LIST", |_, _| {
            Answer::Endless(b"* OK wait\r\n".to_vec(), Duration::from_millis(10))
        })
        .start();
    let front = Front::with(&server, "expunge", "1s", JUNK);
    assert!(is_temporary(&front.login_refusal()));
}

#[test]
fn room_for_ids_is_taken_when_they_come() {
    let server = builder(3)
        .on("SELECT", |command, _| {
            let end = command.ok("[READ-WRITE] done");
            Answer::send(format!(
                "* 5000000 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{end}"
            ))
        })
        .on("UID FETCH", |_, _| Answer::Hang(Vec::new()))
        .start();
    let ids = "unique_ids = \"%g%u\"\nmax_age = \"30d\"";
    let front = Front::with(&server, "expunge", "1s", ids);
    let before = front.gateway.rss_kib();
    assert!(is_temporary(&front.login_refusal()));
    let taken = front.gateway.peak_rss_kib() - before;
    assert!(taken < super::memory::ROOM, "{taken} KiB");
}
