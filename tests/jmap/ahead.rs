//! Messages that are downloaded before they are asked for.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::scripted_jmap::{
    Account, Answer, DOWNLOAD, End, Framing, INBOX, Reply, Request,
};
use crate::support::{PATIENCE, ScriptedJmap, messages};
use crate::{alice, configured, front, plain, slices};

/// The number of the message that is downloaded.
fn number(request: &Request) -> Option<usize> {
    let blob = request.path.strip_prefix(DOWNLOAD)?.split('/').nth(1)?;
    blob.strip_prefix('G')?.parse().ok()
}

/// How often each message was asked for so far.
fn downloads(server: &ScriptedJmap) -> HashMap<usize, usize> {
    let mut downloads = HashMap::new();
    for number in server.requests().iter().filter_map(number) {
        *downloads.entry(number).or_default() += 1;
    }
    downloads
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Answers so the first time that a message is downloaded.
fn once(
    broken: usize,
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request, &mut Account) -> Answer + Send + Sync + 'static {
    let asked = AtomicUsize::new(0);
    move |request, _| {
        if number(request) == Some(broken) && asked.fetch_add(1, Ordering::SeqCst) == 0 {
            answer()
        } else {
            Answer::Usual
        }
    }
}

#[test]
fn who_reads_in_order_is_waited_for_by_the_next_messages() {
    let mut mail = messages::awkward();
    mail.extend(plain(60));
    let server = ScriptedJmap::with_messages(&slices(&mail));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    let expected = |at: usize| {
        let mut expected = mail[at].clone();
        if !expected.ends_with(b"\r\n") {
            expected.extend_from_slice(b"\r\n");
        }
        expected
    };
    for at in 0..2 {
        assert!(pop3.retrieve(at + 1) == expected(at), "message {}", at + 1);
    }
    wait_until("nothing is downloaded ahead", || {
        downloads(&server).len() > 4
    });
    for at in 2..mail.len() {
        assert!(pop3.retrieve(at + 1) == expected(at), "message {}", at + 1);
    }
    // Each of them once.
    let downloads = downloads(&server);
    assert_eq!(downloads.len(), mail.len());
    assert!(downloads.values().all(|times| *times == 1), "{downloads:?}");
    assert!(pop3.quit().starts_with("+OK"));
}

#[test]
fn backwards_and_tops() {
    let mail = plain(30);
    let server = ScriptedJmap::with_messages(&slices(&mail));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for number in (1..=30).rev() {
        assert_eq!(pop3.retrieve(number), mail[number - 1]);
    }
    assert!(downloads(&server).values().all(|times| *times == 1));
    server.forget();
    // TOP has downloads of its own, and each of it is what RETR begins with.
    for number in 1..=30 {
        pop3.expect_ok(&format!("TOP {number} 2"));
        let top = pop3.multiline();
        assert!(mail[number - 1].starts_with(&top) && top.ends_with(b"\r\n"));
        assert!(top.len() < mail[number - 1].len());
    }
    assert!(downloads(&server).values().all(|times| *times == 1));
    // Two ways to read, by turns: nothing is ahead of either.
    server.forget();
    for number in 1..=10 {
        pop3.expect_ok(&format!("TOP {number} 0"));
        pop3.multiline();
        assert_eq!(pop3.retrieve(number), mail[number - 1]);
    }
    let downloads = downloads(&server);
    assert_eq!(downloads.len(), 10);
    assert!(downloads.values().all(|times| *times == 2), "{downloads:?}");
}

#[test]
fn tops_of_large_messages() {
    let mail: Vec<_> = (1..=12).map(|it| messages::plain(it, 100_000)).collect();
    for (ranges, blobs) in [(true, false), (false, false), (false, true)] {
        let server = ScriptedJmap::builder()
            .messages(&slices(&mail))
            .account(|it| {
                it.ranges = ranges;
                it.blobs = blobs;
                it.max_concurrent_requests = 2;
            })
            .start();
        let gateway = front(&server, &[]);
        let mut pop3 = alice(&gateway);
        for (at, message) in mail.iter().enumerate() {
            // More than the first part has.
            pop3.expect_ok(&format!("TOP {} 600", at + 1));
            let top = pop3.multiline();
            assert!(message.starts_with(&top), "message {}", at + 1);
            assert!(top.ends_with(b"\r\n") && top.len() > 40_000);
        }
        assert_eq!(pop3.retrieve(3), mail[2]);
    }
}

#[test]
fn tops_of_a_server_that_knows_no_parts_are_not_begun_ahead() {
    let mail: Vec<_> = (1..=24).map(|it| messages::plain(it, 100_000)).collect();
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .account(|it| {
            it.ranges = false;
            it.blobs = false;
        })
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for number in 1..=12 {
        pop3.expect_ok(&format!("TOP {number} 1"));
        assert!(mail[number - 1].starts_with(&pop3.multiline()));
    }
    // But for those that showed it.
    std::thread::sleep(Duration::from_millis(100));
    let furthest = downloads(&server).into_keys().max();
    assert!(furthest <= Some(12), "{furthest:?}");
}

