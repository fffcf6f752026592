//! QUIT: exactly the marked messages leave, and the outcome is the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use popgate::maildrop::{DeletePolicy, Portion, Update};
use popgate::upstream::UpstreamError;

use crate::subject::{
    Cases, Change, Held, Subject, assert_holds, cases, listing, open, plain, remove, try_open,
    whole,
};
use crate::support::messages;

pub const CASES: Cases = cases![
    exactly_the_marked_leave_and_go_where_the_policy_says,
    what_others_marked_stays,
    all_may_leave,
    messages_keep_their_octets_and_flags_in_the_trash,
    a_policy_that_cannot_be_carried_out_is_refused_before_anything_is_read,
    a_session_that_may_not_write_removes_nothing,
    what_others_removed_meanwhile_counts_as_removed,
    new_mail_stays,
    long_sets_leave_whole,
    a_session_removes_behind_a_message_it_gave_up,
    the_outcome_is_true_beside_another_client,
];

/// The policies under which something leaves.
fn writing(subject: &dyn Subject) -> Vec<DeletePolicy> {
    let policies = subject.policies().iter();
    policies.filter(|policy| policy.writes()).cloned().collect()
}

/// Whether what leaves under a policy comes to lie in the Trash.
fn to_trash(subject: &dyn Subject, policy: &DeletePolicy) -> bool {
    match policy {
        DeletePolicy::TrashIfThere => subject.has_trash(),
        DeletePolicy::Trash => true,
        _ => false,
    }
}

fn select(held: &[Held], at: &[usize]) -> Vec<Held> {
    at.iter().map(|at| held[*at].clone()).collect()
}

async fn exactly_the_marked_leave_and_go_where_the_policy_says(subject: &dyn Subject) {
    for policy in &writing(subject) {
        subject.clear();
        subject.deliver(&plain(1..=10));
        let before = subject.inbox();
        let ids: Vec<String> = listing(subject)
            .await
            .iter()
            .map(|message| message.unique_id.to_owned())
            .collect();
        let (mut session, _) = open(subject, policy).await;
        remove(&mut session, &[0, 3, 4, 5, 9]).await;
        assert_eq!(
            subject.inbox(),
            select(&before, &[1, 2, 6, 7, 8]),
            "{policy}"
        );
        let left = select(&before, &[0, 3, 4, 5, 9]);
        let trash = subject.trash();
        if to_trash(subject, policy) {
            assert_holds(&trash, &left);
        } else {
            assert_eq!(trash, [], "{policy}");
        }
        session.close().await;
        let (mut session, maildrop) = open(subject, policy).await;
        let now: Vec<&str> = maildrop.iter().map(|message| message.unique_id).collect();
        assert_eq!(now, [1, 2, 6, 7, 8].map(|at: usize| ids[at].as_str()));
        assert_eq!(whole(&mut session, 2).await, plain(7..=7)[0]);
        session.close().await;
    }
}

async fn what_others_marked_stays(subject: &dyn Subject) {
    if !subject.can_mark_deleted() {
        return;
    }
    for policy in &writing(subject) {
        subject.clear();
        subject.deliver(&plain(1..=8));
        let held = subject.inbox();
        subject.other_client(Change::MarkDeleted, &[&held[0].id, &held[3].id]);
        let (mut session, maildrop) = open(subject, policy).await;
        assert_eq!(maildrop.len(), 6);
        // Marked in the session: not asked for here, so it stays.
        subject.other_client(Change::MarkDeleted, &[&held[6].id]);
        let before = subject.inbox();
        // 2, 5 and 8.
        remove(&mut session, &[0, 2, 5]).await;
        session.close().await;
        assert_eq!(
            subject.inbox(),
            select(&before, &[0, 2, 3, 5, 6]),
            "{policy}"
        );
    }
}

async fn all_may_leave(subject: &dyn Subject) {
    for policy in &writing(subject) {
        subject.clear();
        subject.deliver(&plain(1..=3));
        let (mut session, _) = open(subject, policy).await;
        remove(&mut session, &[0, 1, 2]).await;
        session.close().await;
        assert_eq!(subject.inbox(), []);
        assert!(listing(subject).await.is_empty());
        let expected = if to_trash(subject, policy) { 3 } else { 0 };
        assert_eq!(subject.trash().len(), expected, "{policy}");
    }
}

async fn messages_keep_their_octets_and_flags_in_the_trash(subject: &dyn Subject) {
    for policy in &writing(subject) {
        if !to_trash(subject, policy) {
            continue;
        }
        subject.clear();
        subject.deliver(&messages::awkward());
        let held = subject.inbox();
        subject.other_client(Change::Flag, &[&held[1].id, &held[4].id]);
        let before = subject.inbox();
        let (mut session, maildrop) = open(subject, policy).await;
        let all: Vec<usize> = (0..maildrop.len()).collect();
        remove(&mut session, &all).await;
        session.close().await;
        let trash = subject.trash();
        assert_holds(&trash, &before);
        let flags = |held: &[Held]| -> Vec<Vec<String>> {
            held.iter().map(|message| message.flags.clone()).collect()
        };
        assert_eq!(flags(&trash), flags(&before), "{policy}");
    }
}

