//! Tokens, a provider that forgives nothing, and all that goes wrong between them.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::accounts::testing::{Fixture, TokenEndpoint, config, keys};
use crate::accounts::{Admitted, Claim, Config, Entry, NewCredential, Probe, ProbeError, Verdict};
use crate::oauth2::{Grant, Tokens};
use crate::store::{Access, Store, control};

mod storing;

const ALICE: &str = "alice@example.org";

/// Every mailbox opens.
struct Opens;

#[async_trait::async_trait]
impl Probe for Opens {
    async fn probe(
        &self,
        _upstream: &str,
        _credentials: Credentials,
        _delegate: Option<&str>,
    ) -> Result<(), ProbeError> {
        Ok(())
    }
}

fn at(endpoint: &TokenEndpoint) -> Config {
    let mut config = config();
    let provider = endpoint.provider("mail", Grant::User);
    config.providers.insert("mail".to_owned(), provider);
    config
}

/// Alice has signed in, and has a device.
async fn enrolled(accounts: &Accounts, endpoint: &TokenEndpoint, ends_at_once: bool) -> Admitted {
    let home = Home::Provider("mail".to_owned());
    let new = accounts.new_account(ALICE, home).unwrap();
    let brought = NewCredential::OAuth(endpoint.sign_in(ends_at_once));
    let mut account = accounts.enrol(new, brought, &Opens).await.unwrap().account;
    let added = accounts.add_device(&mut account, "phone", None, None);
    let password = added.await.unwrap().password;
    accounts.save(&mut account).await.unwrap();
    login(accounts, &password).await
}

async fn login(accounts: &Accounts, password: &Secret) -> Admitted {
    match accounts.authenticate(ALICE, password, None).await.unwrap() {
        Verdict::Admitted(admitted) => *admitted,
        other => panic!("{other:?}"),
    }
}

/// As somebody who logs in again finds it.
async fn again(accounts: &Accounts, admitted: &Admitted) -> Admitted {
    Admitted {
        account: stored(accounts).await,
        ..admitted.clone()
    }
}

async fn stored(accounts: &Accounts) -> Account {
    accounts.find(ALICE).await.unwrap().unwrap()
}

/// As if the tokens had been there for almost all of their life.
fn end_soon(account: &mut Account) {
    if let Credential::OAuth(tokens) = &mut account.credential {
        let left = tokens.expires_at - now() - 20;
        tokens.expires_at -= left;
        tokens.refreshed -= left;
    }
}

fn sealed(account: &Account) -> &SealedTokens {
    match &account.credential {
        Credential::OAuth(tokens) => tokens,
        other => panic!("{other:?}"),
    }
}

