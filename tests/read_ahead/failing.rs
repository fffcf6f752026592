//! Connections that break, servers that do not bear many commands at once, and
//! messages that go away, with others on their way.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::Answer;

use super::*;

/// Three small messages, and what is sent for all of them.
fn three() -> (Vec<Vec<u8>>, usize) {
    let all = mails(3, 300);
    let texts: usize = all.iter().map(Vec::len).sum();
    // Framing and three tagged answers, at most.
    (all, texts + 3 * 80)
}

/// A server that breaks each even connection behind so many octets of answers
/// for text: `nth` says how many, `how` makes the answer.
fn breaking(
    all: &[Vec<u8>],
    how: impl Fn(Vec<u8>) -> Answer + Send + Sync + 'static,
) -> ScriptedImap {
    let left: Mutex<BTreeMap<usize, usize>> = Mutex::default();
    ScriptedImap::builder()
        .messages(all)
        .on("UID FETCH", move |command, world| {
            let Some(uid) = text_of(command) else {
                return Answer::Usual;
            };
            if command.connection % 2 == 1 {
                return Answer::Usual;
            }
            let mut left = left.lock().unwrap();
            let left = left
                .entry(command.connection)
                .or_insert(command.connection / 2);
            let mut answer = fetched(world, uid);
            answer.extend(command.ok("done").into_bytes());
            if answer.len() > *left {
                answer.truncate(*left);
                return how(answer);
            }
            *left -= answer.len();
            Answer::Send(answer)
        })
        .start()
}

fn broken_behind_each_octet(how: impl Fn(Vec<u8>) -> Answer + Send + Sync + 'static) {
    let (all, octets) = three();
    let server = breaking(&all, how);
    let rig = Rig::new(&server.plain_url());
    for behind in 0..octets {
        let before = server.connections();
        assert_eq!(before, 2 * behind);
        let mut session = rig.open();
        assert_retrieved(&mut session, &all, 0..3);
        run(session.close());
        if server.connections() == before + 1 {
            // All of it came before the break.
            return;
        }
        assert_eq!(server.connections(), before + 2, "behind {behind} octets");
    }
    panic!("it never came to the end");
}

#[test]
fn an_end_behind_each_octet() {
    broken_behind_each_octet(Answer::Close);
}

#[test]
fn a_reset_behind_each_octet() {
    broken_behind_each_octet(Answer::Reset);
}

