//! The maildrop: whole, in order of arrival, and the same every time.

use popgate::maildrop::{DeletePolicy, Portion, Update};
use popgate::upstream::UpstreamError;

use crate::subject::{
    Cases, Change, Subject, assert_gone, assert_holds, assert_same_octets, cases, listing, open,
    plain, read, remove, try_open, unique_ids, whole,
};
use crate::support::messages;

pub const CASES: Cases = cases![
    an_empty_mailbox_is_an_empty_maildrop,
    the_order_is_that_of_arrival,
    sizes_are_those_of_the_messages,
    unique_ids_are_good_and_the_same_every_time,
    unique_ids_survive_what_happens_to_others,
    new_mail_does_not_appear_in_a_session,
    messages_that_others_marked_are_hidden,
    messages_marked_by_others_in_a_session_renumber_nothing,
    two_sessions_of_one_account_both_read,
    listing_changes_nothing,
];

async fn an_empty_mailbox_is_an_empty_maildrop(subject: &dyn Subject) {
    for policy in subject.policies() {
        let (mut session, maildrop) = open(subject, policy).await;
        assert!(maildrop.is_empty());
        let nothing = read(&mut session, 0, Portion::Whole).await;
        assert!(matches!(nothing, Err(UpstreamError::Gone)), "{nothing:?}");
        session.close().await;
    }
}

async fn the_order_is_that_of_arrival(subject: &dyn Subject) {
    subject.deliver(&plain(1..=30));
    for _ in 0..2 {
        let (mut session, maildrop) = open(subject, &DeletePolicy::Refuse).await;
        assert_eq!(maildrop.len(), 30);
        for (message, sent) in plain(1..=30).iter().enumerate() {
            let what = format!("message {message}");
            assert_same_octets(&whole(&mut session, message).await, sent, &what);
        }
        session.close().await;
    }
}

async fn sizes_are_those_of_the_messages(subject: &dyn Subject) {
    subject.deliver(&messages::awkward());
    let sizes: Vec<u64> = listing(subject)
        .await
        .iter()
        .map(|message| message.octets)
        .collect();
    let held = subject.inbox();
    let expected: Vec<u64> = held
        .iter()
        .map(|message| message.octets.len() as u64)
        .collect();
    assert_eq!(sizes, expected);
}

async fn unique_ids_are_good_and_the_same_every_time(subject: &dyn Subject) {
    subject.deliver(&plain(1..=20));
    let first = unique_ids(&listing(subject).await);
    for id in &first {
        // RFC 1939 §7.
        assert!((1..=70).contains(&id.len()), "{id}");
        assert!(id.bytes().all(|it| (0x21..=0x7e).contains(&it)), "{id}");
    }
    let mut distinct = first.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 20);
    for policy in subject.policies() {
        let (mut session, maildrop) = open(subject, policy).await;
        assert_eq!(unique_ids(&maildrop), first, "{policy}");
        session.close().await;
    }
}

async fn unique_ids_survive_what_happens_to_others(subject: &dyn Subject) {
    subject.deliver(&plain(1..=8));
    let first = unique_ids(&listing(subject).await);
    let held = subject.inbox();
    subject.other_client(Change::Flag, &[&held[1].id, &held[6].id]);
    subject.other_client(Change::Remove, &[&held[0].id, &held[4].id]);
    subject.other_client(Change::MoveAway, &[&held[7].id]);
    subject.deliver(&plain(9..=10));
    let (mut session, maildrop) = open(subject, &DeletePolicy::Refuse).await;
    let now = unique_ids(&maildrop);
    let stayed: Vec<&String> = [1, 2, 3, 5, 6].iter().map(|at| &first[*at]).collect();
    assert_eq!(now[..5].iter().collect::<Vec<_>>(), stayed);
    assert_eq!(now.len(), 7);
    for new in &now[5..] {
        assert!(!first.contains(new), "the unique id of another: {new}");
    }
    let numbers = [2, 3, 4, 6, 7, 9, 10];
    for (message, number) in numbers.into_iter().enumerate() {
        assert_eq!(
            whole(&mut session, message).await,
            plain(number..=number)[0]
        );
    }
}

