//! Whoever enrols, with what is his and with what is not.

use std::sync::Mutex;

use super::*;
use crate::accounts::testing::{Fixture, TokenEndpoint, config};
use crate::accounts::{Config, Provider, Trouble};
use crate::oauth2::Grant;

const ALICE: &str = "alice@example.org";

/// A mail server that gives this answer, and what it was shown.
struct Server(
    Result<(), ProbeError>,
    Mutex<Vec<(String, Credentials, Option<String>)>>,
);

impl Server {
    fn answering(answer: Result<(), ProbeError>) -> Self {
        Self(answer, Mutex::default())
    }

    fn open() -> Self {
        Self::answering(Ok(()))
    }

    fn shown(&self) -> Vec<(String, Credentials, Option<String>)> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }
}

#[async_trait]
impl Probe for Server {
    async fn probe(
        &self,
        upstream: &str,
        credentials: Credentials,
        delegate: Option<&str>,
    ) -> Result<(), ProbeError> {
        let shown = (
            upstream.to_owned(),
            credentials,
            delegate.map(str::to_owned),
        );
        self.1.lock().unwrap().push(shown);
        self.0.clone()
    }
}

async fn fixture() -> Fixture {
    let endpoint = TokenEndpoint::start().await;
    let named = |name: &str, entry| {
        let provider = Provider {
            name: name.to_owned(),
            title: name.to_owned(),
            upstream: format!("imaps://{name}.example.org"),
            entry,
        };
        (name.to_owned(), std::sync::Arc::new(provider))
    };
    let master = Entry::Master {
        user: "master".to_owned(),
        password: "master password".into(),
    };
    let providers = [
        ("mail".to_owned(), endpoint.provider("mail", Grant::User)),
        (
            "site".to_owned(),
            endpoint.provider("site", Grant::ClientCredentials),
        ),
        named("apps", Entry::Password),
        named("api", Entry::ApiToken),
        named("own", master),
    ];
    Fixture::with(Config {
        providers: providers.into_iter().collect(),
        gateway_upstream: Some("imaps://gateway.example.org".to_owned()),
        ..config()
    })
}

fn at(provider: &str) -> Home {
    Home::Provider(provider.to_owned())
}

fn tokens(identity: Option<&str>) -> Tokens {
    Tokens {
        access: "access".into(),
        expires_at: now() + 3600,
        refresh: Some("refresh".into()),
        identity: identity.map(str::to_owned),
    }
}

fn oauth(identity: Option<&str>) -> NewCredential {
    NewCredential::OAuth(tokens(identity))
}

fn bearer(user: &str, token: &str) -> Credentials {
    Credentials::Bearer {
        user: user.to_owned(),
        token: token.into(),
    }
}

fn is_another(outcome: &Result<Enrolled, EnrolmentError>) -> bool {
    matches!(outcome, Err(EnrolmentError::AnotherMailbox { .. }))
}

#[tokio::test]
async fn the_mailbox_that_signed_in_must_be_the_one_enrolled() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let server = Server::open();
    let new = || {
        accounts
            .new_account("Alice@Example.org", at("mail"))
            .unwrap()
    };
    for other in ["mallory@example.org", "alice@example.com", "alice", ""] {
        let outcome = accounts.enrol(new(), oauth(Some(other)), &server).await;
        assert!(is_another(&outcome), "{other}: {outcome:?}");
    }
    // No token of somebody else's was shown to anybody.
    assert_eq!(server.shown(), []);
    assert_eq!(accounts.all().await.unwrap(), []);
    let enrolled = accounts
        .enrol(new(), oauth(Some("ALICE@example.org")), &server)
        .await
        .unwrap();
    assert!(!enrolled.renewed);
    let upstream = "imaps://mail.example.org".to_owned();
    assert_eq!(server.shown(), [(upstream, bearer(ALICE, "access"), None)]);
    assert_eq!(accounts.find(ALICE).await.unwrap(), Some(enrolled.account));
}

#[tokio::test]
async fn where_nobody_says_who_it_was_the_mail_server_is_the_judge() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let new = accounts.new_account(ALICE, at("mail")).unwrap();
    let server = Server::answering(Err(ProbeError::Refused));
    let outcome = accounts.enrol(new, oauth(None), &server).await;
    assert!(
        matches!(outcome, Err(EnrolmentError::Mailbox(ProbeError::Refused))),
        "{outcome:?}"
    );
    assert_eq!(server.shown()[0].1, bearer(ALICE, "access"));
    assert_eq!(accounts.all().await.unwrap(), []);
}

