//! Octets without end, and large numbers: what popgate keeps of them is little.

use std::time::Duration;

use super::*;
use crate::support::Answer;

/// What all of this may cost, in KiB.
pub const ROOM: u64 = 24 * 1024;

/// Logs in while `command` is answered without end; the answer is of a known
/// class and the memory is bounded.
fn floods(command: &'static str, answer: impl Into<Vec<u8>>) {
    floods_with("", command, answer);
}

/// The same with more settings.
pub fn floods_with(more: &str, command: &'static str, answer: impl Into<Vec<u8>>) {
    let answer = answer.into();
    let server = builder(3)
        .on(command, move |_, _| {
            Answer::Endless(answer.clone(), Duration::ZERO)
        })
        .start();
    let front = Front::with(&server, "trash", "2s", more);
    let before = front.gateway.rss_kib();
    let refusal = front.login_refusal();
    assert!(is_temporary(&refusal), "{command}: {refusal}");
    let taken = front.gateway.peak_rss_kib() - before;
    assert!(taken < ROOM, "{command}: {taken} KiB");
}

/// As many of `line` as fill a large write.
fn many(line: &str) -> Vec<u8> {
    line.as_bytes().repeat(64 * 1024 / line.len() + 1)
}

#[test]
fn lines_without_end() {
    for command in [
        "GREETING",
        "AUTHENTICATE",
        "LIST",
        "SELECT",
        "UID FETCH",
        "UID SEARCH",
    ] {
        floods(command, many("x"));
        floods(command, [b"* OK ".to_vec(), many("x")].concat());
    }
}

#[test]
fn rows_without_end() {
    floods("UID FETCH", many("* 1 FETCH (UID 1 RFC822.SIZE 500)\r\n"));
    floods("UID FETCH", many("* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n"));
    floods(
        "UID FETCH",
        many("* 1 FETCH (X {3}\r\nabc Y {3}\r\nabc)\r\n"),
    );
}

#[test]
fn searches_without_end() {
    floods(
        "UID SEARCH",
        many("* SEARCH 1 2 3 1 2 3 1 2 3 1 2 3 1 2 3 1 2 3\r\n"),
    );
    floods(
        "UID SEARCH",
        many("* ESEARCH UID ALL 1:3,1:3,1:3,1:3,1:3,1:3,1:3\r\n"),
    );
}

#[test]
fn mailboxes_without_end() {
    floods("LIST", many("* LIST (\\Trash) \"/\" Trash\r\n"));
    floods("LIST", many("* LIST () \"/\" \"a folder\"\r\n"));
    floods("LIST", many("* LIST () \"/\" {5}\r\nTrash\r\n"));
}

#[test]
fn news_without_end() {
    for command in ["LIST", "SELECT", "UID FETCH", "UID SEARCH"] {
        floods(
            command,
            many("* OK [ALERT] news\r\n* 3 EXISTS\r\n* 3 RECENT\r\n"),
        );
    }
    floods("UID FETCH", many("* 4 EXISTS\r\n* 4 EXPUNGE\r\n"));
    floods(
        "AUTHENTICATE",
        many("* CAPABILITY IMAP4rev1 A B C D E F\r\n"),
    );
    floods("UID FETCH", many("P1 OK\r\n"));
    floods("UID FETCH", many("+ go on\r\n"));
}

#[test]
fn claims_are_not_believed() {
    for line in [
        "* 1 FETCH (UID 1 BODY[] {4294967295}\r\n",
        "* 1 FETCH (UID 1 X {4294967295}\r\n",
        "* XYZZY {4294967295}\r\n",
        "* LIST () \"/\" {4294967295}\r\n",
        "* 4294967295 EXISTS\r\n",
        "* 5000000 EXISTS\r\n* 5000000 FETCH (UID 1 RFC822.SIZE 5)\r\n* 1 EXPUNGE\r\n",
    ] {
        let server = builder(3)
            .on("UID FETCH", move |_, _| Answer::Hang(line.into()))
            .start();
        let front = Front::with(&server, "trash", "1s", "");
        let before = front.gateway.rss_kib();
        let refusal = front.login_refusal();
        assert!(is_temporary(&refusal), "{line}: {refusal}");
        let taken = front.gateway.peak_rss_kib() - before;
        // A tree of five million places is the largest of these.
        assert!(taken < ROOM + 20 * 1024, "{line}: {taken} KiB");
    }
}

#[test]
fn expunges_cost_as_little_in_a_large_mailbox() {
    // Each of them renumbers what is behind it.
    let count: u32 = 100_000;
    let server = builder(1)
        .on("SELECT", move |command, _| {
            let end = command.ok("[READ-WRITE] done");
            Answer::send(format!(
                "* {count} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{end}"
            ))
        })
        .on("UID FETCH 1:*", move |command, _| {
            let mut text = String::new();
            for number in 1..=count {
                text.push_str(&format!(
                    "* {number} FETCH (UID {number} RFC822.SIZE 5)\r\n"
                ));
            }
            text.push_str(&"* 1 EXPUNGE\r\n".repeat(count as usize - 1));
            Answer::send(text + &command.ok("done"))
        })
        .on("UID SEARCH", |command, _| Answer::send(command.ok("none")))
        .start();
    let front = Front::with(&server, "trash", "20s", "");
    assert_eq!(front.login().unique_ids().len(), 1);
}

#[test]
fn a_long_message_passes_through() {
    let whole = messages::plain(1, 40_000_000);
    let server = ScriptedImap::builder().messages(&[&whole]).start();
    let front = Front::with(&server, "trash", "20s", "");
    let mut client = front.login();
    let before = front.gateway.rss_kib();
    assert!(client.retrieve(1) == whole);
    let taken = front.gateway.peak_rss_kib() - before;
    assert!(taken < ROOM, "{taken} KiB");
}