fn token(credentials: &Credentials) -> String {
    match credentials {
        Credentials::Bearer { user, token } => {
            assert_eq!(user, ALICE);
            token.reveal().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn is_temporary<T>(outcome: &Result<T, CredentialError>) -> bool {
    matches!(outcome, Err(CredentialError::Temporary(_)))
}

fn refreshes(accounts: &Accounts, result: RefreshResult) -> u64 {
    accounts
        .metrics
        .token_refreshes
        .get_or_create(&result)
        .get()
}

#[tokio::test]
async fn a_token_that_lasts_is_shown_as_it_is() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let admitted = enrolled(&fixture.accounts, &endpoint, false).await;
    let shown = fixture.accounts.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-1");
    assert_eq!(endpoint.asked(), 0);
}

#[tokio::test]
async fn one_that_ends_is_renewed_and_on_disk_before_it_is_used() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    let before = stored(accounts).await;
    let shown = accounts.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-2");
    let after = again(accounts, &admitted).await;
    assert_eq!(accounts.at_rest(&after.account, &after.opener), Ok(shown));
    assert_eq!(sealed(&after.account).claim, None);
    assert_eq!(sealed(&after.account).signed_in, sealed(&before).signed_in);
    assert_eq!(after.account.devices, before.devices);
    // The next login needs nobody; the one after its end has the new refresh token.
    accounts.credentials(&after).await.unwrap();
    assert_eq!(endpoint.asked(), 1);
    let refused = Credentials::Bearer {
        user: ALICE.to_owned(),
        token: "access-2".into(),
    };
    let newer = accounts.after_refusal(&after, &refused).await.unwrap();
    assert_eq!(token(&newer.unwrap()), "access-3");
    let (account, ()) = accounts.change(ALICE, end_soon).await.unwrap();
    let due = Admitted {
        account,
        ..admitted
    };
    let shown = accounts.credentials(&due).await.unwrap();
    assert_eq!(token(&shown), "access-4");
    assert_eq!(endpoint.asked(), 3);
    assert!(endpoint.is_live());
    assert_eq!(refreshes(accounts, RefreshResult::Renewed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_logins_at_two_processes_renew_once() {
    for round in 0..20 {
        let endpoint = TokenEndpoint::start().await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let shutdown = CancellationToken::new();
        let socket = control::bind(folder.path()).unwrap();
        let server = Accounts::new(Access::Local(store.clone()), at(&endpoint), Arc::default());
        let owner = Arc::new(server.clone());
        tokio::spawn(socket.serve(store, owner, shutdown.clone()));
        let access = Access::open(folder.path()).unwrap();
        assert!(matches!(access, Access::Remote(_)));
        let command = Accounts::new(access, at(&endpoint), Arc::default());
        let admitted = enrolled(&server, &endpoint, true).await;
        let logins = (0..100).map(|number| {
            let accounts = if number % 2 == round % 2 {
                &server
            } else {
                &command
            };
            let (accounts, admitted) = (accounts.clone(), admitted.clone());
            tokio::spawn(async move { accounts.credentials(&admitted).await })
        });
        for shown in futures_util::future::join_all(logins).await {
            assert_eq!(token(&shown.unwrap().unwrap()), "access-2");
        }
        assert_eq!((endpoint.asked(), endpoint.together()), (1, 1));
        assert!(endpoint.is_live());
        shutdown.cancel();
    }
}

#[tokio::test]
async fn a_command_renews_nothing_with_a_key_that_the_running_popgate_lacks() {
    let endpoint = TokenEndpoint::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let shutdown = CancellationToken::new();
    let socket = control::bind(folder.path()).unwrap();
    let server = Accounts::new(Access::Local(store.clone()), at(&endpoint), Arc::default());
    let owner = Arc::new(server.clone());
    tokio::spawn(socket.serve(store, owner, shutdown.clone()));
    let config = Config {
        keys: Some(keys(&[2, 1])),
        ..at(&endpoint)
    };
    let access = Access::open(folder.path()).unwrap();
    let command = Accounts::new(access, config, Arc::default());
    let admitted = enrolled(&server, &endpoint, true).await;
    command.credentials(&admitted).await.unwrap_err();
    assert_eq!(endpoint.asked(), 0);
    let refused = command.rekey().await.unwrap_err();
    assert!(
        matches!(refused, AccountsError::KeyNotRunning(_)),
        "{refused}"
    );
    let shown = server.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-2");
    shutdown.cancel();
}

#[tokio::test]
async fn who_waits_long_for_a_slow_provider_has_the_token_that_is_good_still() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, false).await;
    accounts.change(ALICE, end_soon).await.unwrap();
    let ending = again(accounts, &admitted).await;
    endpoint.shut().await;
    let login = accounts.credentials(&ending);
    let (shown, ()) = tokio::join!(login, async {
        endpoint.wait_for(1).await;
        tokio::time::pause();
    });
    assert_eq!(token(&shown.unwrap()), "access-1");
    tokio::time::resume();
    endpoint.open();
    accounts.renewals.running.close();
    accounts.renewals.running.wait().await;
    let after = again(accounts, &admitted).await;
    let shown = accounts.credentials(&after).await.unwrap();
    assert_eq!(token(&shown), "access-2");
    assert_eq!(endpoint.asked(), 1);
}

#[tokio::test]
async fn an_outage_is_no_refusal_and_a_token_that_lasts_bears_it() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, false).await;
    let (account, ()) = accounts.change(ALICE, end_soon).await.unwrap();
    let due = Admitted {
        account,
        ..admitted
    };
    for body in [r#"{"error":"server_error"}"#, "", "<html>", "[1"] {
        endpoint.answers(503, body);
        let shown = accounts.credentials(&due).await.unwrap();
        assert_eq!(token(&shown), "access-1");
        accounts.renewals.pauses.forget(ALICE);
        accounts.renewals.pauses.answered("mail", ALICE);
    }
    assert_eq!(endpoint.asked(), 4);
    // Where the upstream refuses it, it is of no use.
    endpoint.answers(503, "");
    let shown = Credentials::Bearer {
        user: ALICE.to_owned(),
        token: "access-1".into(),
    };
    assert!(is_temporary(&accounts.after_refusal(&due, &shown).await));
    // Not asked again at once, whoever wants it.
    assert!(is_temporary(&accounts.after_refusal(&due, &shown).await));
    assert_eq!(
        token(&accounts.credentials(&due).await.unwrap()),
        "access-1"
    );
    assert_eq!(endpoint.asked(), 5);
    assert_eq!(stored(accounts).await.trouble, None);
    assert_eq!(refreshes(accounts, RefreshResult::Temporary), 5);
    accounts.renewals.pauses.forget(ALICE);
    assert_eq!(
        token(&accounts.credentials(&due).await.unwrap()),
        "access-2"
    );
    assert!(endpoint.is_live());
}

