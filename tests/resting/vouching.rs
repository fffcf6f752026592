//! Maildrops that open without asking, because the connection has told of no
//! change.

use std::sync::atomic::{AtomicBool, Ordering};

use support::Answer;

use super::*;

/// Between two logins of a client that polls: longer than who vouches must have
/// idled.
const GAP: Duration = Duration::from_millis(700);

/// A program that polls at regular intervals.
struct Poller<'a> {
    site: &'a Site,
    next: tokio::time::Instant,
}

impl<'a> Poller<'a> {
    fn new(site: &'a Site) -> Self {
        let next = tokio::time::Instant::now();
        Self { site, next }
    }

    /// Its next login, when it is time.
    async fn open(&mut self) -> (Session, Maildrop) {
        tokio::time::sleep_until(self.next).await;
        self.next += GAP;
        self.site.open().await
    }

    async fn poll(&mut self) -> Vec<String> {
        let (mut session, maildrop) = self.open().await;
        session.close().await;
        ids(&maildrop)
    }

    /// Shortly before its next login.
    async fn just_before(&self) {
        tokio::time::sleep_until(self.next - GAP / 10).await;
    }

    /// The first of its sessions that is opened without asking. How regularly a
    /// client comes depends on how busy this machine is.
    async fn vouched(&mut self) -> (Session, Maildrop) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.site.opened(Opening::Vouched);
            let (mut session, maildrop) = self.open().await;
            if self.site.opened(Opening::Vouched) > before {
                return (session, maildrop);
            }
            session.close().await;
            assert!(Instant::now() < deadline, "nothing is vouched for");
            let now = tokio::time::Instant::now();
            self.next = self.next.max(now);
        }
    }

    /// The same, and the end of it: a poll.
    async fn vouched_poll(&mut self) -> Vec<String> {
        let (mut session, maildrop) = self.vouched().await;
        session.close().await;
        ids(&maildrop)
    }
}

fn server(count: usize) -> ScriptedImap {
    builder(count).announcing("IDLE").start()
}

#[tokio::test]
async fn a_poll_that_finds_nothing_new_sends_nothing() {
    let server = server(3);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let first = poller.poll().await;
    let deadline = Instant::now() + PATIENCE;
    let mut silent = 0;
    while silent < 3 {
        assert!(Instant::now() < deadline, "{silent} polls sent nothing");
        poller.just_before().await;
        let (before, vouched) = (server.commands(), site.opened(Opening::Vouched));
        assert_eq!(poller.poll().await, first);
        if site.opened(Opening::Vouched) > vouched {
            assert_eq!(server.commands(), before);
            silent += 1;
        }
    }
    assert_eq!(site.within(0), site.opened(Opening::Vouched));
    assert_eq!((site.resting(), server.connections()), (1, 1));
}

