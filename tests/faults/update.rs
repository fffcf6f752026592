//! QUIT: the reply agrees with the mailbox, and a second try converges.

use crate::rig::{Rig, Spot, after_answer, after_sent, before_answer, before_sent, fault, nth};
use crate::support::{Action, Fault, Stored, messages};

/// Messages that the client deletes, by UID and by number alike.
const MARKED: [u32; 3] = [1, 3, 6];
const SENT: std::ops::RangeInclusive<usize> = 1..=7;
/// Another client marked this one; it is hidden, and must stay.
const OTHERS: u32 = 7;

fn deliver(rig: &Rig) -> Vec<Stored> {
    let sent: Vec<Vec<u8>> = SENT.map(|number| messages::plain(number, 700)).collect();
    rig.deliver("alice", &sent);
    // UIDs go on from what was there before.
    let first = rig.inbox("alice")[0].uid;
    let mut imap = rig.dovecot.imap("alice");
    imap.add_flags("INBOX", &(first + OTHERS - 1).to_string(), "\\Deleted");
    imap.add_flags("INBOX", &(first + 1).to_string(), "\\Flagged");
    rig.inbox("alice")
}

/// Of `before`, what was not deleted by the client.
fn unmarked(before: &[Stored]) -> Vec<Stored> {
    let first = before[0].uid;
    let stays = |stored: &&Stored| !MARKED.contains(&(stored.uid - first + 1));
    before.iter().filter(stays).cloned().collect()
}

/// Deletes and quits; the reply to QUIT.
fn delete(rig: &Rig) -> String {
    let mut client = rig.login("alice");
    for number in MARKED {
        client.expect_ok(&format!("DELE {number}"));
    }
    client.quit()
}

/// The reply is what the mailbox says: all are gone, or so many are not, and
/// these are as they were before.
#[track_caller]
fn assert_agrees(reply: &str, before: &[Stored], after: &[Stored], what: &str) {
    let unmarked = unmarked(before);
    let left: Vec<Stored> = after
        .iter()
        .filter(|stored| !unmarked.iter().any(|other| other.uid == stored.uid))
        .cloned()
        .collect();
    let others: Vec<Stored> = after
        .iter()
        .filter(|stored| unmarked.iter().any(|other| other.uid == stored.uid))
        .cloned()
        .collect();
    assert_eq!(others, unmarked, "{what}: {reply}");
    if reply.starts_with("+OK") {
        assert_eq!(left, [], "{what}: {reply}");
    } else {
        let expected = format!("-ERR [SYS/TEMP] {} messages not removed", left.len());
        assert_eq!(reply, expected, "{what}");
        for stored in &left {
            assert!(before.contains(stored), "{what}: changed: {stored:?}");
        }
    }
}

/// Whatever was removed, lies in the Trash, where the policy says so.
fn assert_in_trash(rig: &Rig, before: &[Stored], after: &[Stored], what: &str) {
    let trash = rig.dovecot.mailbox("alice", "Trash");
    for stored in before {
        let gone = !after.iter().any(|other| other.uid == stored.uid);
        let thrown = trash.iter().any(|other| other.octets == stored.octets);
        assert!(!gone || thrown, "{what}: lost: {stored:?}");
    }
}

/// Breaks the first connection at each place, both ways.
fn every_reply_agrees(rig: Option<Rig>, places: &[Spot], to_trash: bool) {
    let Some(rig) = rig else { return };
    for (place, action) in places
        .iter()
        .flat_map(|place| [(place, Action::Cut), (place, Action::Reset)])
    {
        let what = format!("{place:?}, {action:?}");
        let before = deliver(&rig);
        let acted = rig.proxy.acted();
        rig.arm(vec![fault(place, action)]);
        let reply = delete(&rig);
        rig.proxy.wait_until_acted(acted + 1);
        let after = rig.inbox("alice");
        assert_agrees(&reply, &before, &after, &what);
        if to_trash {
            assert_in_trash(&rig, &before, &after, &what);
        }
        converges(&rig, &before, &what);
    }
}

/// A second session finds what is left, deletes it, and all is as it should be.
fn converges(rig: &Rig, before: &[Stored], what: &str) {
    let unmarked = unmarked(before);
    let mut client = rig.login("alice");
    let first = before[0].uid;
    let validity_is_last = |id: &String| u32::from_str_radix(&id[..8], 16).unwrap() - first + 1;
    let uids: Vec<u32> = client.unique_ids().iter().map(validity_is_last).collect();
    for (number, uid) in (1..).zip(&uids) {
        if MARKED.contains(uid) {
            client.expect_ok(&format!("DELE {number}"));
        }
    }
    let reply = client.quit();
    assert!(reply.starts_with("+OK"), "{what}: {reply}");
    assert_eq!(rig.inbox("alice"), unmarked, "{what}: the second session");
}