async fn new_mail_does_not_appear_in_a_session(subject: &dyn Subject) {
    subject.deliver(&plain(1..=3));
    let (mut session, maildrop) = open(subject, &subject.policies()[0]).await;
    subject.deliver(&plain(4..=5));
    for (message, sent) in plain(1..=3).iter().enumerate() {
        assert_eq!(&whole(&mut session, message).await, sent);
    }
    for beyond in [3, 4] {
        let nothing = read(&mut session, beyond, Portion::Whole).await;
        assert!(matches!(nothing, Err(UpstreamError::Gone)), "{nothing:?}");
    }
    assert_eq!(maildrop.len(), 3);
    if subject.policies() != [DeletePolicy::Refuse] {
        remove(&mut session, &[2]).await;
        let inbox = subject.inbox();
        let sent = [plain(1..=2), plain(4..=5)].concat();
        assert_holds(&inbox, &sent);
    }
    session.close().await;
    let next = listing(subject).await;
    assert_eq!(next.len(), subject.inbox().len());
}

async fn messages_that_others_marked_are_hidden(subject: &dyn Subject) {
    if !subject.can_mark_deleted() {
        return;
    }
    subject.deliver(&plain(1..=6));
    let held = subject.inbox();
    subject.other_client(
        Change::MarkDeleted,
        &[&held[0].id, &held[2].id, &held[3].id],
    );
    let before = subject.inbox();
    for policy in subject.policies() {
        let (mut session, maildrop) = open(subject, policy).await;
        assert_eq!(maildrop.len(), 3);
        for (message, number) in [2, 5, 6].into_iter().enumerate() {
            assert_eq!(
                whole(&mut session, message).await,
                plain(number..=number)[0]
            );
        }
        session.close().await;
        assert_eq!(subject.inbox(), before);
    }
    let all: Vec<&str> = held.iter().map(|message| message.id.as_str()).collect();
    subject.other_client(Change::MarkDeleted, &all);
    assert!(listing(subject).await.is_empty());
}

async fn messages_marked_by_others_in_a_session_renumber_nothing(subject: &dyn Subject) {
    if !subject.can_mark_deleted() {
        return;
    }
    subject.deliver(&plain(1..=3));
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    let held = subject.inbox();
    subject.other_client(Change::MarkDeleted, &[&held[0].id]);
    for (message, sent) in plain(1..=3).iter().enumerate().skip(1) {
        assert_eq!(&whole(&mut session, message).await, sent);
    }
    // It is on its way out, but may still be read.
    match read(&mut session, 0, Portion::Whole).await {
        Ok(octets) => assert_eq!(octets, plain(1..=1)[0]),
        Err(error) => assert!(matches!(error, UpstreamError::Gone), "{error:?}"),
    }
}

async fn two_sessions_of_one_account_both_read(subject: &dyn Subject) {
    subject.deliver(&plain(1..=4));
    let upstream = subject.upstream(&subject.policies()[0]);
    let (mut one, first) = try_open(subject, &upstream).await.unwrap();
    let (mut other, second) = try_open(subject, &upstream).await.unwrap();
    assert_eq!(unique_ids(&first), unique_ids(&second));
    for (message, sent) in plain(1..=4).iter().enumerate() {
        assert_eq!(&whole(&mut one, message).await, sent);
        assert_eq!(
            &whole(&mut other, 3 - message).await,
            &plain(1..=4)[3 - message]
        );
    }
    if subject.policies() == [DeletePolicy::Refuse] {
        return;
    }
    // What one removes, the other may find gone.
    remove(&mut one, &[0, 1]).await;
    assert_gone(subject, &mut other, 0, &plain(1..=1)[0]).await;
    assert_eq!(whole(&mut other, 2).await, plain(3..=3)[0]);
    remove(&mut other, &[1, 2]).await;
    assert_holds(&subject.inbox(), &plain(4..=4));
}

async fn listing_changes_nothing(subject: &dyn Subject) {
    subject.deliver(&plain(1..=5));
    let held = subject.inbox();
    subject.other_client(Change::Flag, &[&held[3].id]);
    if subject.can_mark_deleted() {
        subject.other_client(Change::MarkDeleted, &[&held[1].id]);
    }
    let before = subject.inbox();
    for policy in subject.policies() {
        let (mut session, _) = open(subject, policy).await;
        if policy.writes() {
            let outcome = session.update(&Update::new(Vec::new())).await.unwrap();
            assert!(outcome.removed.is_empty() && outcome.remaining.is_empty());
        }
        session.close().await;
        // As a session ends whose client went away.
        let (session, _) = open(subject, policy).await;
        drop(session);
        assert_eq!(subject.inbox(), before, "{policy}");
    }
    assert_eq!(subject.trash(), []);
}
