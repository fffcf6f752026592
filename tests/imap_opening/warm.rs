//! A folder that is known is brought up to date, in one round trip where nothing
//! or only something new is there. Whatever is known, the maildrop is that of the
//! server.

use popgate::maildrop::{Update, Window};

use super::*;
use support::TempStore;
use support::scripted_imap::in_set;
use support::servers::{Courier, Cyrus, Dovecot, MailServer};

const REFRESHED: &str = "popgate_openings_total{how=\"refreshed\"}";
const LISTED: &str = "popgate_openings_total{how=\"listed\"}";

/// A server whose INBOX is known: it was opened once.
async fn known(builder: Builder) -> (ScriptedImap, Rig) {
    let server = builder.telling_at_login().start();
    let rig = Rig::new(&server);
    rig.open(&trash()).await;
    assert_eq!(rig.counted(LISTED), 1);
    (server, rig)
}

/// The sizes of what the server holds.
fn held(server: &ScriptedImap) -> Vec<u64> {
    let mut world = server.world();
    let sizes = world.inbox().messages.iter().map(|message| message.size());
    sizes.collect()
}

fn remove(server: &ScriptedImap, uids: &[u32]) {
    let mut world = server.world();
    for uid in uids {
        world.inbox().remove(*uid).unwrap();
    }
}

fn append(server: &ScriptedImap, octets: usize) {
    server.world().inbox().append(messages::plain(77, octets));
}

/// Opens it again: the maildrop is what the server holds, after so many round
/// trips, and by all being listed or not.
async fn again(server: &ScriptedImap, rig: &Rig, round_trips: u64, series: &str) {
    let before = rig.counted(series);
    let trips = rig.counted("popgate_upstream_round_trips_sum");
    assert_eq!(rig.open(&trash()).await, held(server));
    assert_eq!(rig.counted(series) - before, 1, "{series}");
    let trips = rig.counted("popgate_upstream_round_trips_sum") - trips;
    assert_eq!(trips, round_trips);
}

#[tokio::test]
async fn what_is_known_is_not_listed_again() {
    let (server, rig) = known(builder(30)).await;
    again(&server, &rig, 1, REFRESHED).await;
    append(&server, 10);
    append(&server, 2000);
    again(&server, &rig, 1, REFRESHED).await;
    again(&server, &rig, 1, REFRESHED).await;
    assert_eq!(server.commands_starting("UID FETCH 1:*").len(), 1);
    let fetched = server.commands_starting("UID FETCH");
    let news: Vec<&String> = fetched.iter().filter(|it| it.contains("30:* (")).collect();
    // Once for nothing, once for two.
    assert_eq!(news.len(), 2, "{fetched:?}");
    assert!(fetched[3].contains("32:* ("), "{fetched:?}");
    // And proofs of what is known in front.
    assert!(news.iter().all(|it| it.contains(',')), "{fetched:?}");
}

#[tokio::test]
async fn what_others_removed_is_found_out() {
    for gone in [&[1][..], &[30], &[15], &[1, 2, 3, 29, 30], &[7, 9, 11, 30]] {
        for arrive in [0, 1, 5, 8] {
            let (server, rig) = known(builder(30)).await;
            remove(&server, gone);
            for octets in 0..arrive {
                append(&server, 10 * octets);
            }
            again(&server, &rig, 2, REFRESHED).await;
            again(&server, &rig, 1, REFRESHED).await;
            assert_eq!(server.commands_starting("UID FETCH 1:*").len(), 1);
        }
    }
}

#[tokio::test]
async fn the_same_without_esearch() {
    let (server, rig) = known(builder(30).without(&["ESEARCH"])).await;
    remove(&server, &[3, 4, 20]);
    append(&server, 10);
    again(&server, &rig, 2, REFRESHED).await;
    again(&server, &rig, 1, REFRESHED).await;
}

