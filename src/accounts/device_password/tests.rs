//! Device passwords, and secrets that open only with one.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::super::testing::{Fixture, config, keys, opened, tokens};
use super::super::{Config, Verdict};
use super::*;

#[test]
fn a_generated_password_has_140_bits_and_no_letter_that_looks_like_another() {
    let mut seen = HashSet::new();
    for _ in 0..500 {
        let password = generate().unwrap();
        let groups: Vec<&str> = password.reveal().split('-').collect();
        assert!(
            groups.len() == 7 && groups.iter().all(|it| it.len() == 4),
            "{}",
            password.reveal()
        );
        let letters: String = groups.concat();
        assert!(letters.bytes().all(|it| LETTERS.contains(&it)));
        assert!(!letters.contains(['0', 'o', '1', 'l', 'O', 'I']));
        seen.insert(letters);
    }
    assert_eq!(seen.len(), 500);
    // Each letter as often as the others, in every place.
    let different: HashSet<u8> = LETTERS.iter().copied().collect();
    assert_eq!(different.len(), 32);
    for place in 0..28 {
        let found: HashSet<_> = seen.iter().map(|it| it.as_bytes()[place]).collect();
        assert!(found.len() > 24, "place {place}: {}", found.len());
    }
}

#[tokio::test]
async fn names_are_for_people() {
    let it = Fixture::new();
    let mut account = Account::nobody("alice");
    for name in [
        "",
        "  ",
        "a\nb",
        "a\u{1b}[31m",
        "a\u{202e}b",
        "a\u{200b}",
        "\0",
        &"x".repeat(65),
    ] {
        let before = account.clone();
        let error = it.accounts.add_device(&mut account, name, None, None).await;
        assert!(
            matches!(error, Err(AccountsError::Unsuitable(_))),
            "{name:?}"
        );
        assert_eq!(account, before);
    }
    for name in [
        "  phone ",
        "Ger\u{e4}t \u{1f4f1}",
        &"\u{e4}".repeat(64),
        "phone",
    ] {
        it.accounts
            .add_device(&mut account, name, None, None)
            .await
            .unwrap();
    }
    assert_eq!(account.devices[0].name, "phone");
    let ids: HashSet<_> = account.devices.iter().map(|it| &it.id).collect();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn there_are_only_so_many() {
    let it = Fixture::new();
    let mut account = Account::nobody("alice");
    for _ in 0..MOST_DEVICES {
        it.accounts
            .add_device(&mut account, "phone", None, None)
            .await
            .unwrap();
    }
    let more = it
        .accounts
        .add_device(&mut account, "phone", None, None)
        .await;
    assert!(
        matches!(more, Err(AccountsError::Unsuitable(_))),
        "{more:?}"
    );
    assert_eq!(account.devices.len(), MOST_DEVICES);
}

#[test]
fn a_chosen_password_is_worth_a_try() {
    let address = "alice.smith@example.org";
    let bad = [
        "",
        "hunter2",
        "elevenchars",
        "aaaaaaaaaaaaaaaaaaaa",
        "alice.smith@example.org",
        "Alice.Smith12345",
        "with\nline breaks",
        "with a NUL \0 in it",
        &"x1".repeat(101),
    ];
    for password in bad {
        let error = is_good(&Secret::from(password), address).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
    for password in [
        "twelve chars",
        " leading and trailing ",
        "\u{43f}\u{430}\u{440}\u{43e}\u{43b}\u{44c}-\u{43f}\u{430}\u{440}\u{43e}\u{43b}",
        &"xy".repeat(100),
    ] {
        is_good(&Secret::from(password), address).unwrap();
    }
}

/// An account with tokens that open only with the password that comes with it.
async fn locked(it: &Fixture, chosen: Option<&str>) -> (Account, Secret) {
    let mut account = Account::nobody("alice");
    it.accounts
        .set_tokens(&mut account, &tokens("old"))
        .unwrap();
    let chosen = chosen.map(Secret::from);
    let added = it
        .accounts
        .add_device(&mut account, "phone", chosen, None)
        .await;
    it.accounts.save(&mut account).await.unwrap();
    (account, added.unwrap().password)
}

#[tokio::test]
async fn locked_secrets_open_with_any_device_and_without_none() {
    let it = Fixture::locked();
    let chosen = "a long enough one";
    for (first, second) in [(None, Some(chosen)), (Some(chosen), None), (None, None)] {
        let _ = it.accounts.remove("alice").await.unwrap();
        let (mut account, password) = locked(&it, first).await;
        let open =
            |account: &Account, opener: &Opener| it.accounts.open_credential(account, opener);
        assert_eq!(open(&account, &Opener::default()), Err(VaultError::Locked));
        let admitted = it.admitted("alice", &password).await;
        assert_eq!(open(&account, &admitted.opener).unwrap(), opened("old"));

        // Another device needs the password of one that is there.
        let second = second.map(Secret::from);
        for by in [None, Some(Secret::from("wrong"))] {
            let before = account.clone();
            let added = it
                .accounts
                .add_device(&mut account, "laptop", second.clone(), by.as_ref())
                .await;
            let locked = AccountsError::Vault(VaultError::Locked);
            assert_eq!(added.unwrap_err(), locked);
            assert_eq!(account, before);
        }
        let added = it
            .accounts
            .add_device(&mut account, "laptop", second, Some(&password))
            .await;
        let added = added.unwrap();
        // Renewing needs none.
        it.accounts
            .set_tokens(&mut account, &tokens("new"))
            .unwrap();
        it.accounts.save(&mut account).await.unwrap();
        for password in [&password, &added.password] {
            let admitted = it.admitted("alice", password).await;
            assert_eq!(open(&account, &admitted.opener).unwrap(), opened("new"));
        }
        // A device that was revoked opens nothing, the other one still does.
        let id = account.devices[0].id.clone();
        assert!(it.accounts.revoke_device(&mut account, &id));
        assert!(!it.accounts.revoke_device(&mut account, &id));
        it.accounts.save(&mut account).await.unwrap();
        assert!(matches!(
            it.login("alice", &password).await,
            Verdict::Refused
        ));
        let admitted = it.admitted("alice", &added.password).await;
        assert_eq!(
            open(&admitted.account, &admitted.opener).unwrap(),
            opened("new")
        );
    }
}

#[tokio::test]
async fn the_gateways_keys_change_while_nobody_logs_in() {
    let it = Fixture::locked();
    let (_, password) = locked(&it, None).await;
    let it = it.again(Config {
        keys: Some(keys(&[2, 1])),
        ..config()
    });
    assert_eq!(it.accounts.rekey().await.unwrap().resealed, 1);
    let it = it.again(Config {
        keys: Some(keys(&[2])),
        ..config()
    });
    let admitted = it.admitted("alice", &password).await;
    let open = it
        .accounts
        .open_credential(&admitted.account, &admitted.opener);
    assert_eq!(open.unwrap(), opened("old"));
    // A password alone opens nothing.
    let it = it.again(Config {
        keys: Some(keys(&[3])),
        ..config()
    });
    let admitted = it.admitted("alice", &password).await;
    let open = it
        .accounts
        .open_credential(&admitted.account, &admitted.opener);
    assert!(matches!(open, Err(VaultError::AnotherKey(_))), "{open:?}");
}

#[tokio::test]
async fn an_account_without_devices_begins_anew() {
    let it = Fixture::locked();
    let (mut account, old) = locked(&it, None).await;
    let before = it.admitted("alice", &old).await.opener;
    let id = account.devices[0].id.clone();
    it.accounts.revoke_device(&mut account, &id);
    // What was sealed is lost, what is sealed now is not.
    let added = it
        .accounts
        .add_device(&mut account, "new", None, None)
        .await
        .unwrap();
    it.accounts.save(&mut account).await.unwrap();
    let admitted = it.admitted("alice", &added.password).await;
    for opener in [&admitted.opener, &Opener::default()] {
        let open = it.accounts.open_credential(&account, opener);
        assert_eq!(open, Err(VaultError::Locked));
    }
    it.accounts
        .set_tokens(&mut account, &tokens("new"))
        .unwrap();
    let open = it.accounts.open_credential(&account, &admitted.opener);
    assert_eq!(open.unwrap(), opened("new"));
    assert_eq!(
        it.accounts.open_credential(&account, &before),
        Err(VaultError::Locked)
    );

    // Tokens first, device then: they are not lost between.
    let id = account.devices[0].id.clone();
    it.accounts.revoke_device(&mut account, &id);
    it.accounts
        .set_tokens(&mut account, &tokens("newest"))
        .unwrap();
    let added = it
        .accounts
        .add_device(&mut account, "newest", None, None)
        .await
        .unwrap();
    it.accounts.save(&mut account).await.unwrap();
    let admitted = it.admitted("alice", &added.password).await;
    let open = it.accounts.open_credential(&account, &admitted.opener);
    assert_eq!(open.unwrap(), opened("newest"));
    assert_eq!(
        it.accounts.open_credential(&account, &Opener::default()),
        Err(VaultError::Locked)
    );
}

#[tokio::test]
async fn parts_of_a_lock_belong_to_their_account_and_device() {
    let it = Fixture::locked();
    let (mut alice, password) = locked(&it, None).await;
    let added = it
        .accounts
        .add_device(&mut alice, "laptop", None, Some(&password))
        .await;
    let other = added.unwrap().password;
    let ids: Vec<String> = alice.devices.iter().map(|it| it.id.clone()).collect();
    let lock = alice.lock.as_mut().unwrap();
    let keys = [0, 1].map(|place| lock.private_keys[&ids[place]].clone());
    for (id, key) in ids.iter().rev().zip(keys) {
        lock.private_keys.insert(id.clone(), key);
    }
    it.accounts.save(&mut alice).await.unwrap();
    for password in [&password, &other] {
        let admitted = it.admitted("alice", password).await;
        let open = it.accounts.open_credential(&alice, &admitted.opener);
        assert_eq!(open, Err(VaultError::Locked));
    }
    // Another's public key is not sealed to.
    let mut bob = Account::nobody("bob");
    it.accounts
        .add_device(&mut bob, "phone", None, None)
        .await
        .unwrap();
    let own = bob.lock.as_mut().unwrap();
    own.public_key = alice.lock.as_ref().unwrap().public_key.clone();
    let set = it.accounts.set_tokens(&mut bob, &tokens("bob"));
    assert_eq!(set, Err(VaultError::Damaged));
}