#[tokio::test]
async fn a_shared_mailbox_is_opened_by_its_delegate_alone() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let server = Server::open();
    let mut shared = accounts
        .new_account("info@example.org", at("mail"))
        .unwrap();
    shared.delegate = Some("Alice@example.org".to_owned());
    for other in ["info@example.org", "mallory@example.org"] {
        let outcome = accounts
            .enrol(shared.clone(), oauth(Some(other)), &server)
            .await;
        assert!(is_another(&outcome), "{other}");
    }
    accounts
        .enrol(shared, oauth(Some(ALICE)), &server)
        .await
        .unwrap();
    let (_, shown, delegate) = server.shown().remove(0);
    assert_eq!(shown, bearer("info@example.org", "access"));
    assert_eq!(delegate.as_deref(), Some("Alice@example.org"));
}

#[tokio::test]
async fn a_mailbox_of_another_name_is_signed_in_to_by_either() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    for who in [ALICE, "alice@corp.example"] {
        let mut account = accounts.new_account(ALICE, at("mail")).unwrap();
        account.mailbox = Some("alice@corp.example".to_owned());
        let server = Server::open();
        accounts
            .enrol(account, oauth(Some(who)), &server)
            .await
            .unwrap();
        assert_eq!(server.shown()[0].1, bearer("alice@corp.example", "access"));
        accounts.remove(ALICE).await.unwrap();
    }
}

#[tokio::test]
async fn after_a_failure_nothing_has_changed() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let new = accounts.new_account(ALICE, at("mail")).unwrap();
    let enrolled = accounts
        .enrol(new, oauth(Some(ALICE)), &Server::open())
        .await
        .unwrap();
    accounts
        .change(ALICE, |row| {
            row.trouble = Some(Trouble {
                since: 1,
                reason: "revoked".to_owned(),
                told: true,
            });
        })
        .await
        .unwrap();
    let before = accounts.find(ALICE).await.unwrap();
    for problem in [
        ProbeError::Refused,
        ProbeError::Temporary("an outage".to_owned()),
        ProbeError::Misconfigured("IMAP is switched off".to_owned()),
    ] {
        let server = Server::answering(Err(problem.clone()));
        let found = before.clone().unwrap();
        let outcome = accounts.enrol(found, oauth(Some(ALICE)), &server).await;
        assert!(
            matches!(&outcome, Err(EnrolmentError::Mailbox(it)) if *it == problem),
            "{outcome:?}"
        );
        assert_eq!(accounts.find(ALICE).await.unwrap(), before);
    }
    // As it was when it was found first: it is stored over what is there now.
    let renewed = accounts
        .enrol(enrolled.account, oauth(None), &Server::open())
        .await
        .unwrap();
    assert!(renewed.renewed && renewed.account.trouble.is_none());
}

#[tokio::test]
async fn what_others_changed_meanwhile_stays() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let new = accounts.new_account(ALICE, at("mail")).unwrap();
    let found = accounts
        .enrol(new, oauth(Some(ALICE)), &Server::open())
        .await
        .unwrap()
        .account;
    let mut newer = found.clone();
    accounts
        .add_device(&mut newer, "phone", None, None)
        .await
        .unwrap();
    newer.disabled = true;
    newer.rules.delete = Some("hide".to_owned());
    accounts.save(&mut newer).await.unwrap();
    let renewed = accounts
        .enrol(found, oauth(Some(ALICE)), &Server::open())
        .await
        .unwrap()
        .account;
    assert_eq!(renewed.devices, newer.devices);
    assert_eq!(renewed.rules, newer.rules);
    assert!(renewed.disabled);
    assert_ne!(renewed.credential, newer.credential);
    // Removed meanwhile: it does not come back.
    accounts.remove(ALICE).await.unwrap();
    let outcome = accounts
        .enrol(renewed, oauth(Some(ALICE)), &Server::open())
        .await;
    assert!(
        matches!(
            outcome,
            Err(EnrolmentError::Accounts(AccountsError::Missing(_)))
        ),
        "{outcome:?}"
    );
    assert_eq!(accounts.all().await.unwrap(), []);
}