#[tokio::test]
async fn what_a_session_removed_is_no_longer_known() {
    let (server, rig) = known(builder(5)).await;
    let mut session = rig.login(&trash()).await.unwrap();
    session.folders().await.unwrap();
    session.snapshot().await.unwrap();
    let outcome = session.update(&Update::new(vec![0, 2, 4])).await.unwrap();
    assert_eq!(outcome.removed, [0, 2, 4]);
    session.close().await;
    assert_eq!(server.uids("INBOX"), [2, 4]);
    again(&server, &rig, 1, REFRESHED).await;
}

/// Opens a mailbox of many messages twice, which have these GUIDs at first, and
/// those later. The unique ids each time; `None`: it was refused.
async fn guids(
    first: impl Fn(u32) -> String + Send + Sync + 'static,
    later: impl Fn(u32) -> String + Send + Sync + 'static,
) -> Vec<Option<Vec<String>>> {
    let server = builder(MANY as usize)
        .on("UID FETCH", move |command, _| {
            let line = command.name_and_arguments();
            let set = line.split(' ').nth(2).unwrap();
            let mut text = String::new();
            for number in (1..=MANY).filter(|it| in_set(set, *it, MANY)) {
                let guid = match command.connection {
                    0 => first(number),
                    _ => later(number),
                };
                let guid = match guid.as_str() {
                    "" => guid,
                    guid => format!(" X-GUID {guid}"),
                };
                let row = format!("* {number} FETCH (UID {number} RFC822.SIZE 77{guid})\r\n");
                text.push_str(&row);
            }
            Answer::send(text + &command.ok("done"))
        })
        .start();
    let rig = Rig::new(&server);
    let policy = Policy {
        unique_ids: Some("%g".parse().unwrap()),
        ..trash()
    };
    let mut opened = Vec::new();
    for _ in 0..2 {
        let maildrop = rig.try_open(&policy).await.ok();
        opened.push(maildrop.map(|it| it.iter().map(|one| one.unique_id.to_string()).collect()));
    }
    opened
}

const MANY: u32 = 100;

fn guid(number: u32) -> String {
    format!("guid-{number}")
}

#[tokio::test]
async fn what_was_not_told_once_is_asked_for_again() {
    let all_but_some = |number| match number {
        40..60 => String::new(),
        number => guid(number),
    };
    let all = (1..=MANY).map(guid).collect();
    assert_eq!(guids(all_but_some, guid).await, [None, Some(all)]);
}

#[tokio::test]
async fn what_is_told_otherwise_is_listed_again() {
    let other = |number| format!("other-{number}");
    let of = |guid: fn(u32) -> String| Some((1..=MANY).map(guid).collect());
    assert_eq!(guids(guid, other).await, [of(guid), of(other)]);
}

#[tokio::test]
async fn all_are_gone_and_some_come() {
    let (server, rig) = known(builder(3)).await;
    remove(&server, &[1, 2, 3]);
    again(&server, &rig, 1, LISTED).await;
    append(&server, 5);
    again(&server, &rig, 1, LISTED).await;
    again(&server, &rig, 1, REFRESHED).await;
    remove(&server, &[4]);
    append(&server, 50);
    again(&server, &rig, 2, REFRESHED).await;
}

#[tokio::test]
async fn what_is_known_is_of_another_mailbox() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 8] = [
        ("UIDVALIDITY", |world| world.inbox().uid_validity += 1),
        ("UIDVALIDITY, and all else", |world| {
            let inbox = world.inbox();
            *inbox = support::scripted_imap::Mailbox::new("INBOX", None);
            inbox.uid_validity = 5;
            inbox.append(messages::plain(3, 30));
        }),
        ("the size of the last", |world| {
            world.inbox().message(30).unwrap().claimed_size = Some(1);
        }),
        ("all sizes", |world| {
            for message in &mut world.inbox().messages {
                message.claimed_size = Some(5);
            }
        }),
        ("UIDs that nobody knew, as many", |world| {
            for message in &mut world.inbox().messages {
                message.uid += 100;
            }
            world.inbox().uid_next += 100;
        }),
        ("one UID in between", |world| {
            let mut inbox = world.inbox().messages.clone();
            inbox.remove(3);
            for message in inbox.iter_mut().skip(5) {
                message.uid += 1;
            }
            world.inbox().messages = inbox;
            world.inbox().uid_next += 1;
        }),
        ("a UIDNEXT that falls", |world| {
            world.inbox().messages.truncate(10);
            world.inbox().uid_next = 11;
            world.inbox().append(messages::plain(99, 999));
        }),
        ("the last again, as another", |world| {
            world.inbox().messages.pop();
            world.inbox().uid_next = 30;
            world.inbox().append(messages::plain(99, 9999));
        }),
    ];
    for (what, change) in changes {
        eprintln!("{what}");
        let (server, rig) = known(builder(30)).await;
        change(&mut server.world());
        assert_eq!(rig.open(&trash()).await, held(&server), "{what}");
        again(&server, &rig, 1, REFRESHED).await;
    }
}

