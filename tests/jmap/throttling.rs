//! A server that asks to be left alone for a while is left alone.

use std::time::{Duration, Instant};

use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{API, Answer, DOWNLOAD, Reply, SESSION};
use crate::{alice, code, front, login, plain, slices};

const TEMPORARY: &str = "[SYS/TEMP";

/// Throttles the first request whose path begins so, and no other.
fn throttling_once(path: &'static str, status: u16, retry_after: &'static str) -> ScriptedJmap {
    let throttled = std::sync::atomic::AtomicBool::new(false);
    ScriptedJmap::builder()
        .messages(&slices(&plain(2)))
        .on_request(move |request, _| {
            let matches = request.path.starts_with(path);
            if matches && !throttled.swap(true, std::sync::atomic::Ordering::SeqCst) {
                Answer::Send(Reply::status(status).header("Retry-After", retry_after))
            } else {
                Answer::Usual
            }
        })
        .start()
}

#[test]
fn no_new_tries_before_the_time_is_over() {
    for path in [SESSION, API] {
        for status in [429, 503] {
            let server = throttling_once(path, status, "3600");
            let gateway = front(&server, &[]);
            assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
            // Only the account is left alone.
            assert!(login(&gateway, "bob", "pw-bob").starts_with("+OK"));
            server.forget();
            for _ in 0..3 {
                assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
            }
            assert!(server.requests().is_empty(), "{path} {status}");
        }
    }
}

#[test]
fn new_tries_when_the_time_is_over() {
    let server = throttling_once(API, 429, "1");
    let gateway = front(&server, &[]);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
    let deadline = Instant::now() + crate::support::PATIENCE;
    while !login(&gateway, "alice", "pw-alice").starts_with("+OK") {
        assert!(Instant::now() < deadline, "never again");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_date_far_away() {
    let server = throttling_once(SESSION, 503, "Fri, 31 Dec 9999 23:59:59 GMT");
    let gateway = front(&server, &[]);
    for _ in 0..3 {
        assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn without_a_time_the_next_login_may_try() {
    let throttled = std::sync::atomic::AtomicBool::new(false);
    let server = ScriptedJmap::builder()
        .on_request(move |_, _| {
            if throttled.swap(true, std::sync::atomic::Ordering::SeqCst) {
                Answer::Usual
            } else {
                Answer::Send(Reply::status(429))
            }
        })
        .start();
    let gateway = front(&server, &[]);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
    alice(&gateway);
}

#[test]
fn within_a_session() {
    let server = throttling_once(DOWNLOAD, 429, "3600");
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    server.forget();
    assert!(pop3.expect_err("RETR 1").starts_with("[SYS/TEMP]"));
    assert_eq!(server.requests().len(), 1);
    assert!(pop3.expect_err("RETR 2").starts_with("[SYS/TEMP]"));
    pop3.expect_ok("DELE 1");
    assert_eq!(code(&pop3.quit()), TEMPORARY);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.ids("mb-inbox").len(), 2);
}