#[test]
fn who_picks_messages_gets_no_others() {
    let server = ScriptedJmap::with_messages(&slices(&plain(20)));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for number in [3, 7, 5, 11, 1] {
        assert_eq!(pop3.retrieve(number), plain(20)[number - 1]);
    }
    assert!(pop3.quit().starts_with("+OK"));
    let mut asked: Vec<usize> = downloads(&server).into_keys().collect();
    asked.sort_unstable();
    assert_eq!(asked, [1, 3, 5, 7, 11]);
}

#[test]
fn who_leaves_out_some_goes_on_behind_them() {
    let mail = plain(40);
    let server = ScriptedJmap::with_messages(&slices(&mail));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for number in [1, 2, 3, 5, 6, 7, 10, 30, 31, 32, 4, 3, 2] {
        assert_eq!(pop3.retrieve(number), mail[number - 1], "{number}");
    }
    for number in [1, 2, 3] {
        pop3.expect_ok(&format!("DELE {number}"));
    }
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(server.ids(INBOX).len(), 37);
}

#[test]
fn what_fails_ahead_is_downloaded_when_it_is_asked_for() {
    let mail = plain(12);
    type Failure = fn() -> Answer;
    let failures: [(&str, Failure); 8] = [
        ("500", || Answer::Send(Reply::status(500))),
        ("429", || Answer::Send(Reply::status(429))),
        ("404", || Answer::Send(Reply::status(404))),
        ("reset", || Answer::Reset),
        ("cut", || {
            Answer::Change(Box::new(|it| it.ending(End::Cut(100))))
        }),
        ("reset midway", || {
            Answer::Change(Box::new(|it| {
                it.framed(Framing::Chunked(10)).ending(End::Reset(100))
            }))
        }),
        ("longer", || {
            Answer::Change(Box::new(|mut it| {
                it.body.extend_from_slice(b"more\r\n");
                it.framed(Framing::Chunked(100))
            }))
        }),
        ("shorter", || {
            Answer::Change(Box::new(|mut it| {
                it.body.truncate(300);
                it.framed(Framing::Chunked(100))
            }))
        }),
    ];
    for (name, failure) in failures {
        let server = ScriptedJmap::builder()
            .messages(&slices(&mail))
            .on_request(once(5, failure))
            .start();
        let gateway = front(&server, &[]);
        let mut pop3 = alice(&gateway);
        for (at, message) in mail.iter().enumerate() {
            assert_eq!(pop3.retrieve(at + 1), *message, "{name}: {}", at + 1);
        }
        assert_eq!(downloads(&server)[&5], 2, "{name}");
        assert!(pop3.quit().starts_with("+OK"));
    }
}

#[test]
fn what_hangs_ahead_keeps_nobody_waiting() {
    let mail = plain(12);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .on_request(once(4, || Answer::Hang))
        .on_request(once(6, || {
            Answer::Change(Box::new(|it| it.ending(End::Hang(100))))
        }))
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for (at, message) in mail.iter().enumerate() {
        assert_eq!(pop3.retrieve(at + 1), *message, "{}", at + 1);
    }
    let downloads = downloads(&server);
    assert_eq!((downloads[&4], downloads[&6]), (2, 2));
}

#[test]
fn what_fails_each_time_is_refused_and_the_rest_goes_on() {
    let mail = plain(8);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .on_request(|request, _| match number(request) {
            Some(4) => Answer::Send(Reply::status(404)),
            Some(6) => Answer::Change(Box::new(|it| it.ending(End::Cut(100)))),
            _ => Answer::Usual,
        })
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for (at, message) in mail.iter().enumerate() {
        match at + 1 {
            4 => assert_eq!(pop3.expect_err("RETR 4"), "the message is no longer there"),
            6 => assert!(pop3.expect_err("RETR 6").starts_with("[SYS/TEMP]")),
            number => assert_eq!(pop3.retrieve(number), *message),
        }
    }
    assert!(pop3.quit().starts_with("+OK"));
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let mail = plain(12);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .on_request(once(5, || {
            Answer::Send(Reply::status(429).header("Retry-After", "60"))
        }))
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    let mut refused = 0;
    for (at, message) in mail.iter().enumerate() {
        let reply = pop3.command(&format!("RETR {}", at + 1));
        if reply.starts_with("+OK") {
            assert_eq!(pop3.multiline(), *message);
        } else {
            assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{reply}");
            refused += 1;
        }
    }
    assert!(refused > 0);
    // Not asked again, either for that or for any other.
    assert_eq!(downloads(&server)[&5], 1);
    assert!(!downloads(&server).contains_key(&12));
}