/// Warm, and this is said in front of the answer to the search.
async fn meanwhile(said: &'static str, expected: &[u64]) {
    let (server, rig) = known(builder(5).on("UID SEARCH", move |command, _| {
        match (command.connection, command.nth) {
            (1, 0) => Answer::SendThenUsual(said.into()),
            _ => Answer::Usual,
        }
    }))
    .await;
    let opened = rig.try_open(&trash()).await;
    match expected {
        [] => assert!(opened.is_err(), "{said}"),
        _ => {
            let opened = opened.unwrap();
            let sizes: Vec<u64> = opened.iter().map(|it| it.octets).collect();
            assert_eq!(sizes, expected, "{said}");
        }
    }
    assert_eq!(rig.open(&trash()).await.len(), held(&server).len());
}

#[tokio::test]
async fn a_mailbox_may_change_while_it_is_looked_at() {
    let [a, b, c, d, e] = sizes(5)[..] else {
        panic!();
    };
    for (said, expected) in [
        ("* 1 EXPUNGE\r\n", &[b, c, d, e][..]),
        ("* 5 EXPUNGE\r\n* 2 EXPUNGE\r\n", &[a, c, d]),
        ("* 6 EXISTS\r\n", &[a, b, c, d, e]),
        (
            "* 7 EXISTS\r\n* 6 EXPUNGE\r\n* 3 EXPUNGE\r\n",
            &[a, b, d, e],
        ),
        ("* VANISHED 1,4:5\r\n", &[b, c]),
        ("* VANISHED 3\r\n* 1 EXPUNGE\r\n", &[b, d, e]),
        ("* VANISHED (EARLIER) 1:5\r\n", &[a, b, c, d, e]),
        ("* 5 FETCH (FLAGS (\\Seen))\r\n", &[a, b, c, d, e]),
        ("* 5 FETCH (UID 5 FLAGS (\\Deleted))\r\n", &[a, b, c, d]),
        ("* OK [UIDVALIDITY 3] new\r\n", &[]),
    ] {
        meanwhile(said, expected).await;
    }
}

