//! Secrets in accounts: nobody gets another's, and none is lost.

#![allow(clippy::unwrap_used)]

use super::super::testing::{Fixture, config, keys, opened, tokens};
use super::super::{Config, Verdict};
use super::*;

fn account(address: &str, home: &str) -> Account {
    let mut account = Account::nobody(address);
    account.home = Home::Provider(home.to_owned());
    account
}

fn none() -> Opener {
    Opener::default()
}

#[tokio::test]
async fn each_kind_of_secret_comes_back() {
    let it = Fixture::new();
    let accounts = &it.accounts;
    let mut alice = account("alice", "one");
    let opened_as = |account: &Account| accounts.open_credential(account, &none()).unwrap();
    assert_eq!(opened_as(&alice), OpenedCredential::Provider);
    let secret = Secret::from("p\u{e9} ss");
    accounts.set_password(&mut alice, &secret).unwrap();
    assert_eq!(
        opened_as(&alice),
        OpenedCredential::Password(secret.clone())
    );
    accounts.set_api_token(&mut alice, &secret).unwrap();
    assert_eq!(opened_as(&alice), OpenedCredential::ApiToken(secret));
    for generation in 1..4 {
        let name = format!("alice {generation}");
        accounts.set_tokens(&mut alice, &tokens(&name)).unwrap();
        assert_eq!(opened_as(&alice), opened(&name));
        let Credential::OAuth(sealed) = &alice.credential else {
            panic!("{alice:?}");
        };
        assert_eq!(sealed.generation, generation);
        assert_eq!(sealed.expires_at, tokens("").expires_at);
    }
    let without = PlainTokens {
        refresh: None,
        ..tokens("alice")
    };
    accounts.set_tokens(&mut alice, &without).unwrap();
    accounts.save(&mut alice).await.unwrap();
    let stored = accounts.find("alice").await.unwrap().unwrap();
    assert_eq!(stored, alice);
    let expected = OpenedCredential::OAuth {
        refresh: None,
        access: without.access,
    };
    assert_eq!(opened_as(&stored), expected);
    // Nothing of it in the clear.
    let row = serde_json::to_string(&stored).unwrap();
    assert!(!row.contains("alice"), "{row}");
}

#[tokio::test]
async fn a_secret_that_was_moved_opens_for_nobody() {
    let it = Fixture::new();
    let accounts = &it.accounts;
    let damaged = |account: &Account, what: &str| {
        let opened = accounts.open_credential(account, &none());
        assert_eq!(opened, Err(VaultError::Damaged), "{what}");
    };
    let mut alice = account("alice", "one");
    accounts.set_tokens(&mut alice, &tokens("alice")).unwrap();
    let first = alice.clone();
    accounts.set_tokens(&mut alice, &tokens("alice")).unwrap();

    let mut bob = account("bob", "one");
    bob.credential = alice.credential.clone();
    damaged(&bob, "another account");
    for home in [
        Home::Gateway,
        Home::Provider("two".into()),
        Home::Upstream("one".into()),
    ] {
        let mut elsewhere = alice.clone();
        elsewhere.home = home;
        damaged(&elsewhere, "another home");
    }
    let (Credential::OAuth(old), Credential::OAuth(new)) = (&first.credential, &alice.credential)
    else {
        panic!("{alice:?}");
    };
    let mut mixed = vec![old.clone(), old.clone(), new.clone(), new.clone()];
    mixed[0].generation = new.generation;
    mixed[1].access = new.access.clone();
    mixed[2].refresh = old.refresh.clone();
    mixed[3].refresh = Some(new.access.clone());
    for tokens in mixed {
        let mut alice = alice.clone();
        alice.credential = Credential::OAuth(tokens);
        damaged(&alice, "another generation or purpose");
    }
    for credential in [
        Credential::Password(new.access.clone()),
        Credential::ApiToken(new.access.clone()),
    ] {
        let mut alice = alice.clone();
        alice.credential = credential;
        damaged(&alice, "another purpose");
    }
}

