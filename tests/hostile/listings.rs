//! Listings that are not whole, contradict themselves, or come in unusual ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::support::Answer;
use crate::support::scripted_imap::Command;

/// A server with three messages that answers the listing with these rows.
fn listing(rows: &str) -> ScriptedImap {
    let rows = rows.to_owned();
    builder(3)
        .on("UID FETCH 1:*", move |command, _| {
            Answer::send(format!("{rows}{}", command.ok("done")))
        })
        .start()
}

/// `* n FETCH (UID uid RFC822.SIZE 500)` for each.
fn rows(rows: &[(u64, u64)]) -> String {
    let row = |(seq, uid): &(u64, u64)| format!("* {seq} FETCH (UID {uid} RFC822.SIZE 500)\r\n");
    rows.iter().map(row).collect()
}

#[test]
fn a_listing_that_is_not_whole_is_no_maildrop() {
    let max = u64::from(u32::MAX);
    for (what, text) in [
        ("no row", String::new()),
        ("fewer rows", rows(&[(1, 1), (2, 2)])),
        ("a hole", rows(&[(1, 1), (3, 3)])),
        ("a UID twice", rows(&[(1, 1), (2, 2), (3, 2)])),
        ("two UIDs for one", rows(&[(1, 1), (2, 2), (3, 3), (3, 4)])),
        ("UID 0", rows(&[(1, 1), (2, 0), (3, 3)])),
        (
            "a UID that is too large",
            rows(&[(1, 1), (2, 2), (3, max + 1)]),
        ),
        (
            "a message too many",
            rows(&[(1, 1), (2, 2), (3, 3), (4, 4)]),
        ),
        ("message 0", rows(&[(0, 1), (1, 1), (2, 2), (3, 3)])),
        (
            "a number that is too large",
            rows(&[(1, 1), (2, 2), (max + 1, 3)]),
        ),
        ("no size", rows(&[(1, 1), (2, 2)]) + "* 3 FETCH (UID 3)\r\n"),
        (
            "no UID",
            rows(&[(1, 1), (2, 2)]) + "* 3 FETCH (RFC822.SIZE 500)\r\n",
        ),
        (
            "a size that is none",
            rows(&[(1, 1), (2, 2)]) + "* 3 FETCH (UID 3 RFC822.SIZE NIL)\r\n",
        ),
        (
            "sizes beyond all numbers",
            format!(
                "* 1 FETCH (UID 1 RFC822.SIZE {0})\r\n* 2 FETCH (UID 2 RFC822.SIZE {0})\r\n",
                u64::MAX - 1
            ) + &rows(&[(3, 3)]),
        ),
        (
            "one expunged too many",
            rows(&[(1, 1), (2, 2), (3, 3)]) + "* 4 EXPUNGE\r\n",
        ),
        (
            "EXPUNGE of none",
            "* 0 EXPUNGE\r\n".to_owned() + &rows(&[(1, 1), (2, 2), (3, 3)]),
        ),
        (
            "a mailbox that shrinks",
            "* 2 EXISTS\r\n".to_owned() + &rows(&[(1, 1), (2, 2)]),
        ),
        (
            "5,000 parentheses",
            format!("* 1 FETCH (X {}\r\n", "(".repeat(5000)),
        ),
        (
            "another UIDVALIDITY",
            "* OK [UIDVALIDITY 5] new\r\n".to_owned() + &rows(&[(1, 1), (2, 2), (3, 3)]),
        ),
    ] {
        let server = listing(&text);
        let mut front = Front::new(&server, "trash");
        let refusal = front.login_refusal();
        assert!(is_temporary(&refusal), "{what}: {refusal}");
        assert!(front.gateway.is_running(), "{what}");
    }
}