#[tokio::test]
async fn nonsense_costs_another_listing_and_no_more() {
    // What it says is wrong: the mailbox has five, as always.
    for said in [
        "* 6 EXPUNGE\r\n",
        "* 4 EXISTS\r\n",
        "* VANISHED 77\r\n",
        "* VANISHED 1:4294967295\r\n",
        "* 3 FETCH (UID 9 RFC822.SIZE 5)\r\n",
        "* 3 FETCH (UID 3 RFC822.SIZE 5)\r\n",
        "* 9 FETCH (UID 9 RFC822.SIZE 5)\r\n",
    ] {
        let (server, rig) = known(builder(5).on("UID SEARCH", move |command, _| {
            match (command.connection, command.nth) {
                (1, 0) => Answer::SendThenUsual(said.into()),
                _ => Answer::Usual,
            }
        }))
        .await;
        // Where a count is wrong that may show as an error; never as a wrong maildrop.
        if let Ok(opened) = rig.try_open(&trash()).await {
            let sizes: Vec<u64> = opened.iter().map(|it| it.octets).collect();
            assert_eq!(sizes, held(&server), "{said}");
        }
        assert_eq!(rig.open(&trash()).await, held(&server), "{said}");
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    type Misdeed = fn(&Command) -> Answer;
    let misdeeds: [Misdeed; 5] = [
        |command| Answer::send(command.ok("nothing new")),
        |command| Answer::send(command.bad("what?")),
        |command| Answer::send(command.no("not now")),
        |command| Answer::send(command.ok("[MESSAGELIMIT 1 2] a part")),
        |command| Answer::send(format!("* 30 FETCH (UID 30)\r\n{}", command.ok("no size"))),
    ];
    for misdeed in misdeeds {
        let (server, rig) = known(builder(30).on("UID FETCH", move |command, _| {
            match command.arguments.starts_with("1:* ") {
                true => Answer::Usual,
                false => misdeed(command),
            }
        }))
        .await;
        let before = rig.counted(LISTED);
        assert_eq!(rig.open(&trash()).await, held(&server));
        assert_eq!(rig.counted(LISTED) - before, 1);
    }
}

#[tokio::test]
async fn more_is_needed_than_is_known() {
    let (server, rig) = known(builder(3)).await;
    let recent = Policy {
        window: Window {
            max_age: Some(std::time::Duration::from_secs(60 * 365 * 86_400)),
            max_messages: None,
        },
        ..trash()
    };
    assert_eq!(rig.open(&recent).await.len(), 3);
    assert_eq!(rig.counted(LISTED), 2);
    // What is known now is enough for both.
    assert_eq!(rig.open(&recent).await.len(), 3);
    again(&server, &rig, 1, REFRESHED).await;
    assert_eq!(rig.counted(LISTED), 2);
}

#[tokio::test]
async fn the_store_knows_it_from_one_process_to_the_next() {
    let store = TempStore::new();
    let server = builder(9).telling_at_login().start();
    let rig = Rig::at(&server.plain_url(), Some(store.clone()));
    rig.open(&trash()).await;
    drop(rig);
    append(&server, 7);
    let rig = Rig::at(&server.plain_url(), Some(store.clone()));
    assert_eq!(rig.open(&trash()).await, held(&server));
    assert_eq!(rig.counted(REFRESHED), 1);
}

/// A server with QRESYNC: `since` is what SELECT tells with that parameter.
fn resyncing(since: impl Fn(&mut World) -> String + Send + Sync + 'static) -> Builder {
    builder(9)
        .announcing("CONDSTORE QRESYNC")
        .on("SELECT", move |command, world| {
            let modseq = "* OK [HIGHESTMODSEQ 40] x\r\n";
            match command.arguments.contains("(QRESYNC (1700000000 40))") {
                true => Answer::SendThenUsual((modseq.to_owned() + &since(world)).into()),
                false if command.arguments.contains("QRESYNC") => {
                    Answer::send(command.bad("from where?"))
                }
                false => Answer::SendThenUsual(modseq.into()),
            }
        })
}

#[tokio::test]
async fn what_has_vanished_is_told_in_time() {
    let (server, rig) = known(resyncing(|_| {
        "* VANISHED (EARLIER) 2,9,300:310\r\n* 1 FETCH (UID 1 FLAGS () MODSEQ (7))\r\n".to_owned()
    }))
    .await;
    remove(&server, &[2, 9]);
    append(&server, 5);
    again(&server, &rig, 1, REFRESHED).await;
    again(&server, &rig, 1, REFRESHED).await;
    assert_eq!(server.commands_starting("ENABLE QRESYNC").len(), 3);
}

#[tokio::test]
async fn what_is_told_to_have_vanished_is_counted() {
    // Too few, too many, others.
    for told in ["2", "2,3,9", "3:4", "1:4294967295"] {
        let said = format!("* VANISHED (EARLIER) {told}\r\n");
        let (server, rig) = known(resyncing(move |_| said.clone())).await;
        remove(&server, &[2, 9]);
        append(&server, 5);
        assert_eq!(rig.open(&trash()).await, held(&server), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_takes_no_qresync_after_all() {
    for refuse in [true, false] {
        let (server, rig) = known(
            resyncing(|_| String::new()).on("ENABLE", move |command, _| match refuse {
                true => Answer::send(command.bad("no")),
                false => Answer::Usual,
            }),
        )
        .await;
        again(&server, &rig, 1, REFRESHED).await;
    }
    let (server, rig) = known(builder(9).announcing("QRESYNC").on("SELECT", |command, _| {
        match command.arguments.contains("QRESYNC") {
            true => Answer::send(command.bad("no parameters")),
            false => Answer::SendThenUsual(b"* OK [HIGHESTMODSEQ 40] x\r\n".to_vec()),
        }
    }))
    .await;
    remove(&server, &[4]);
    assert_eq!(rig.open(&trash()).await, held(&server));
}

#[tokio::test]
async fn a_mod_sequence_that_falls() {
    let said = "* OK [HIGHESTMODSEQ 39] x\r\n".to_owned();
    let (server, rig) = known(resyncing(move |_| said.clone())).await;
    let before = rig.counted(LISTED);
    assert_eq!(rig.open(&trash()).await, held(&server));
    assert_eq!(rig.counted(LISTED) - before, 1);
}

/// What others do to a mailbox at a real server, drawn from a seed.
fn disturb(server: &MailServer, random: &mut u64, number: &mut usize) {
    let mut client = server.imap("alice");
    let mut draw = |below: u64| {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % below
    };
    for _ in 0..draw(4) {
        *number += 1;
        let octets = usize::try_from(draw(900)).unwrap();
        client.append("INBOX", &messages::plain(*number, octets));
    }
    let held = client.dump("INBOX");
    if held.is_empty() {
        return;
    }
    for _ in 0..draw(4) {
        let uid = held[usize::try_from(draw(held.len() as u64)).unwrap()].uid;
        client.ok("SELECT INBOX");
        match draw(3) {
            0 => client.add_flags("INBOX", &uid.to_string(), "\\Seen"),
            1 => client.add_flags("INBOX", &uid.to_string(), "\\Deleted"),
            _ => client.expunge("INBOX", &uid.to_string()),
        }
    }
}

#[tokio::test]
async fn a_known_folder_is_always_what_a_new_listing_shows() {
    let dovecot = Dovecot::start();
    let cyrus = Cyrus::start();
    let courier = Courier::start();
    // The login of Courier has to be waited for, and its capabilities asked.
    let all: [(Option<&MailServer>, u64); 3] = [
        (dovecot.as_deref(), 1),
        (cyrus.as_deref(), 1),
        (courier.as_deref(), 3),
    ];
    for (server, round_trips) in all {
        let Some(server) = server else { continue };
        let warm = Rig::at(&server.plain_url(), None);
        let (mut random, mut number) = (4711, 0);
        for _ in 0..12 {
            disturb(server, &mut random, &mut number);
            let mut session = warm.login(&trash()).await.unwrap();
            session.folders().await.unwrap();
            let seen = session.snapshot().await.unwrap();
            let cold = Rig::at(&server.plain_url(), None);
            let expected = cold.try_open(&trash()).await.unwrap();
            let ids = |maildrop: &Maildrop| -> Vec<(String, u64)> {
                let messages = maildrop.iter();
                messages
                    .map(|it| (it.unique_id.to_owned(), it.octets))
                    .collect()
            };
            assert_eq!(ids(&seen), ids(&expected));
            // Now and then it is this session that changes something.
            if number % 3 == 0 && !seen.is_empty() {
                let outcome = session.update(&Update::new(vec![0])).await.unwrap();
                assert_eq!(outcome.removed, [0]);
            }
            session.close().await;
        }
        warm.open(&trash()).await;
        assert_eq!(warm.round_trips(&trash()).await, round_trips);
        let refreshed = warm.counted(REFRESHED);
        assert!(refreshed >= 8, "{refreshed} of 12");
    }
}