#[tokio::test]
async fn rows_that_were_swapped_admit_nobody() {
    let it = Fixture::new();
    let (alice, bob) = (it.account("alice").await, it.account("bob").await);
    for (name, other) in [("alice", "bob"), ("bob", "alice")] {
        let row = it.accounts.access.account(name).await.unwrap().unwrap();
        let other = it.accounts.access.account(other).await.unwrap().unwrap();
        let put = it
            .accounts
            .access
            .put_account(name, row.version, other.value.to_vec());
        put.await.unwrap();
    }
    for name in ["alice", "bob"] {
        for password in [&alice, &bob] {
            let verdict = it.login(name, password).await;
            // The second round has put alice's old row nowhere: bob has his own again.
            let is_own = name == "bob" && password == &bob;
            match verdict {
                Verdict::Admitted(_) => assert!(is_own, "{name}"),
                Verdict::Refused => assert!(!is_own, "{name}"),
                Verdict::Unknown => panic!("{name}"),
            }
        }
    }
}

#[tokio::test]
async fn without_a_key_there_is_no_secret() {
    let it = Fixture::with(Config {
        keys: None,
        ..config()
    });
    let mut alice = account("alice", "one");
    let set = it.accounts.set_tokens(&mut alice, &tokens("alice"));
    assert_eq!(set, Err(VaultError::NoKey));
    assert!(it.accounts.missing_keys().await.unwrap().is_empty());
    assert_eq!(alice.credential, Credential::Provider);
    // An account that needs none works.
    let password = it.account("alice").await;
    it.admitted("alice", &password).await;
}

#[tokio::test]
async fn keys_are_changed_while_accounts_are_used() {
    let it = Fixture::new();
    for number in 0..30 {
        let address = format!("user{number}");
        let mut account = account(&address, "one");
        it.accounts
            .set_tokens(&mut account, &tokens(&address))
            .unwrap();
        it.accounts.save(&mut account).await.unwrap();
    }
    it.account("nothing").await;
    let it = it.again(Config {
        keys: Some(keys(&[2, 1])),
        ..config()
    });
    let renewed = async {
        for number in 0..30 {
            let address = format!("user{number}");
            let change = it.accounts.change(&address, |account| {
                it.accounts
                    .set_tokens(account, &tokens(&format!("new {address}")))
                    .unwrap();
            });
            change.await.unwrap();
        }
    };
    let (rekeyed, ()) = tokio::join!(it.accounts.rekey(), renewed);
    let rekeyed = rekeyed.unwrap();
    assert_eq!(rekeyed.failed, []);
    assert_eq!(rekeyed.resealed + rekeyed.current, 31);
    // What was renewed is under the new key already.
    let again = it.accounts.rekey().await.unwrap();
    assert_eq!((again.resealed, again.current), (0, 31));
    let it = it.again(Config {
        keys: Some(keys(&[2])),
        ..config()
    });
    for number in 0..30 {
        let address = format!("user{number}");
        let account = it.accounts.find(&address).await.unwrap().unwrap();
        let found = it.accounts.open_credential(&account, &none()).unwrap();
        assert_eq!(found, opened(&format!("new {address}")));
    }
}

#[tokio::test]
async fn what_cannot_be_resealed_stays_as_it_is() {
    let it = Fixture::new();
    for address in ["alice", "bob"] {
        let mut account = account(address, "one");
        it.accounts
            .set_tokens(&mut account, &tokens(address))
            .unwrap();
        it.accounts.save(&mut account).await.unwrap();
    }
    assert!(it.accounts.missing_keys().await.unwrap().is_empty());
    let before = it.accounts.find("alice").await.unwrap();
    it.accounts
        .change("bob", |bob| bob.home = Home::Gateway)
        .await
        .unwrap();
    // The old key is missing.
    let it = it.again(Config {
        keys: Some(keys(&[2])),
        ..config()
    });
    let id = keys(&[1]).ids().next().unwrap().to_owned();
    let missing = it.accounts.missing_keys().await.unwrap();
    assert_eq!(missing.into_iter().collect::<Vec<_>>(), [(id, 2)]);
    let rekeyed = it.accounts.rekey().await.unwrap();
    assert_eq!((rekeyed.resealed, rekeyed.failed.len()), (0, 2));
    let reason = rekeyed.failed[0].1.to_string();
    assert!(
        reason.contains(keys(&[1]).ids().next().unwrap()),
        "{reason}"
    );
    assert_eq!(it.accounts.find("alice").await.unwrap(), before);
    let it = it.again(Config {
        keys: Some(keys(&[2, 1])),
        ..config()
    });
    let rekeyed = it.accounts.rekey().await.unwrap();
    assert_eq!(rekeyed.resealed, 1);
    let damaged = AccountsError::Vault(VaultError::Damaged);
    assert_eq!(rekeyed.failed, [("bob".to_owned(), damaged)]);
}