#[test]
fn a_listing_may_be_whole_in_unusual_ways() {
    let mixed = "* 3 fetch (rfc822.size 503  uid 30 )\r\n* 7 RECENT\r\n\
        * 1 FETCH (FLAGS (\\Seen $X) UID 10 MODSEQ (5) RFC822.SIZE 501)\r\n\
        * 2 FETCH (UID 20)\r\n* 4 EXISTS\r\n* 2 FETCH (RFC822.SIZE 502)\r\n\
        * 4 FETCH (UID 40 RFC822.SIZE 504)\r\n* 1 FETCH (FLAGS ())\r\n";
    let server = listing(mixed);
    let front = Front::new(&server, "trash");
    assert_eq!(front.login().sizes(), [501, 502, 503]);

    let last = u64::from(u32::MAX);
    let large = 5 * 1024 * 1024 * 1024_u64;
    let server = listing(&format!(
        "{}* 3 FETCH (UID {last} RFC822.SIZE {large})\r\n",
        rows(&[(1, last - 2), (2, last - 1)])
    ));
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    assert_eq!(client.sizes(), [500, 500, usize::try_from(large).unwrap()]);
    let refusal = client.expect_err("RETR 3");
    assert!(refusal.starts_with("[SYS/PERM] "), "{refusal}");

    let expunged = "* 1 FETCH (UID 1 RFC822.SIZE 501)\r\n* 1 EXPUNGE\r\n* 2 EXPUNGED\r\n\
        * 1 FETCH (UID 2 RFC822.SIZE 502)\r\n";
    let server = listing(expunged);
    let front = Front::new(&server, "trash");
    assert_eq!(front.login().sizes(), [502]);
}

#[test]
fn a_mailbox_that_cannot_be_selected() {
    for (answer, class) in [
        (
            "* 3 EXISTS\r\n{} OK [READ-WRITE] no UIDVALIDITY",
            "[SYS/TEMP]",
        ),
        ("* OK [UIDVALIDITY 7] x\r\n{} OK no EXISTS", "[SYS/TEMP]"),
        (
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 0] x\r\n{} OK x",
            "[SYS/TEMP]",
        ),
        (
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 4294967296] x\r\n{} OK x",
            "[SYS/TEMP]",
        ),
        (
            "* 4294967296 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{} OK x",
            "[SYS/TEMP]",
        ),
        (
            "* 4294967295 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{} OK x",
            "[SYS/PERM]",
        ),
        (
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{} OK [READ-ONLY] x",
            "[SYS/PERM]",
        ),
        ("{} NO [INUSE] locked", "[IN-USE]"),
        ("{} NO [LIMIT] enough", "[IN-USE]"),
        ("{} NO [NOPERM] not yours", "[SYS/PERM]"),
        ("{} NO [AUTHENTICATIONFAILED] so late?", "[SYS/TEMP]"),
        ("{} NO [EXPUNGEISSUED] odd", "[SYS/TEMP]"),
        (
            "{} BAD User is authenticated but not connected.",
            "[SYS/TEMP]",
        ),
    ] {
        let server = builder(3)
            .on("SELECT", move |command, _| {
                Answer::send(format!("{}\r\n", answer.replace("{}", &command.tag)))
            })
            .start();
        let front = Front::new(&server, "trash");
        let refusal = front.login_refusal();
        assert!(refusal.starts_with(class), "{answer}: {refusal}");
    }
}

#[test]
fn answers_may_come_in_another_order() {
    // All is answered when SELECT comes, last command first.
    let server = builder(2)
        .on("LIST", |_, _| Answer::Send(Vec::new()))
        .on("SELECT", |command, _| {
            let number: u32 = command.tag.trim_start_matches('P').parse().unwrap();
            let mut text = format!(
                "* OK [UIDVALIDITY 1] first\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 9] last\r\n{}",
                command.ok("[READ-WRITE]")
            );
            text.push_str("* LIST (\\Trash) NIL {3}\r\nBin\r\n* list () \"/\" \"Trash\" (\"X\" (1))\r\n");
            for earlier in (1..=4).rev() {
                text.push_str(&format!("P{} OK\r\n", number - earlier));
            }
            Answer::send(text)
        })
        .on("UID FETCH 1:*", |_, _| Answer::Send(Vec::new()))
        .on("UID SEARCH", |command, _| {
            let number: u32 = command.tag.trim_start_matches('P').parse().unwrap();
            Answer::send(format!(
                "{}* 1 FETCH (UID 1 RFC822.SIZE 5)\r\n* 2 FETCH (UID 2 RFC822.SIZE 5)\r\nP{} OK\r\n",
                command.ok("none"),
                number - 1
            ))
        })
        .start();
    let front = Front::new(&server, "trash");
    assert_eq!(front.login().sizes().len(), 2);
}

