//! RETR: every octet as the upstream holds it, or an error.

use popgate::maildrop::{DeletePolicy, Portion};

use crate::subject::{
    Cases, Change, Subject, assert_gone, assert_same_octets, cases, open, plain, read, whole,
};
use crate::support::messages;

pub const CASES: Cases = cases![
    every_message_comes_octet_by_octet,
    a_large_message_comes_octet_by_octet,
    reading_changes_nothing,
    a_message_that_others_removed_is_gone_and_the_rest_goes_on,
    a_message_that_others_moved_is_gone,
    an_abandoned_message_leaves_the_session_usable,
    a_dropped_message_leaves_the_session_usable,
    a_message_can_be_read_again_and_in_any_order,
];

/// A message of about `octets` octets with a body unlike any other's.
fn large(octets: usize) -> Vec<u8> {
    messages::plain(7, octets)
}

async fn every_message_comes_octet_by_octet(subject: &dyn Subject) {
    let mut sent = messages::awkward();
    // 8-bit text in a header, a header without a body's blank line but long.
    sent.push(b"Subject: gr\xfc\xdfe\r\nX-Long: 1\r\n\r\n8-bit above\r\n".to_vec());
    sent.push(
        [
            b"Subject: one line\r\nX: ".as_slice(),
            &[b'h'; 5000],
            b"\r\n\r\n",
        ]
        .concat(),
    );
    // What looks like the protocols on the way.
    sent.push(b"Subject: )\r\n\r\n)\r\n* BYE\r\n+OK\r\n.\r\nP1 OK done\r\n{5}\r\n".to_vec());
    // Lengths around the sizes of buffers.
    for octets in [
        4095, 4096, 8191, 8192, 16383, 16384, 16385, 65536, 131_072, 131_073,
    ] {
        let mut message = messages::plain(octets, octets);
        message.truncate(octets - 2);
        message.extend_from_slice(b"\r\n");
        sent.push(message);
    }
    if subject.takes_nul() {
        sent.push(b"Subject: NUL\r\n\r\nbefore\0after\r\n\0\r\n".to_vec());
    }
    subject.deliver(&sent);
    let held = subject.inbox();
    assert_eq!(held.len(), sent.len());
    let (mut session, maildrop) = open(subject, &DeletePolicy::Refuse).await;
    assert_eq!(maildrop.len(), sent.len());
    for (message, held) in held.iter().enumerate() {
        let what = format!("message {message}");
        assert_same_octets(&whole(&mut session, message).await, &held.octets, &what);
    }
    session.close().await;
}

async fn a_large_message_comes_octet_by_octet(subject: &dyn Subject) {
    let sent = large(5_000_000);
    subject.deliver(&[plain(1..=1), vec![sent.clone()], plain(2..=2)].concat());
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    assert_same_octets(&whole(&mut session, 1).await, &sent, "5 MB");
    assert_eq!(whole(&mut session, 2).await, plain(2..=2)[0]);
}

async fn reading_changes_nothing(subject: &dyn Subject) {
    subject.deliver(&messages::awkward());
    let held = subject.inbox();
    subject.other_client(Change::Flag, &[&held[2].id]);
    let before = subject.inbox();
    for policy in subject.policies() {
        let (mut session, maildrop) = open(subject, policy).await;
        for message in 0..maildrop.len() {
            whole(&mut session, message).await;
            for lines in [0, 5] {
                let portion = Portion::Top { lines };
                read(&mut session, message, portion).await.unwrap();
            }
        }
        session.close().await;
        assert_eq!(subject.inbox(), before, "{policy}");
    }
}

async fn a_message_that_others_removed_is_gone_and_the_rest_goes_on(subject: &dyn Subject) {
    subject.deliver(&plain(1..=5));
    let (mut session, _) = open(subject, &subject.policies()[0]).await;
    assert_eq!(whole(&mut session, 0).await, plain(1..=1)[0]);
    let held = subject.inbox();
    subject.other_client(Change::Remove, &[&held[0].id, &held[2].id]);
    for _ in 0..2 {
        for message in [0, 2] {
            let was = &plain(message + 1..=message + 1)[0];
            assert_gone(subject, &mut session, message, was).await;
        }
        for message in [1, 3, 4] {
            let number = message + 1;
            assert_eq!(
                whole(&mut session, message).await,
                plain(number..=number)[0]
            );
        }
    }
}

async fn a_message_that_others_moved_is_gone(subject: &dyn Subject) {
    subject.deliver(&plain(1..=3));
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    let held = subject.inbox();
    subject.other_client(Change::MoveAway, &[&held[1].id]);
    assert_gone(subject, &mut session, 1, &plain(2..=2)[0]).await;
    assert_eq!(whole(&mut session, 2).await, plain(3..=3)[0]);
}

async fn an_abandoned_message_leaves_the_session_usable(subject: &dyn Subject) {
    for octets in [600, 40_000, 300_000, 5_000_000] {
        subject.clear();
        subject.deliver(&[vec![large(octets)], plain(1..=1)].concat());
        let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
        for portion in [Portion::Whole, Portion::Top { lines: 3 }] {
            let mut body = session.retrieve(0, portion).await.unwrap();
            let first = body.chunk().await.unwrap().unwrap();
            assert!(large(octets).starts_with(&first));
            body.abandon().await;
            drop(body);
            assert_eq!(whole(&mut session, 1).await, plain(1..=1)[0]);
        }
        assert_same_octets(&whole(&mut session, 0).await, &large(octets), "again");
        session.close().await;
    }
}

async fn a_dropped_message_leaves_the_session_usable(subject: &dyn Subject) {
    subject.deliver(&[vec![large(400_000)], plain(1..=1)].concat());
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    for chunks in 0..3 {
        let mut body = session.retrieve(0, Portion::Whole).await.unwrap();
        for _ in 0..chunks {
            assert!(body.chunk().await.unwrap().is_some());
        }
        drop(body);
        assert_eq!(whole(&mut session, 1).await, plain(1..=1)[0]);
    }
    assert_same_octets(&whole(&mut session, 0).await, &large(400_000), "again");
}

async fn a_message_can_be_read_again_and_in_any_order(subject: &dyn Subject) {
    subject.deliver(&plain(1..=10));
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    for message in [9, 0, 9, 5, 4, 5, 0] {
        let number = message + 1;
        assert_eq!(
            whole(&mut session, message).await,
            plain(number..=number)[0]
        );
    }
}