#[test]
fn a_server_that_asked_for_a_pause_is_asked_for_less_afterwards() {
    let mail = plain(12);
    let furthest = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&furthest);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .on_request(once(5, || {
            Answer::Send(Reply::status(429).header("Retry-After", "1"))
        }))
        .on_request(move |request, _| {
            seen.fetch_max(number(request).unwrap_or(0), Ordering::SeqCst);
            Answer::Usual
        })
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    // Who leaves before the refusal is there takes the downloads ahead along, and
    // nobody hears of it. The reply to the last of these comes behind it.
    for number in 1..=5 {
        if pop3.command(&format!("RETR {number}")).starts_with("+OK") {
            pop3.multiline();
        }
    }
    drop(pop3);
    std::thread::sleep(Duration::from_millis(1500));
    furthest.store(0, Ordering::SeqCst);
    let mut pop3 = alice(&gateway);
    for (at, message) in mail.iter().enumerate() {
        assert_eq!(pop3.retrieve(at + 1), *message);
        assert_eq!(furthest.load(Ordering::SeqCst), at + 1);
        pop3.expect_ok(&format!("DELE {}", at + 1));
    }
    assert!(pop3.quit().starts_with("+OK"));
}

#[test]
fn no_more_is_ahead_than_is_allowed() {
    let octets = 1000;
    let mail: Vec<_> = (1..=30).map(|it| messages::plain(it, octets)).collect();
    let size = mail.iter().map(Vec::len).max().unwrap();
    for (lines, most) in [
        ("read_ahead = { octets_per_session = 0 }\n".to_owned(), 0),
        ("read_ahead = { octets = 0 }\n".to_owned(), 0),
        (
            format!("read_ahead = {{ octets_per_session = {} }}\n", 3 * size),
            3,
        ),
        // KiB are what all sessions share.
        ("read_ahead = { octets = 4096 }\n".to_owned(), 2),
    ] {
        let ahead = std::sync::Arc::new(Mutex::new((0, 0)));
        let seen = std::sync::Arc::clone(&ahead);
        let server = ScriptedJmap::builder()
            .messages(&slices(&mail))
            .on_request(move |request, _| {
                if let Some(number) = number(request) {
                    let mut seen = seen.lock().unwrap();
                    seen.1 = seen.1.max(number);
                }
                Answer::Usual
            })
            .start();
        let gateway = configured(&server, &lines);
        let mut pop3 = alice(&gateway);
        for (at, message) in mail.iter().enumerate() {
            ahead.lock().unwrap().0 = at + 1;
            assert_eq!(pop3.retrieve(at + 1), *message);
            let (asked, furthest) = *ahead.lock().unwrap();
            assert!(furthest <= asked + most, "{lines} {furthest} at {asked}");
        }
    }
}

#[test]
fn a_large_message_comes_when_it_is_asked_for() {
    let mut mail = plain(10);
    mail[4] = messages::plain(5, 400_000);
    let server = ScriptedJmap::with_messages(&slices(&mail));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for number in 1..=4 {
        assert_eq!(pop3.retrieve(number), mail[number - 1]);
    }
    wait_until("nothing is downloaded ahead", || {
        downloads(&server).contains_key(&6)
    });
    assert!(!downloads(&server).contains_key(&5));
    for number in 5..=10 {
        assert!(pop3.retrieve(number) == mail[number - 1], "{number}");
    }
    assert!(downloads(&server).values().all(|times| *times == 1));
}

/// Connections that are kept for requests, at most: who finds none free makes one.
const NEEDED: usize = 4;

#[test]
fn a_client_that_pauses_keeps_no_connections_but_what_it_needs() {
    let mail = plain(60);
    // One after the other, so that many are under way.
    let slow = |request: &Request, _: &mut Account| {
        if number(request).is_some() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Answer::Usual
    };
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .on_request(slow)
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    for (at, message) in mail.iter().take(30).enumerate() {
        assert_eq!(pop3.retrieve(at + 1), *message);
    }
    assert!(server.connections() > NEEDED, "nothing is downloaded ahead");
    server.wait_until_open(NEEDED);
    for (at, message) in mail.iter().enumerate().skip(30) {
        assert_eq!(pop3.retrieve(at + 1), *message);
    }
    assert!(pop3.quit().starts_with("+OK"));
}

#[test]
fn who_reads_deletes_and_quits() {
    let mail = plain(50);
    for policy in ["trash", "expunge", "seen"] {
        let server = ScriptedJmap::with_messages(&slices(&mail));
        let gateway = front(&server, &["--delete", policy]);
        let mut pop3 = alice(&gateway);
        for number in 1..=10 {
            assert_eq!(pop3.retrieve(number), mail[number - 1]);
            pop3.expect_ok(&format!("DELE {number}"));
        }
        assert!(pop3.quit().starts_with("+OK"));
        let left = if policy == "seen" { 50 } else { 40 };
        assert_eq!(server.ids(INBOX).len(), left, "{policy}");
        // What was ahead was marked by nobody.
        let account = server.account();
        let marked = account.emails.iter().filter(|it| !it.keywords.is_empty());
        assert_eq!(marked.count(), if policy == "seen" { 10 } else { 0 });
    }
}