#[tokio::test]
async fn a_refusal_is_trouble_that_costs_no_token_and_is_not_asked_for_again() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    let before = stored(accounts).await;
    endpoint.revoke();
    let logins = (0..20).map(|_| accounts.credentials(&admitted));
    for refused in futures_util::future::join_all(logins).await {
        assert_eq!(refused, Err(CredentialError::SignInNeeded));
    }
    let dead = stored(accounts).await;
    assert_eq!(endpoint.asked(), 1);
    assert_eq!(dead.credential, before.credential);
    assert_eq!(dead.devices, before.devices);
    let trouble = dead.trouble.clone().unwrap();
    assert!(trouble.reason.contains("invalid_grant"), "{trouble:?}");
    assert!(!trouble.reason.contains("refresh-1"), "{trouble:?}");
    let refused = accounts
        .credentials(&again(accounts, &admitted).await)
        .await;
    assert_eq!(refused, Err(CredentialError::SignInNeeded));
    assert_eq!(endpoint.asked(), 1);
    // Somebody signs in: all is well, and the device has its old password.
    let brought = NewCredential::OAuth(endpoint.sign_in(false));
    let renewed = accounts.enrol(dead, brought, &Opens).await.unwrap();
    assert!(renewed.renewed && renewed.account.trouble.is_none());
    assert_eq!(renewed.account.devices, before.devices);
    let shown = accounts
        .credentials(&again(accounts, &admitted).await)
        .await;
    assert_eq!(token(&shown.unwrap()), "access-2");
}

