//! Maildrops that open without asking, because the connection has told of no
//! change.

use support::Answer;

use super::*;

/// Longer than a server may take to announce what has changed.
const SETTLED: Duration = Duration::from_millis(600);

fn server(count: usize) -> ScriptedImap {
    builder(count).announcing("IDLE").start()
}

/// Waits until a connection at rest may vouch.
async fn settle(server: &ScriptedImap, idles: usize) {
    eventually(|| server.commands_starting("IDLE").len() == idles).await;
    tokio::time::sleep(SETTLED).await;
}

#[tokio::test]
async fn a_poll_that_finds_nothing_new_sends_nothing() {
    let server = server(3);
    let site = Site::new(&server);
    let first = site.poll().await;
    settle(&server, 1).await;
    let before = server.commands();
    for _ in 0..10 {
        assert_eq!(site.poll().await, first);
    }
    assert_eq!(server.commands(), before);
    assert_eq!(site.opened(Opening::Vouched), 10);
    assert_eq!(site.within(0), 10);
    assert_eq!(site.resting(), 1);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn messages_are_read_and_removed_all_the_same() {
    let server = server(3);
    let site = Site::new(&server);
    let first = site.poll().await;
    settle(&server, 1).await;
    let (mut session, _) = site.open().await;
    assert_eq!(site.opened(Opening::Vouched), 1);
    let before = server.commands().len();
    assert_eq!(
        read(&mut session, 2).await.unwrap(),
        messages::plain(3, 300)
    );
    let then: Vec<String> = server.commands()[before..]
        .iter()
        .map(|(_, line)| line.clone())
        .collect();
    assert_eq!(then[0], "DONE", "{then:?}");
    assert!(then[1].starts_with("UID FETCH 3 "), "{then:?}");
    remove(&mut session, &[0]).await;
    session.close().await;
    assert_eq!(server.uids("INBOX"), [2, 3]);
    settle(&server, 2).await;
    // What the session itself has changed is asked for.
    assert_eq!(site.poll().await, first[1..]);
    assert_eq!(site.opened(Opening::Vouched), 1);
    settle(&server, 3).await;
    assert_eq!(site.poll().await, first[1..]);
    assert_eq!(site.opened(Opening::Vouched), 2);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn reading_leaves_it_vouched_for() {
    let server = server(2);
    let site = Site::new(&server);
    site.poll().await;
    settle(&server, 1).await;
    for round in 1..=2 {
        let (mut session, _) = site.open().await;
        read(&mut session, 0).await.unwrap();
        session.close().await;
        assert_eq!(site.opened(Opening::Vouched), round);
        settle(&server, 1 + usize::try_from(round).unwrap()).await;
    }
}

#[tokio::test]
async fn what_the_server_has_told_is_seen() {
    let server = server(3);
    let site = Site::new(&server);
    let first = site.poll().await;
    settle(&server, 1).await;
    server.world().inbox().append(messages::plain(4, 300));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let grown = site.poll().await;
    assert_eq!((grown.len(), &grown[..3]), (4, &first[..]));
    settle(&server, 2).await;
    server.world().inbox().remove(1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(site.poll().await, grown[1..]);
    assert_eq!(site.opened(Opening::Vouched), 0);
}

#[tokio::test]
async fn what_may_change_the_listing_is_asked_about() {
    for said in [
        "* 4 EXISTS\r\n",
        "* 1 EXPUNGE\r\n",
        "* 1 EXPUNGED\r\n",
        "* VANISHED 2\r\n",
        "* 1 FETCH (FLAGS (\\Deleted))\r\n",
        "* 1 FETCH (UID 1 FLAGS (\\Seen $POP3Deleted))\r\n",
        "* FLAGS (\\Deleted $pop3deleted)\r\n",
        "* OK [UIDVALIDITY 9] changed\r\n",
        "* OK [PERMANENTFLAGS ($POP3Deleted)] limited\r\n",
        "* OK [NOTIFICATIONOVERFLOW] too much\r\n",
        "* NO something is wrong\r\n",
        "* BAD something is wrong\r\n",
    ] {
        let server = server(3);
        let site = Site::new(&server);
        let first = site.poll().await;
        settle(&server, 1).await;
        server.interject(said.as_bytes());
        assert_eq!(site.poll().await, first, "{said}");
        assert_eq!(site.opened(Opening::Vouched), 0, "{said}");
        assert_eq!(server.connections(), 1, "{said}");
    }
    for said in [
        "* OK Still here\r\n",
        "* OK [ALERT] good morning\r\n",
        "* 3 EXISTS\r\n",
        "* 0 RECENT\r\n",
        "* 2 FETCH (FLAGS (\\Seen))\r\n",
    ] {
        let server = server(3);
        let site = Site::new(&server);
        let first = site.poll().await;
        settle(&server, 1).await;
        server.interject(said.as_bytes());
        assert_eq!(site.poll().await, first, "{said}");
        assert_eq!(site.opened(Opening::Vouched), 1, "{said}");
    }
}

#[tokio::test]
async fn a_mark_that_is_taken_away_shows_a_message() {
    let server = builder(3)
        .announcing("IDLE")
        .world(|world| {
            world
                .inbox()
                .message(2)
                .unwrap()
                .set_flag("\\Deleted", true)
        })
        .start();
    let site = Site::new(&server);
    assert_eq!(site.poll().await.len(), 2);
    settle(&server, 1).await;
    assert_eq!(site.poll().await.len(), 2);
    assert_eq!(site.opened(Opening::Vouched), 1);
    let mut world = server.world();
    world
        .inbox()
        .message(2)
        .unwrap()
        .set_flag("\\Deleted", false);
    drop(world);
    server.interject(b"* 2 FETCH (FLAGS (\\Seen))\r\n");
    assert_eq!(site.poll().await.len(), 3);
    assert_eq!(site.opened(Opening::Vouched), 1);
}

#[tokio::test]
async fn what_was_told_during_the_session_counts() {
    // New mail, told beside a message's text.
    let server = builder(2)
        .announcing("IDLE")
        .on("UID FETCH 1 ", |_, world| {
            world.inbox().append(messages::plain(3, 300));
            Answer::SendThenUsual(b"* 3 EXISTS\r\n".to_vec())
        })
        .start();
    let site = Site::new(&server);
    let (mut session, maildrop) = site.open().await;
    assert_eq!(maildrop.len(), 2);
    read(&mut session, 0).await.unwrap();
    session.close().await;
    settle(&server, 1).await;
    assert_eq!(site.poll().await.len(), 3);
    assert_eq!(site.opened(Opening::Vouched), 0);
}

#[tokio::test]
async fn what_came_while_it_was_listed_counts() {
    let server = builder(2)
        .announcing("IDLE")
        .on("UID SEARCH", |command, world| match command.nth {
            0 => {
                world.inbox().append(messages::plain(3, 300));
                Answer::SendThenUsual(b"* 3 EXISTS\r\n".to_vec())
            }
            _ => Answer::Usual,
        })
        .start();
    let site = Site::new(&server);
    assert_eq!(site.poll().await.len(), 2);
    settle(&server, 1).await;
    assert_eq!(site.poll().await.len(), 3);
    assert_eq!(site.opened(Opening::Vouched), 0);
}

#[tokio::test]
async fn who_has_not_idled_long_enough_asks() {
    let server = server(2);
    let site = Site::new(&server);
    site.poll().await;
    eventually(|| server.commands_starting("IDLE").len() == 1).await;
    site.poll().await;
    assert_eq!(site.opened(Opening::Vouched), 0);
    assert_eq!(server.commands_starting("DONE").len(), 1);
    // In one flight, with DONE in front of it.
    assert_eq!((site.within(0), site.within(1)), (0, 1));
}

#[tokio::test]
async fn several_folders_are_asked_for() {
    let server = server(2);
    let mut site = Site::new(&server);
    site.policy = Arc::new(Policy {
        folders: vec!["INBOX".parse().unwrap(), "Trash".parse().unwrap()],
        ..Policy::default()
    });
    site.poll().await;
    settle(&server, 1).await;
    site.poll().await;
    assert_eq!(site.opened(Opening::Vouched), 0);
    assert_eq!(server.connections(), 1);
}

/// A server that hangs at this command on its first connection, behind IDLE.
fn hanging(command: &'static str) -> ScriptedImap {
    let has_idled = std::sync::atomic::AtomicBool::new(false);
    builder(3)
        .announcing("IDLE")
        .on("", move |given, _| {
            use std::sync::atomic::Ordering::SeqCst;
            if given.name == "IDLE" {
                has_idled.store(true, SeqCst);
            }
            let is_it = given.name == command && given.connection == 0;
            match is_it && has_idled.load(SeqCst) {
                true => Answer::Hang(Vec::new()),
                false => Answer::Usual,
            }
        })
        .start()
}

#[tokio::test]
async fn one_that_is_dead_when_it_is_needed_is_replaced() {
    let server = hanging("UID FETCH");
    let site = Site::new(&server);
    site.poll().await;
    settle(&server, 1).await;
    let (mut session, _) = site.open().await;
    assert_eq!(site.opened(Opening::Vouched), 1);
    assert_eq!(
        read(&mut session, 1).await.unwrap(),
        messages::plain(2, 300)
    );
    session.close().await;
    assert_eq!(logins(&server), 2);

    let server = hanging("SELECT");
    let site = Site::new(&server);
    let first = site.poll().await;
    settle(&server, 1).await;
    let (mut session, _) = site.open().await;
    assert_eq!(site.opened(Opening::Vouched), 1);
    remove(&mut session, &[1]).await;
    session.close().await;
    assert_eq!(server.uids("INBOX"), [1, 3]);
    assert_eq!(logins(&server), 2);
    assert_eq!(site.poll().await, [first[0].as_str(), first[2].as_str()]);
}

#[tokio::test]
async fn a_server_that_has_ended_idle_by_itself_is_not_told_done() {
    let server = builder(1)
        .announcing("IDLE")
        .on("IDLE", |command, _| {
            Answer::send(format!("+ idling\r\n{}", command.ok("that was it")))
        })
        .on("DONE", |_, _| panic!("DONE without IDLE"))
        .start();
    let site = Site::new(&server);
    for _ in 0..2 {
        site.poll().await;
        settle(&server, server.commands_starting("IDLE").len().max(1)).await;
    }
    assert_eq!(site.opened(Opening::Vouched), 0);
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn a_large_mailbox_is_vouched_for_too() {
    let server = server(5_000);
    let site = Site::new(&server);
    let first = site.poll().await;
    settle(&server, 1).await;
    assert_eq!(site.poll().await, first);
    assert_eq!(site.opened(Opening::Vouched), 1);
}

/// A server that tells of nothing: what other sessions did is known from them
/// alone.
fn silent(count: usize) -> ScriptedImap {
    builder(count).announcing("IDLE").tells_nothing().start()
}

#[tokio::test]
async fn what_another_session_removed_meanwhile_is_not_vouched_for() {
    let server = silent(3);
    let site = Site::new(&server);
    let (mut one, _) = site.open().await;
    let (mut other, first) = site.open().await;
    let first = ids(&first);
    other.close().await;
    settle(&server, 1).await;
    // It begins before, and is opened behind the update: it waited for the lock.
    let waiting = site.try_login(password("alice"), &site.policy, CLIENT);
    let mut waiting = waiting.await.unwrap();
    remove(&mut one, &[1]).await;
    one.close().await;
    let maildrop = in_time(waiting.snapshot()).await.unwrap();
    assert_eq!(ids(&maildrop), [first[0].as_str(), first[2].as_str()]);
    assert_eq!(site.opened(Opening::Vouched), 0);
}
