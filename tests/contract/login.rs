//! Who is let in, and what a refusal is called.

use popgate::maildrop::DeletePolicy;
use popgate::sasl::{Credentials, Mechanism};
use popgate::upstream::UpstreamError;

use crate::subject::{
    CLIENT, Cases, Changed, Subject, cases, credentials, listing, open, plain, read, try_open,
    whole,
};

pub const CASES: Cases = cases![
    passwords_are_taken,
    a_wrong_password_is_authentication_and_only_that,
    an_unknown_user_is_authentication,
    a_refusal_leaves_nothing_behind,
    a_password_may_hold_anything,
    a_changed_password_counts_at_once,
];

async fn passwords_are_taken(subject: &dyn Subject) {
    let upstream = subject.upstream(&DeletePolicy::Refuse);
    assert!(upstream.upstream.accepts(Mechanism::Plain));
    assert!(upstream.upstream.accepts(Mechanism::Login));
    let mut session = upstream.login(credentials(subject), CLIENT).await.unwrap();
    session.close().await;
    let (_, password) = subject.account();
    assert!(
        !upstream.upstream.name().contains(&password),
        "{}",
        upstream.upstream.name()
    );
}

async fn a_wrong_password_is_authentication_and_only_that(subject: &dyn Subject) {
    let upstream = subject.upstream(&DeletePolicy::Refuse);
    let (user, password) = subject.account();
    for wrong in [
        format!("{password} "),
        password.to_uppercase(),
        "gr\u{fc}n \\\"{3+}".to_owned(),
        "x".repeat(600),
    ] {
        let credentials = Credentials::password(&user, &wrong).unwrap();
        let refused = upstream.login(credentials, CLIENT).await.err();
        assert!(
            matches!(refused, Some(UpstreamError::Authentication)),
            "{refused:?}"
        );
    }
}

async fn an_unknown_user_is_authentication(subject: &dyn Subject) {
    let upstream = subject.upstream(&DeletePolicy::Refuse);
    for unknown in ["nobody", "no \"body\""] {
        let credentials = Credentials::password(unknown, "pw-nobody").unwrap();
        let refused = upstream.login(credentials, CLIENT).await.err();
        assert!(
            matches!(refused, Some(UpstreamError::Authentication)),
            "{unknown}: {refused:?}"
        );
    }
}

async fn a_refusal_leaves_nothing_behind(subject: &dyn Subject) {
    subject.deliver(&plain(1..=1));
    let upstream = subject.upstream(&DeletePolicy::Refuse);
    let (user, _) = subject.account();
    let wrong = Credentials::password(&user, "wrong").unwrap();
    assert!(upstream.login(wrong, CLIENT).await.is_err());
    let (mut session, maildrop) = try_open(subject, &upstream).await.unwrap();
    assert_eq!(maildrop.len(), 1);
    assert_eq!(whole(&mut session, 0).await, plain(1..=1)[0]);
}

async fn a_password_may_hold_anything(subject: &dyn Subject) {
    let long = "long ".repeat(30);
    for password in [
        "two \"words\" \\ 100%d{5+}",
        "gr\u{fc}n \u{4f60}\u{597d}",
        long.trim(),
    ] {
        if subject.change_password(password) == Changed::Cannot {
            return;
        }
        let upstream = subject.upstream(&DeletePolicy::Refuse);
        let session = upstream.login(credentials(subject), CLIENT).await;
        let error = session.err();
        assert!(error.is_none(), "{password}: {error:?}");
    }
    subject.change_password("pw-again");
}

async fn a_changed_password_counts_at_once(subject: &dyn Subject) {
    subject.deliver(&plain(1..=2));
    let before = credentials(subject);
    let (mut session, _) = open(subject, &DeletePolicy::Refuse).await;
    if subject.change_password("another-password") == Changed::Cannot {
        return;
    }
    let upstream = subject.upstream(&DeletePolicy::Refuse);
    let refused = upstream.login(before, CLIENT).await.err();
    assert!(
        matches!(refused, Some(UpstreamError::Authentication)),
        "{refused:?}"
    );
    assert_eq!(listing(subject).await.len(), 2);
    // Who was let in before may stay or be turned out, but mail is not gone,
    // and is not another's.
    match read(&mut session, 1, popgate::maildrop::Portion::Whole).await {
        Ok(octets) => assert_eq!(octets, plain(2..=2)[0]),
        Err(error) => assert!(!matches!(error, UpstreamError::Gone), "{error:?}"),
    }
}
