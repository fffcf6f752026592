//! TOP: never less than was asked for, and not much more.

use popgate::maildrop::{DeletePolicy, Portion};

use crate::subject::{Cases, Subject, assert_same_octets, cases, open, plain, read, whole};
use crate::support::messages;

pub const CASES: Cases = cases![
    a_top_is_the_beginning_and_never_less_than_asked,
    the_top_of_a_large_message_costs_little,
    a_header_can_be_large,
    a_body_can_be_one_long_line,
];

/// The header, the blank line and so many lines of the body (RFC 1939 §7).
fn top(message: &[u8], lines: u64) -> &[u8] {
    let mut end = 0;
    let mut left = None;
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if left == Some(0) {
            break;
        }
        end += line.len();
        left = match left {
            None => (line == b"\r\n").then_some(lines),
            Some(left) => Some(left - 1),
        };
    }
    &message[..end]
}

/// What came is the beginning of the message, at least as far as was asked.
#[track_caller]
fn assert_top(found: &[u8], message: &[u8], lines: u64) {
    if !message.windows(4).any(|octets| octets == b"\r\n\r\n") {
        // No blank line behind the header: some add one.
        let trimmed = |octets: &[u8]| String::from_utf8_lossy(octets).trim_end().to_owned();
        assert_eq!(trimmed(found), trimmed(message));
        // Courier 5.0 sends half of the last line end.
        assert!(!found.ends_with(b"\r"), "half a line end");
        return;
    }
    assert!(
        found.starts_with(top(message, lines)),
        "less than {lines} lines"
    );
    assert!(message.starts_with(found), "not the message's beginning");
}

async fn a_top_is_the_beginning_and_never_less_than_asked(subject: &dyn Subject) {
    let mut sent = messages::awkward();
    sent.extend([15_000, 17_000, 40_000, 200_000].map(|octets| messages::plain(octets, octets)));
    subject.deliver(&sent);
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    for (message, held) in subject.inbox().iter().enumerate() {
        for lines in [0, 1, 2, 3, 100, 300, 100_000, u64::MAX] {
            let portion = Portion::Top { lines };
            let found = read(&mut session, message, portion).await.unwrap();
            assert_top(&found, &held.octets, lines);
        }
        let what = format!("message {message}");
        assert_same_octets(&whole(&mut session, message).await, &held.octets, &what);
    }
}

async fn the_top_of_a_large_message_costs_little(subject: &dyn Subject) {
    let large = messages::plain(3, 5_000_000);
    subject.deliver(&[vec![large.clone()], plain(1..=1)].concat());
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    for lines in [0, 10, 50] {
        let before = subject.received();
        let mut body = session.retrieve(0, Portion::Top { lines }).await.unwrap();
        let asked = top(&large, lines);
        let mut found = Vec::new();
        while found.len() < asked.len() {
            let chunk = body.chunk().await.unwrap();
            found.extend_from_slice(&chunk.expect("less than asked"));
        }
        body.abandon().await;
        drop(body);
        assert_eq!(&found[..asked.len()], asked);
        // The session is at rest: nothing more is on its way.
        assert_eq!(whole(&mut session, 1).await, plain(1..=1)[0]);
        let cost = subject.received() - before;
        // Where popgate hangs up, buffers on the way may have filled.
        assert!(
            cost < 100_000 || !subject.sends_parts(),
            "{lines} lines for {cost} octets"
        );
    }
}

async fn a_header_can_be_large(subject: &dyn Subject) {
    let mut message = b"Subject: many\r\n".to_vec();
    for number in 0..3000 {
        let field = format!("X-Field-{number}: {}\r\n", "v".repeat(40));
        message.extend_from_slice(field.as_bytes());
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(&messages::plain(1, 300_000));
    subject.deliver(&[message.clone()]);
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    for lines in [0, 1, 1000] {
        let portion = Portion::Top { lines };
        let found = read(&mut session, 0, portion).await.unwrap();
        assert_top(&found, &message, lines);
    }
}

async fn a_body_can_be_one_long_line(subject: &dyn Subject) {
    let body = "z".repeat(400_000);
    let message = format!("Subject: long\r\n\r\n{body}\r\nnext\r\n").into_bytes();
    subject.deliver(std::slice::from_ref(&message));
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    for lines in [0, 1, 2] {
        let portion = Portion::Top { lines };
        let found = read(&mut session, 0, portion).await.unwrap();
        assert_top(&found, &message, lines);
    }
}