#[tokio::test]
async fn nobody_takes_the_name_of_an_account_that_is_there() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let new = || accounts.new_account(ALICE, at("mail")).unwrap();
    accounts
        .enrol(new(), oauth(Some(ALICE)), &Server::open())
        .await
        .unwrap();
    let before = accounts.find(ALICE).await.unwrap();
    let outcome = accounts.enrol(new(), oauth(None), &Server::open()).await;
    assert!(
        matches!(
            outcome,
            Err(EnrolmentError::Accounts(AccountsError::Exists(_)))
        ),
        "{outcome:?}"
    );
    assert_eq!(accounts.find(ALICE).await.unwrap(), before);
}

#[tokio::test]
async fn each_home_takes_what_goes_with_it() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let password = || NewCredential::Password("app password".into());
    let api_token = || NewCredential::ApiToken("fmu1-abc".into());
    let shown_password = Credentials::password(ALICE, "app password").unwrap();
    let shown_master = Credentials::Password {
        user: "master".to_owned(),
        authorize_as: Some(ALICE.to_owned()),
        password: "master password".into(),
    };
    let elsewhere = || Home::Upstream("imaps://elsewhere.example.org".to_owned());
    let good = [
        (at("apps"), password(), shown_password.clone()),
        (at("api"), api_token(), bearer(ALICE, "fmu1-abc")),
        (at("own"), NewCredential::Provider, shown_master),
        (
            at("site"),
            NewCredential::Provider,
            bearer(ALICE, "access-1"),
        ),
        (Home::Gateway, password(), shown_password.clone()),
        (elsewhere(), password(), shown_password),
        (elsewhere(), api_token(), bearer(ALICE, "fmu1-abc")),
    ];
    for (home, brought, shown) in good {
        let server = Server::open();
        let account = accounts.new_account(ALICE, home.clone()).unwrap();
        let enrolled = accounts.enrol(account, brought, &server).await.unwrap();
        let (upstream, credentials, _) = server.shown().remove(0);
        assert_eq!(Some(upstream.as_str()), accounts.upstream_of(&home));
        assert_eq!(credentials, shown);
        assert_eq!(enrolled.account.home, home);
        accounts.remove(ALICE).await.unwrap();
    }
    let bad = [
        (at("apps"), api_token()),
        (at("apps"), oauth(Some(ALICE))),
        (at("apps"), NewCredential::Provider),
        (at("api"), password()),
        (at("mail"), password()),
        (at("mail"), NewCredential::Provider),
        (at("site"), oauth(Some(ALICE))),
        (at("own"), password()),
        (at("nowhere"), password()),
        (Home::Gateway, oauth(Some(ALICE))),
        (elsewhere(), NewCredential::Provider),
        (at("apps"), NewCredential::Password("".into())),
        (at("apps"), NewCredential::Password("a\r\nb".into())),
        (at("api"), NewCredential::ApiToken("a b".into())),
        (at("api"), NewCredential::ApiToken("a\u{1}b".into())),
    ];
    for (home, brought) in bad {
        let server = Server::open();
        let said = format!("{home:?}: {brought:?}");
        let account = accounts.new_account(ALICE, home).unwrap();
        let outcome = accounts.enrol(account, brought, &server).await;
        assert!(
            matches!(outcome, Err(EnrolmentError::Unsuitable(_))),
            "{said}: {outcome:?}"
        );
        assert_eq!(server.shown(), [], "{said}");
    }
    assert_eq!(accounts.all().await.unwrap(), []);
}

#[tokio::test]
async fn a_master_has_no_mailbox() {
    let fixture = fixture().await;
    let accounts = &fixture.accounts;
    let server = Server::open();
    let mut master = accounts.new_account("admin", Home::Gateway).unwrap();
    master.master = true;
    let outcome = accounts
        .enrol(master.clone(), NewCredential::Password("x".into()), &server)
        .await;
    assert!(matches!(outcome, Err(EnrolmentError::Unsuitable(_))));
    accounts
        .enrol(master, NewCredential::Provider, &server)
        .await
        .unwrap();
    assert_eq!(server.shown(), []);
}