#[test]
fn messages_marked_deleted_are_hidden_however_that_is_told() {
    let without = |capabilities: &[&str]| {
        builder(4).without(capabilities).world(|world| {
            world
                .inbox()
                .message(2)
                .unwrap()
                .set_flag("\\Deleted", true)
        })
    };
    let refused = |command: &Command, _: &mut _| Answer::send(command.no("not today"));
    for server in [
        without(&[]).start(),
        without(&["ESEARCH"]).start(),
        without(&[]).on("UID SEARCH", refused).start(),
        without(&[]).announcing("MESSAGELIMIT=2").start(),
        without(&[])
            .on("UID SEARCH", |command, _| {
                let part = "OK [MESSAGELIMIT 1 4] a part";
                Answer::send(format!("* SEARCH\r\n{} {part}\r\n", command.tag))
            })
            .start(),
    ] {
        let mut front = Front::new(&server, "trash");
        assert_eq!(front.login().unique_ids().len(), 3);
        front.serves_the_next(3);
        check_wire(&server);
    }
}

#[test]
fn an_announced_limit_holds_for_every_command() {
    for without in [&[][..], &["MOVE"]] {
        let server = builder(7)
            .without(without)
            .announcing("MESSAGELIMIT=3")
            .on("", |command, _| {
                let set = match command.name.as_str() {
                    "LIST" | "SELECT" | "UID SEARCH" => return Answer::Usual,
                    _ => command.arguments.split(' ').next().unwrap_or_default(),
                };
                let count: u32 = set
                    .split(',')
                    .filter_map(|range| {
                        let (first, last) = range.split_once(':').unwrap_or((range, range));
                        Some(last.parse::<u32>().ok()? - first.parse::<u32>().ok()? + 1)
                    })
                    .sum();
                match count > 3 || set.ends_with('*') {
                    true => Answer::send(command.ok("[MESSAGELIMIT 3 1] a part")),
                    false => Answer::Usual,
                }
            })
            .start();
        let front = Front::new(&server, "trash");
        let mut client = front.login();
        for number in 1..=7 {
            client.expect_ok(&format!("DELE {number}"));
        }
        assert!(client.quit().starts_with("+OK"));
        assert!(server.uids("INBOX").is_empty());
        assert_eq!(server.uids("Trash").len(), 7);
        check_wire(&server);
    }
}

#[test]
fn a_verification_of_a_part_is_none() {
    let server = builder(3)
        .on("UID EXPUNGE", |command, _| Answer::send(command.ok("done")))
        .on("UID FETCH 1 (UID)", |command, _| {
            Answer::send(command.ok("[MESSAGELIMIT 1 2] a part"))
        })
        .start();
    let front = Front::new(&server, "expunge");
    let mut client = front.login();
    client.expect_ok("DELE 1");
    assert_eq!(client.quit(), "-ERR [SYS/TEMP] 1 messages not removed");
}

#[test]
fn special_uses_without_the_extended_list() {
    let server = builder(1)
        .world(|world| world.mailboxes[1].name = "Papelera".to_owned())
        .on("LIST (SPECIAL-USE)", |command, _| {
            Answer::send(command.bad("no such LIST"))
        })
        .start();
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    client.expect_ok("DELE 1");
    assert!(client.quit().starts_with("+OK"));
    assert_eq!(server.uids("Papelera").len(), 1);
}

#[test]
fn throttling_is_no_refusal_and_is_obeyed() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let server = builder(1)
        .on("SELECT", move |command, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            let text = "Request is throttled. Suggested Backoff Time: 600000 milliseconds";
            Answer::send(command.bad(text))
        })
        .start();
    let front = Front::new(&server, "trash");
    for _ in 0..3 {
        let refusal = front.login_refusal();
        assert!(is_temporary(&refusal), "{refusal}");
    }
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[test]
fn too_many_connections_is_in_use() {
    for greeting in [
        "* BYE [ALERT] Too many simultaneous connections. (Failure)",
        "* BYE Maximum number of connections from user+IP exceeded",
        "* BYE [LIMIT] enough",
    ] {
        let server = builder(1).greeting(greeting).start();
        let refusal = Front::new(&server, "trash").login_refusal();
        assert!(refusal.starts_with("[IN-USE] "), "{greeting}: {refusal}");
    }
}

#[test]
fn nothing_of_the_servers_words_reaches_the_client() {
    let server = builder(1)
        .on("SELECT", |command, _| {
            Answer::send(command.no("CANARY\u{1b}[31m\r of the server"))
        })
        .start();
    let front = Front::new(&server, "trash");
    let refusal = front.login_refusal();
    assert!(!refusal.contains("CANARY"), "{refusal}");
    let logged = front.gateway.wait_for_log("CANARY");
    assert!(
        !logged.contains('\u{1b}') && !logged.contains('\r'),
        "{logged:?}"
    );
    assert!(!front.gateway.logs().contains("pw-alice"));
}