async fn a_policy_that_cannot_be_carried_out_is_refused_before_anything_is_read(
    subject: &dyn Subject,
) {
    subject.deliver(&plain(1..=2));
    let before = subject.inbox();
    for policy in [
        DeletePolicy::TrashIfThere,
        DeletePolicy::Trash,
        DeletePolicy::Expunge,
        DeletePolicy::Refuse,
    ] {
        let upstream = subject.upstream(&policy);
        let opened = try_open(subject, &upstream).await;
        if subject.policies().contains(&policy) {
            assert_eq!(opened.unwrap().1.len(), 2);
        } else {
            let error = opened.err();
            assert!(
                matches!(error, Some(UpstreamError::Misconfigured(_))),
                "{policy}: {error:?}"
            );
        }
    }
    assert_eq!(subject.inbox(), before);
}

async fn a_session_that_may_not_write_removes_nothing(subject: &dyn Subject) {
    subject.deliver(&plain(1..=3));
    let before = subject.inbox();
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    let outcome = session.update(&Update::new(vec![0, 1])).await;
    if let Ok(outcome) = outcome {
        assert_eq!((outcome.removed, outcome.remaining), (vec![], vec![0, 1]));
    }
    session.close().await;
    assert_eq!(subject.inbox(), before);
}

async fn what_others_removed_meanwhile_counts_as_removed(subject: &dyn Subject) {
    for policy in &writing(subject) {
        subject.clear();
        subject.deliver(&plain(1..=6));
        let (mut session, _) = open(subject, policy).await;
        let before = subject.inbox();
        subject.other_client(Change::Remove, &[&before[1].id]);
        subject.other_client(Change::MoveAway, &[&before[2].id]);
        remove(&mut session, &[1, 2, 4]).await;
        session.close().await;
        assert_eq!(subject.inbox(), select(&before, &[0, 3, 5]), "{policy}");

        // All of them, and nothing else is there either.
        let (mut session, _) = open(subject, policy).await;
        let rest = subject.inbox();
        let rest: Vec<&str> = rest.iter().map(|message| message.id.as_str()).collect();
        subject.other_client(Change::Remove, &rest);
        remove(&mut session, &[0, 1, 2]).await;
        session.close().await;
        assert_eq!(subject.inbox(), []);
    }
}

async fn new_mail_stays(subject: &dyn Subject) {
    for policy in &writing(subject) {
        subject.clear();
        subject.deliver(&plain(1..=3));
        let (mut session, _) = open(subject, policy).await;
        subject.deliver(&plain(4..=6));
        remove(&mut session, &[0, 1, 2]).await;
        session.close().await;
        assert_holds(&subject.inbox(), &plain(4..=6));
    }
}

async fn long_sets_leave_whole(subject: &dyn Subject) {
    let Some(policy) = writing(subject).pop() else {
        return;
    };
    subject.fill(3000);
    let before = subject.inbox();
    assert_holds(&before[2999..], &plain(3000..=3000));
    let (mut session, maildrop) = open(subject, &policy).await;
    assert_eq!(maildrop.len(), 3000);
    let every_other: Vec<usize> = (0..3000).step_by(2).collect();
    remove(&mut session, &every_other).await;
    session.close().await;
    let rest: Vec<usize> = (1..3000).step_by(2).collect();
    assert!(subject.inbox() == select(&before, &rest));
    if to_trash(subject, &policy) {
        assert_eq!(subject.trash().len(), 1500);
    }
}

async fn a_session_removes_behind_a_message_it_gave_up(subject: &dyn Subject) {
    for policy in &writing(subject) {
        subject.clear();
        let large = messages::plain(5, 1_000_000);
        subject.deliver(&[vec![large], plain(1..=2)].concat());
        let before = subject.inbox();
        for abandon in [true, false] {
            let (mut session, _) = open(subject, policy).await;
            let mut body = session.retrieve(0, Portion::Whole).await.unwrap();
            assert!(body.chunk().await.unwrap().is_some());
            if abandon {
                body.abandon().await;
            }
            drop(body);
            let last = subject.inbox().len() - 1;
            remove(&mut session, &[last]).await;
            assert_eq!(subject.inbox(), before[..last]);
        }
    }
}

async fn the_outcome_is_true_beside_another_client(subject: &dyn Subject) {
    for policy in &writing(subject) {
        for _ in 0..3 {
            subject.clear();
            subject.deliver(&plain(1..=40));
            let before = subject.inbox();
            let (mut session, _) = open(subject, policy).await;
            let marked: Vec<usize> = (0..40).step_by(2).collect();

            let over = Arc::new(AtomicBool::new(false));
            let mut other = subject.other_session();
            let until = Arc::clone(&over);
            let busy = std::thread::spawn(move || {
                while !until.load(Ordering::SeqCst) {
                    other();
                }
            });
            let outcome = session.update(&Update::new(marked.clone())).await;
            over.store(true, Ordering::SeqCst);
            busy.join().unwrap();

            let outcome = outcome.unwrap();
            let mut told = [outcome.removed, outcome.remaining.clone()].concat();
            told.sort_unstable();
            assert_eq!(told, marked, "{policy}");
            let inbox = subject.inbox();
            let there = |at: &usize| inbox.iter().any(|held| held.id == before[*at].id);
            let expected = |at: &usize| at % 2 == 1 || outcome.remaining.contains(at);
            for at in 0..40 {
                assert_eq!(there(&at), expected(&at), "{policy}: message {at}");
            }
        }
    }
}