#[tokio::test]
async fn a_provider_that_changes_its_mind_cures() {
    let endpoint = TokenEndpoint::start().await;
    endpoint.never_rotates();
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    endpoint.answers(400, r#"{"error":"invalid_grant"}"#);
    accounts.credentials(&admitted).await.unwrap_err();
    assert!(stored(accounts).await.trouble.is_some());
    let nothing = Opener::default();
    let cured = accounts.renewed(ALICE, &nothing, Need::Cured).await;
    assert_eq!(token(&cured.unwrap().unwrap()), "access-2");
    assert_eq!(stored(accounts).await.trouble, None);
}

#[tokio::test]
async fn a_wrong_setting_is_nobodys_trouble() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    endpoint.answers(401, r#"{"error":"invalid_client"}"#);
    for _ in 0..5 {
        let outcome = accounts.credentials(&admitted).await;
        assert!(
            matches!(outcome, Err(CredentialError::Misconfigured(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(endpoint.asked(), 1);
    assert_eq!(stored(accounts).await.trouble, None);
    assert_eq!(refreshes(accounts, RefreshResult::Misconfigured), 1);
}

#[tokio::test]
async fn a_refusal_of_what_another_process_has_renewed_is_none() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    let command = Accounts::new(accounts.access.clone(), at(&endpoint), Arc::default());
    endpoint.shut().await;
    let (shown, ()) = tokio::join!(accounts.credentials(&admitted), async {
        endpoint.wait_for(1).await;
        let found = stored(&command).await;
        let brought = NewCredential::OAuth(endpoint.sign_in(false));
        command.enrol(found, brought, &Opens).await.unwrap();
        endpoint.answers(400, r#"{"error":"invalid_grant"}"#);
        endpoint.open();
    });
    assert_eq!(token(&shown.unwrap()), "access-2");
    assert_eq!(stored(accounts).await.trouble, None);
}

#[tokio::test]
async fn what_the_upstream_refuses_is_exchanged_once() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, false).await;
    let shown = accounts.credentials(&admitted).await.unwrap();
    let newer = accounts.after_refusal(&admitted, &shown).await.unwrap();
    let newer = newer.unwrap();
    assert_eq!(token(&newer), "access-2");
    // Another login was refused with the old one.
    let other = accounts.after_refusal(&admitted, &shown).await.unwrap();
    assert_eq!(other, Some(newer.clone()));
    // The new one is refused as well: no loop.
    let third = accounts.after_refusal(&admitted, &newer).await;
    assert_eq!(third, Ok(None));
    assert_eq!(endpoint.asked(), 1);
    assert_eq!(stored(accounts).await.trouble, None);
}

#[tokio::test]
async fn without_a_refresh_token_somebody_has_to_sign_in_at_its_end() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let home = Home::Provider("mail".to_owned());
    let new = accounts.new_account(ALICE, home).unwrap();
    let brought = |ends_at_once| {
        NewCredential::OAuth(Tokens {
            refresh: None,
            ..endpoint.sign_in(ends_at_once)
        })
    };
    let enrolled = accounts.enrol(new, brought(false), &Opens).await.unwrap();
    let admitted = |account: Account| Admitted {
        account,
        by: "phone".to_owned(),
        opener: Opener::default(),
    };
    let good = admitted(enrolled.account.clone());
    let shown = accounts.credentials(&good).await.unwrap();
    assert_eq!(token(&shown), "access-1");
    let enrolled = accounts.enrol(enrolled.account, brought(true), &Opens);
    let ended = admitted(enrolled.await.unwrap().account);
    let outcome = accounts.credentials(&ended).await;
    assert_eq!(outcome, Err(CredentialError::SignInNeeded));
    assert!(stored(accounts).await.trouble.is_some());
    assert_eq!(endpoint.asked(), 0);
}

#[tokio::test]
async fn who_was_shut_or_removed_meanwhile_gets_nothing() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(at(&endpoint));
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    accounts
        .change(ALICE, |row| row.disabled = true)
        .await
        .unwrap();
    let outcome = accounts.credentials(&admitted).await;
    assert_eq!(outcome, Err(CredentialError::Disabled));
    accounts.remove(ALICE).await.unwrap();
    let outcome = accounts.credentials(&admitted).await;
    let missing = AccountsError::Missing(ALICE.to_owned());
    assert_eq!(outcome, Err(CredentialError::Accounts(missing)));
    assert_eq!(endpoint.asked(), 0);
}

#[tokio::test]
async fn secrets_under_a_device_password_are_renewed_with_it_only() {
    let endpoint = TokenEndpoint::start().await;
    let fixture = Fixture::with(Config {
        locked_by_password: true,
        ..at(&endpoint)
    });
    let accounts = &fixture.accounts;
    let admitted = enrolled(accounts, &endpoint, true).await;
    assert!(admitted.account.lock.is_some());
    let nothing = Opener::default();
    let locked = accounts.renewed(ALICE, &nothing, Need::Fresh).await;
    assert!(
        matches!(
            locked,
            Err(CredentialError::Accounts(AccountsError::Vault(_)))
        ),
        "{locked:?}"
    );
    assert_eq!(endpoint.asked(), 0);
    let shown = accounts.credentials(&admitted).await.unwrap();
    assert_eq!(token(&shown), "access-2");
    // Signing in again needs no password, and the device opens what came.
    let found = stored(accounts).await;
    let brought = NewCredential::OAuth(endpoint.sign_in(false));
    accounts.enrol(found, brought, &Opens).await.unwrap();
    let shown = accounts
        .credentials(&again(accounts, &admitted).await)
        .await;
    assert_eq!(token(&shown.unwrap()), "access-3");
}

#[tokio::test]
async fn an_app_password_that_is_refused_is_trouble_until_it_works() {
    let fixture = Fixture::new();
    let accounts = &fixture.accounts;
    let home = Home::Upstream("imaps://mail.example.org".to_owned());
    let new = accounts.new_account(ALICE, home).unwrap();
    let brought = NewCredential::Password("app password".into());
    let account = accounts.enrol(new, brought, &Opens).await.unwrap().account;
    let admitted = Admitted {
        account,
        by: "phone".to_owned(),
        opener: Opener::default(),
    };
    let shown = accounts.credentials(&admitted).await.unwrap();
    for _ in 0..2 {
        assert_eq!(accounts.after_refusal(&admitted, &shown).await, Ok(None));
    }
    let dead = again(accounts, &admitted).await;
    assert!(dead.account.trouble.is_some());
    // It is still there, and is tried at the next login.
    assert_eq!(accounts.credentials(&dead).await, Ok(shown));
    accounts.worked(&dead).await;
    assert_eq!(stored(accounts).await.trouble, None);
}

#[tokio::test]
async fn a_provider_that_needs_nobody_is_asked_for_all_mailboxes_at_once() {
    let endpoint = TokenEndpoint::start().await;
    let provider = endpoint.provider("site", Grant::ClientCredentials);
    let mut config = config();
    config.providers.insert("site".to_owned(), provider);
    let fixture = Fixture::with(config);
    let accounts = &fixture.accounts;
    let home = Home::Provider("site".to_owned());
    let shown = accounts.provider_credentials(&home, ALICE).await.unwrap();
    accounts.provider_credentials(&home, "bob").await.unwrap();
    assert_eq!(endpoint.asked(), 1);
    // Refused for many mailboxes, it is exchanged once.
    let account = Account {
        home: home.clone(),
        ..Account::nobody(ALICE)
    };
    let admitted = Admitted {
        account,
        by: String::new(),
        opener: Opener::default(),
    };
    let newer = accounts.after_refusal(&admitted, &shown).await.unwrap();
    assert_eq!(token(&newer.clone().unwrap()), "access-2");
    let newer = newer.unwrap();
    assert_eq!(accounts.after_refusal(&admitted, &newer).await, Ok(None));
    // Who was refused with the old one a moment later has the same good of it.
    let mut bobs = admitted.clone();
    bobs.account.address = "bob".to_owned();
    let shown = shown.for_mailbox("bob".to_owned());
    let his = accounts.after_refusal(&bobs, &shown).await.unwrap();
    assert_eq!(his, Some(newer.clone().for_mailbox("bob".to_owned())));
    assert_eq!(endpoint.asked(), 2);
    // What is kept does while the provider fails for others.
    for other in ["x", "y", "z"] {
        let outage = Failure::Temporary("503".to_owned());
        let pauses = &accounts.renewals.pauses;
        pauses.failed("site", other, outage, None);
    }
    let kept = accounts.provider_credentials(&home, ALICE).await.unwrap();
    assert_eq!(kept, newer);
    assert_eq!(endpoint.asked(), 2);
    // Nobody else's home is let in so.
    for home in [Home::Gateway, Home::Provider("none".to_owned())] {
        let outcome = accounts.provider_credentials(&home, ALICE).await;
        assert!(matches!(outcome, Err(CredentialError::Misconfigured(_))));
    }
}

#[tokio::test]
async fn one_login_waits_for_a_provider_that_is_slow_and_the_others_have_what_is_kept() {
    let endpoint = TokenEndpoint::start().await;
    let provider = endpoint.provider("site", Grant::ClientCredentials);
    let mut config = config();
    config
        .providers
        .insert("site".to_owned(), Arc::clone(&provider));
    let fixture = Fixture::with(config);
    let accounts = &fixture.accounts;
    let home = Home::Provider("site".to_owned());
    let kept = accounts.provider_credentials(&home, ALICE).await.unwrap();
    let Entry::OAuth(client) = &provider.entry else {
        panic!("no client");
    };
    client.age_for_mailbox(ALICE);
    endpoint.shut().await;
    let first = tokio::spawn({
        let (accounts, home) = (accounts.clone(), home.clone());
        async move { accounts.provider_credentials(&home, ALICE).await }
    });
    endpoint.wait_for(2).await;
    let second = accounts.provider_credentials(&home, ALICE).await;
    assert_eq!(second, Ok(kept));
    endpoint.open();
    assert_eq!(token(&first.await.unwrap().unwrap()), "access-2");
}

#[test]
fn short_lives_are_renewed_in_the_middle() {
    let tokens = |life: i64| SealedTokens {
        refresh: None,
        access: serde_json::from_str("\"\"").unwrap(),
        expires_at: 1_000 + life,
        signed_in: 1_000,
        refreshed: 1_000,
        generation: 1,
        claim: None,
    };
    for (life, due) in [
        (3600, 4000),
        (1200, 1600),
        (300, 1150),
        (0, 1000),
        (-5, 995),
    ] {
        let tokens = tokens(life);
        assert!(!tokens.is_due(due - 1), "{life}");
        assert!(tokens.is_due(due), "{life}");
    }
}