/// Places that every flow has: the mailbox looked at before and after.
fn around() -> Vec<Spot> {
    vec![
        nth(2, before_sent("SELECT INBOX")),
        // The first one has more words.
        after_sent("SELECT INBOX\r\n"),
        nth(2, before_answer("[UIDVALIDITY")),
        nth(2, after_answer("Select completed")),
        before_sent("(UID)\r\n"),
        after_sent("(UID)\r\n"),
        nth(2, before_answer("OK Fetch completed")),
        nth(2, after_answer("OK Fetch completed")),
    ]
}

/// Around what Dovecot says of the messages that are gone. The first time that it
/// says so is at the login, of those of the session before.
fn vanishing() -> Vec<Spot> {
    vec![
        nth(2, before_answer("* VANISHED ")),
        nth(2, after_answer("* VANISHED ")),
    ]
}

/// The same where it has no QRESYNC.
fn going() -> Vec<Spot> {
    vec![
        before_answer("EXPUNGE\r\n"),
        nth(2, after_answer("EXPUNGE\r\n")),
    ]
}

fn storing() -> Vec<Spot> {
    vec![
        before_sent("UID STORE"),
        after_sent("+FLAGS.SILENT (\\Deleted)\r\n"),
        before_answer("OK Store completed"),
        after_answer("OK Store completed"),
        before_sent("UID EXPUNGE"),
        after_sent("UID EXPUNGE"),
        before_answer("Expunge completed"),
        after_answer("Expunge completed"),
    ]
}

#[test]
fn moving_to_the_trash() {
    let places = [
        before_sent("UID MOVE"),
        after_sent("UID MOVE"),
        after_sent("\"Trash\"\r\n"),
        before_answer("[COPYUID"),
        before_answer("Move completed"),
        after_answer("Move completed"),
    ];
    let places = [around(), vanishing(), places.to_vec()].concat();
    every_reply_agrees(Rig::start(&["--delete", "trash"]), &places, true);
}

#[test]
fn expunging() {
    let places = [around(), vanishing(), storing()].concat();
    every_reply_agrees(Rig::start(&["--delete", "expunge"]), &places, false);
}

#[test]
fn copying_to_the_trash_where_there_is_no_move() {
    let copying = vec![
        before_sent("UID COPY"),
        after_sent("UID COPY"),
        after_sent("\"Trash\"\r\n"),
        before_answer("[COPYUID"),
        after_answer("[COPYUID"),
        after_answer("Copy completed"),
    ];
    let places = [copying, going(), storing()].concat();
    let capability = "IMAP4rev1 SASL-IR LITERAL+ UIDPLUS ESEARCH SPECIAL-USE";
    let rig = Rig::with(&["--delete", "trash"], &[("CAPABILITY", capability)]);
    every_reply_agrees(rig, &places, true);
}

/// The connection breaks at a place, and no other can be made.
fn an_upstream_that_stays_away(arguments: &[&str], places: &[Spot], to_trash: bool) {
    let Some(rig) = Rig::start(arguments) else {
        return;
    };
    for (place, action) in places
        .iter()
        .flat_map(|place| [(place, Action::Cut), (place, Action::Reset)])
    {
        let what = format!("{place:?}, {action:?}");
        let before = deliver(&rig);
        rig.arm(vec![fault(place, action)]);
        rig.later(vec![Fault::At(
            crate::support::Direction::ToClient,
            crate::support::Place::Behind(0),
            Action::Reset,
        )]);
        let reply = delete(&rig);
        rig.disarm();
        let after = rig.inbox("alice");
        // Not known to be gone counts as not removed.
        if reply.starts_with("+OK") {
            assert_agrees(&reply, &before, &after, &what);
        } else {
            let expected = format!("-ERR [SYS/TEMP] {} messages not removed", MARKED.len());
            assert_eq!(reply, expected, "{what}");
        }
        let uids = |stored: &[Stored]| -> Vec<u32> { stored.iter().map(|it| it.uid).collect() };
        for stored in unmarked(&before) {
            assert!(after.contains(&stored), "{what}: {:?}", uids(&after));
        }
        if to_trash {
            assert_in_trash(&rig, &before, &after, &what);
        }
        // What was told to be there is there, and no longer marked.
        let client = rig.login("alice");
        assert!(client.quit().starts_with("+OK"));
        let now = rig.inbox("alice");
        assert_eq!(uids(&now), uids(&after), "{what}");
        for stored in &now {
            assert!(before.contains(stored), "{what}: changed: {stored:?}");
        }
        converges(&rig, &before, &what);
    }
}

#[test]
fn moving_when_the_upstream_stays_away() {
    let places = [
        nth(2, before_sent("SELECT INBOX")),
        before_sent("UID MOVE"),
        after_sent("\"Trash\"\r\n"),
        nth(2, before_answer("* VANISHED ")),
        after_answer("Move completed"),
        after_sent("(UID)\r\n"),
    ];
    an_upstream_that_stays_away(&["--delete", "trash"], &places, true);
}

#[test]
fn expunging_when_the_upstream_stays_away() {
    an_upstream_that_stays_away(&["--delete", "expunge"], &storing(), false);
}