#[test]
fn a_large_message_that_breaks_off_is_an_error_and_the_rest_goes_on() {
    let all = mails(4, 200_000);
    let server = ScriptedImap::builder()
        .messages(&all)
        .on("UID FETCH", |command, world| match text_of(command) {
            Some(2) if command.connection == 0 => {
                let mut answer = fetched(world, 2);
                answer.truncate(100_000);
                Answer::Close(answer)
            }
            _ => Answer::Usual,
        })
        .start();
    let mut session = Rig::new(&server.plain_url()).open();
    assert_retrieved(&mut session, &all, [0]);
    assert!(matches!(
        try_retrieve(&mut session, 1),
        Err(UpstreamError::Temporary { .. })
    ));
    assert_retrieved(&mut session, &all, 1..4);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_server_that_takes_one_command_at_a_time() {
    type Refusal = fn(&Command) -> Answer;
    let refusals: [Refusal; 4] = [
        |command| Answer::send(command.no("one at a time")),
        |command| Answer::send(command.bad("one at a time")),
        |_| Answer::Close(b"* BYE one at a time\r\n".to_vec()),
        |_| Answer::Reset(Vec::new()),
    ];
    for refusal in refusals {
        let all = mails(40, 3000);
        let followed: Mutex<BTreeMap<usize, bool>> = Mutex::default();
        let server = ScriptedImap::builder()
            .messages(&all)
            .on("UID FETCH", move |command, _| {
                if text_of(command).is_none() {
                    return Answer::Usual;
                }
                let mut followed = followed.lock().unwrap();
                let follows = followed.insert(command.connection, command.followed);
                match command.followed || follows == Some(true) {
                    true => refusal(command),
                    false => Answer::Usual,
                }
            })
            .start();
        let rig = Rig::new(&server.plain_url());
        let mut session = rig.open();
        assert_retrieved(&mut session, &all, 0..40);
        assert!(server.connections() <= 3, "{}", server.connections());
        assert!(rig.wasted() <= 2 * 256 * 1024, "{}", rig.wasted());
    }
}

#[test]
fn a_message_that_went_away_is_gone_alone() {
    type Gone = fn(&Command) -> Answer;
    let answers: [Gone; 2] = [
        |command| Answer::send(command.ok("done")),
        |command| Answer::send(command.no("[EXPUNGEISSUED] some are gone")),
    ];
    for answer in answers {
        let all = mails(10, 3000);
        let server = ScriptedImap::builder()
            .messages(&all)
            .on("UID FETCH", move |command, _| match text_of(command) {
                Some(4) => answer(command),
                _ => Answer::Usual,
            })
            .start();
        let mut session = Rig::new(&server.plain_url()).open();
        assert_retrieved(&mut session, &all, 0..3);
        assert!(matches!(
            try_retrieve(&mut session, 3),
            Err(UpstreamError::Gone)
        ));
        assert_retrieved(&mut session, &all, 4..10);
        assert_eq!((fetches(&server), server.connections()), (10, 1));
    }
}

#[test]
fn text_of_another_message_is_never_given_out() {
    // The UID in front of the text, or behind it.
    for in_front in [true, false] {
        let all = mails(10, 3000);
        let server = ScriptedImap::builder()
            .messages(&all)
            .on("UID FETCH", move |command, world| match text_of(command) {
                Some(4) if command.connection == 0 => {
                    let text = world.inbox().message(7).unwrap().octets.clone();
                    let (front, back) = match in_front {
                        true => ("UID 7 ", ""),
                        false => ("", " UID 7"),
                    };
                    let start = format!("* 4 FETCH ({front}BODY[] {{{}}}\r\n", text.len());
                    let end = format!("{back})\r\n{}", command.ok("done"));
                    Answer::Send([start.as_bytes(), &text, end.as_bytes()].concat())
                }
                _ => Answer::Usual,
            })
            .start();
        let mut session = Rig::new(&server.plain_url()).open();
        for (message, mail) in all.iter().enumerate() {
            match try_retrieve(&mut session, message) {
                Ok(octets) => assert!(octets == *mail, "message {message}"),
                Err(UpstreamError::Gone) => assert!(in_front && message == 3),
                Err(error) => panic!("message {message}: {error:?}"),
            }
        }
    }
}

#[test]
fn a_mailbox_that_was_replaced_is_noticed_behind_what_was_fetched_ahead() {
    let all = mails(10, 3000);
    let server = ScriptedImap::builder()
        .messages(&all)
        .on("UID FETCH", |command, world| match text_of(command) {
            Some(5) => {
                world.inbox().uid_validity += 1;
                Answer::SendThenUsual(b"* OK [UIDVALIDITY 1700000001] changed\r\n".to_vec())
            }
            _ => Answer::Usual,
        })
        .start();
    let mut session = Rig::new(&server.plain_url()).open_under(&expunging());
    assert_retrieved(&mut session, &all, 0..2);
    // Behind the wanted one, what is on its way is thrown away.
    wait_for_fetches(&server, 10);
    for message in [8, 2, 4] {
        assert!(try_retrieve(&mut session, message).is_err(), "{message}");
    }
    assert!(run(session.update(&Update::new(vec![0]))).is_err());
    assert_eq!(server.uids("INBOX").len(), 10);
}

#[test]
fn a_server_that_hangs_up_while_the_client_pauses() {
    let all = mails(30, 3000);
    let server = ScriptedImap::builder()
        .messages(&all)
        .on("UID FETCH", |command, _| match text_of(command) {
            Some(20) if command.connection == 0 => Answer::UsualThenClose,
            _ => Answer::Usual,
        })
        .start();
    let mut session = Rig::new(&server.plain_url()).open_under(&expunging());
    assert_retrieved(&mut session, &all, [0]);
    wait_for_fetches(&server, 20);
    server.wait_until_closed();
    assert_retrieved(&mut session, &all, 1..30);
    quit(session, (0..30).collect());
    assert!(server.uids("INBOX").is_empty());
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_client_that_stops_in_the_middle_leaves_the_session_usable() {
    for octets in [3000, 200_000] {
        let all = mails(10, octets);
        let server = ScriptedImap::builder().messages(&all).start();
        let mut session = Rig::new(&server.plain_url()).open();
        assert_retrieved(&mut session, &all, 0..2);
        for abandons in [true, false] {
            run(async {
                let mut body = session.retrieve(2, Portion::Whole).await.unwrap();
                body.chunk().await.unwrap();
                if abandons {
                    body.abandon().await;
                }
            });
            assert_retrieved(&mut session, &all, [3, 2, 3]);
        }
        assert_retrieved(&mut session, &all, 4..10);
    }
}

#[test]
fn the_text_of_another_message_that_never_ends_keeps_nobody_waiting_for_ever() {
    let all = mails(10, 3000);
    let server = ScriptedImap::builder()
        .messages(&all)
        .on("UID FETCH", |command, _| match text_of(command) {
            Some(2) if command.connection == 0 => {
                Answer::send("* 3 FETCH (UID 3 BODY[] {1000000}\r\n")
            }
            Some(3..) if command.connection == 0 => Answer::send(""),
            _ => Answer::Usual,
        })
        .start();
    let rig = Rig::with(&server.plain_url(), |config| {
        config.timeouts.command = Duration::from_millis(500);
    });
    let mut session = rig.open();
    assert_retrieved(&mut session, &all, [0]);
    wait_for_fetches(&server, 10);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            while !is_over.load(Ordering::SeqCst) && Instant::now() < deadline {
                server.interject(b"x");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let began = Instant::now();
        let given_out = try_retrieve(&mut session, 1);
        is_over.store(true, Ordering::SeqCst);
        assert!(matches!(given_out, Err(UpstreamError::Temporary { .. })));
        assert!(began.elapsed() < PATIENCE / 2);
    });
    assert_retrieved(&mut session, &all, 1..10);
}