#[tokio::test]
async fn messages_are_read_and_removed_all_the_same() {
    let server = server(3);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let (mut session, maildrop) = poller.vouched().await;
    let first = ids(&maildrop);
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
    // What the session itself has changed is asked for.
    let vouched = site.opened(Opening::Vouched);
    assert_eq!(poller.poll().await, first[1..]);
    assert_eq!(site.opened(Opening::Vouched), vouched);
    assert_eq!(poller.vouched_poll().await, first[1..]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn reading_leaves_it_vouched_for() {
    let server = server(2);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (mut session, _) = poller.vouched().await;
        read(&mut session, 0).await.unwrap();
        session.close().await;
        let vouched = site.opened(Opening::Vouched);
        poller.poll().await;
        if site.opened(Opening::Vouched) > vouched {
            break;
        }
        assert!(Instant::now() < deadline, "what was read is asked about");
    }
}

#[tokio::test]
async fn a_login_out_of_turn_asks() {
    let server = server(1);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    poller.vouched_poll().await;
    let vouched = site.opened(Opening::Vouched);
    tokio::time::sleep(2 * GAP).await;
    site.poll().await;
    assert_eq!(site.opened(Opening::Vouched), vouched);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_the_server_has_told_is_seen() {
    let server = server(3);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let first = poller.vouched_poll().await;
    server.world().inbox().append(messages::plain(4, 300));
    let grown = poller.poll().await;
    assert_eq!((grown.len(), &grown[..3]), (4, &first[..]));
    assert_eq!(poller.vouched_poll().await, grown);
    server.world().inbox().remove(1);
    assert_eq!(poller.poll().await, grown[1..]);
}

#[tokio::test]
async fn what_may_change_the_listing_is_asked_about() {
    let server = server(3);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
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
        let first = poller.vouched_poll().await;
        poller.just_before().await;
        server.interject(said.as_bytes());
        let vouched = site.opened(Opening::Vouched);
        assert_eq!(poller.poll().await, first, "{said}");
        assert_eq!(site.opened(Opening::Vouched), vouched, "{said}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_changes_nothing_is_passed_over() {
    let server = server(3);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    for said in [
        "* OK Still here\r\n",
        "* OK [ALERT] good morning\r\n",
        "* 3 EXISTS\r\n",
        "* 0 RECENT\r\n",
        "* 2 FETCH (FLAGS (\\Seen))\r\n",
    ] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let first = poller.vouched_poll().await;
            poller.just_before().await;
            server.interject(said.as_bytes());
            let vouched = site.opened(Opening::Vouched);
            assert_eq!(poller.poll().await, first, "{said}");
            if site.opened(Opening::Vouched) > vouched {
                break;
            }
            assert!(Instant::now() < deadline, "{said} is asked about");
        }
    }
}

#[tokio::test]
async fn a_mark_that_is_taken_away_shows_a_message() {
    let server = builder(3)
        .announcing("IDLE")
        .world(|world| {
            let message = world.inbox().message(2).unwrap();
            message.set_flag("\\Deleted", true);
        })
        .start();
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    assert_eq!(poller.vouched_poll().await.len(), 2);
    {
        let mut world = server.world();
        let message = world.inbox().message(2).unwrap();
        message.set_flag("\\Deleted", false);
    }
    server.interject(b"* 2 FETCH (FLAGS (\\Seen))\r\n");
    assert_eq!(poller.poll().await.len(), 3);
}

#[tokio::test]
async fn a_mark_that_was_taken_away_at_the_opening_hides_nothing() {
    // An update marks a message, and can neither remove nor unmark it.
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let server = builder(3)
        .announcing("IDLE")
        .on("UID", move |command, _| {
            let line = command.name_and_arguments();
            let is_refused = line.starts_with("UID EXPUNGE") || line.contains("-FLAGS");
            match is_refused && failing.load(Ordering::SeqCst) {
                true => Answer::send(command.no("not now")),
                false => Answer::Usual,
            }
        })
        .start();
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let (mut session, maildrop) = poller.vouched().await;
    let outcome = session.update(&Update::new(vec![0])).await.unwrap();
    assert_eq!(outcome.remaining, [0]);
    session.close().await;
    fails.store(false, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(poller.poll().await, ids(&maildrop));
    }
    assert_eq!(server.commands_starting("UID STORE 1 -FLAGS").len(), 2);
}

#[tokio::test]
async fn what_was_listed_in_front_of_a_removal_is_asked_about() {
    // Nothing is announced: it is known here only.
    let server = builder(3)
        .announcing("IDLE")
        .telling_at_login()
        .tells_nothing()
        .start();
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let (mut first, maildrop) = poller.vouched().await;
    let before = server.commands_starting("UID SEARCH").len();
    tokio::time::sleep_until(poller.next).await;
    poller.next += GAP;
    let login = site.try_login(password("alice"), &site.policy, CLIENT);
    let mut second = login.await.unwrap();
    eventually(|| server.commands_starting("UID SEARCH").len() > before).await;
    remove(&mut first, &[0]).await;
    first.close().await;
    // What was sent behind its login is from before: it asks anew.
    assert_eq!(second.snapshot().await.unwrap().len(), 2);
    second.close().await;
    assert_eq!(poller.poll().await, ids(&maildrop)[1..]);
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
    let mut poller = Poller::new(&site);
    let (mut session, maildrop) = poller.vouched().await;
    assert_eq!(maildrop.len(), 2);
    read(&mut session, 0).await.unwrap();
    session.close().await;
    assert_eq!(poller.poll().await.len(), 3);
}

#[tokio::test]
async fn what_came_while_it_was_listed_counts() {
    let comes = Arc::new(AtomicBool::new(false));
    let coming = Arc::clone(&comes);
    let server = builder(2)
        .announcing("IDLE")
        .on("UID SEARCH", move |_, world| {
            match coming.swap(false, Ordering::SeqCst) {
                true => {
                    let count = world.inbox().messages.len() + 1;
                    world.inbox().append(messages::plain(count, 300));
                    Answer::SendThenUsual(format!("* {count} EXISTS\r\n").into_bytes())
                }
                false => Answer::Usual,
            }
        })
        .start();
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    assert_eq!(poller.vouched_poll().await.len(), 2);
    server.interject(b"* NO look again\r\n");
    comes.store(true, Ordering::SeqCst);
    assert_eq!(poller.poll().await.len(), 2);
    assert_eq!(poller.poll().await.len(), 3);
}

#[tokio::test]
async fn who_has_not_idled_long_enough_asks() {
    let server = server(2);
    let site = Site::new(&server);
    for _ in 0..6 {
        let idles = server.commands_starting("IDLE").len();
        site.poll().await;
        eventually(|| server.commands_starting("IDLE").len() > idles).await;
        // Its `+` is heard.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.opened(Opening::Vouched), 0);
    // In one flight each, with DONE in front of it.
    assert_eq!(server.commands_starting("DONE").len(), 5);
    assert_eq!((site.within(0), site.within(1)), (0, 5));
}

#[tokio::test]
async fn several_folders_are_asked_for() {
    let server = server(2);
    let mut site = Site::new(&server);
    site.policy = Arc::new(Policy {
        folders: vec!["INBOX".parse().unwrap(), "Trash".parse().unwrap()],
        ..Policy::default()
    });
    let mut poller = Poller::new(&site);
    for _ in 0..5 {
        poller.poll().await;
    }
    assert_eq!(site.opened(Opening::Vouched), 0);
    assert_eq!(server.connections(), 1);
}

/// A server whose first connection hangs at this command, once that is armed.
fn hanging(command: &'static str) -> (ScriptedImap, Arc<AtomicBool>) {
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let server = builder(3)
        .announcing("IDLE")
        .on(command, move |given, _| {
            match given.connection == 0 && is_armed.load(Ordering::SeqCst) {
                true => Answer::Hang(Vec::new()),
                false => Answer::Usual,
            }
        })
        .start();
    (server, armed)
}

#[tokio::test]
async fn one_that_is_dead_when_a_message_is_read_is_replaced() {
    let (server, armed) = hanging("UID FETCH");
    let site = Site::new(&server);
    let (mut session, _) = Poller::new(&site).vouched().await;
    armed.store(true, Ordering::SeqCst);
    assert_eq!(
        read(&mut session, 1).await.unwrap(),
        messages::plain(2, 300)
    );
    session.close().await;
    assert_eq!(logins(&server), 2);
}

#[tokio::test]
async fn one_that_is_dead_when_messages_are_removed_is_replaced() {
    let (server, armed) = hanging("SELECT");
    let site = Site::new(&server);
    let (mut session, maildrop) = Poller::new(&site).vouched().await;
    armed.store(true, Ordering::SeqCst);
    remove(&mut session, &[1]).await;
    session.close().await;
    assert_eq!(server.uids("INBOX"), [1, 3]);
    assert_eq!(logins(&server), 2);
    let first = ids(&maildrop);
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
        tokio::time::sleep(GAP).await;
    }
    assert_eq!(site.opened(Opening::Vouched), 0);
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn a_large_mailbox_is_vouched_for_too() {
    let server = server(5_000);
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let first = poller.poll().await;
    assert_eq!(first.len(), 5_000);
    assert_eq!(poller.vouched_poll().await, first);
}

#[tokio::test]
async fn what_another_session_removed_meanwhile_is_not_vouched_for() {
    // Its server tells of nothing: what other sessions did is known from them alone.
    let server = builder(3).announcing("IDLE").tells_nothing().start();
    let site = Site::new(&server);
    let mut poller = Poller::new(&site);
    let (mut one, maildrop) = poller.vouched().await;
    let first = ids(&maildrop);
    poller.poll().await;
    let vouched = site.opened(Opening::Vouched);
    // It begins before, and is opened behind the update: it waited for the lock.
    tokio::time::sleep_until(poller.next).await;
    let waiting = site.try_login(password("alice"), &site.policy, CLIENT);
    let mut waiting = waiting.await.unwrap();
    remove(&mut one, &[1]).await;
    one.close().await;
    let maildrop = in_time(waiting.snapshot()).await.unwrap();
    assert_eq!(ids(&maildrop), [first[0].as_str(), first[2].as_str()]);
    assert_eq!(site.opened(Opening::Vouched), vouched);
}
