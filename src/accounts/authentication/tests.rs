//! Who is admitted, and what it costs to refuse.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicU64;

use super::super::Device;
use super::super::testing::{Fixture, opened, tokens};
use super::*;

fn secret(text: &str) -> Secret {
    Secret::from(text)
}

#[tokio::test]
async fn a_generated_password_admits_however_it_is_typed() {
    let it = Fixture::new();
    let password = it.account("alice@example.org").await;
    let text = password.reveal();
    let written = [
        text.to_owned(),
        text.to_uppercase(),
        text.replace('-', ""),
        text.replace('-', " "),
        format!("{text} "),
    ];
    for typed in written {
        let admitted = it.admitted("Alice@Example.ORG", &Secret::new(typed)).await;
        assert_eq!(admitted.account.address, "alice@example.org");
        assert_eq!(admitted.by, admitted.account.devices[0].id);
    }
    for wrong in [
        "",
        "x",
        &text[1..],
        &format!("{text}a"),
        &text.replace(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'k', 'm', 'n'], "2"),
    ] {
        let verdict = it.login("alice@example.org", &secret(wrong)).await;
        assert!(matches!(verdict, Verdict::Refused), "{wrong}: {verdict:?}");
    }
    assert!(matches!(
        it.login("bob@example.org", &password).await,
        Verdict::Unknown
    ));
}

impl Fixture {
    /// Gives an account, which may be new, one more device.
    async fn device(&self, address: &str, chosen: Option<&str>) -> Secret {
        let account = self.accounts.find(address).await.unwrap();
        let mut account = account.unwrap_or_else(|| Account::nobody(address));
        let chosen = chosen.map(Secret::from);
        let added = self
            .accounts
            .add_device(&mut account, "device", chosen, None)
            .await;
        self.accounts.save(&mut account).await.unwrap();
        added.unwrap().password
    }

    async fn master(&self, address: &str) -> Secret {
        let password = self.device(address, None).await;
        let change = self
            .accounts
            .change(address, |account| account.master = true);
        change.await.unwrap();
        password
    }

    /// Quick and slow hashes since the last time.
    fn work(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::SeqCst);
        let work = &self.accounts.hashing.work;
        (take(&work.quick), take(&work.slow))
    }

    async fn refused(&self, address: &str, password: &str, as_whom: Option<&str>) {
        let verdict = self
            .accounts
            .authenticate(address, &secret(password), as_whom)
            .await;
        assert!(
            !matches!(verdict.unwrap(), Verdict::Admitted(_)),
            "{address}"
        );
    }
}

#[tokio::test]
async fn a_chosen_password_is_taken_as_it_is() {
    let it = Fixture::new();
    let chosen = " Correct-Horse \u{e9} ";
    it.device("alice", Some(chosen)).await;
    it.device("alice", Some("another good one")).await;
    it.admitted("alice", &secret(chosen)).await;
    it.admitted("ALICE", &secret("another good one")).await;
    for wrong in [
        chosen.trim(),
        &chosen.to_lowercase(),
        "another good on",
        "anothergoodone",
        "",
    ] {
        it.refused("alice", wrong, None).await;
    }
}

#[tokio::test]
async fn each_device_has_its_own_password() {
    let it = Fixture::new();
    let mut passwords = Vec::new();
    for number in 0..4 {
        let chosen = format!("a chosen password {number}");
        passwords.push(
            it.device(
                "alice",
                Some(&chosen)
                    .filter(|_| number % 2 == 0)
                    .map(|it| it.as_str()),
            )
            .await,
        );
    }
    let mut devices = Vec::new();
    for password in &passwords {
        devices.push(it.admitted("alice", password).await.by);
    }
    let account = it.accounts.find("alice").await.unwrap().unwrap();
    let ids: Vec<_> = account
        .devices
        .iter()
        .map(|device| device.id.clone())
        .collect();
    assert_eq!(devices, ids);
    // One is taken away: the others stay.
    let change = it.accounts.change("alice", |account| {
        it.accounts.revoke_device(account, &ids[2])
    });
    assert!(change.await.unwrap().1);
    for (password, place) in passwords.iter().zip(0..) {
        match it.login("alice", password).await {
            Verdict::Admitted(admitted) => assert!(place != 2 && admitted.by == ids[place]),
            _ => assert_eq!(place, 2),
        }
    }
}

#[tokio::test]
async fn to_refuse_is_the_same_work_for_everybody() {
    let it = Fixture::new();
    it.account("generated").await;
    for _ in 0..5 {
        it.device("several", None).await;
    }
    let mut bare = Account::nobody("bare");
    it.accounts.save(&mut bare).await.unwrap();
    it.master("master").await;
    let names = [
        "generated",
        "several",
        "bare",
        "master",
        "nobody",
        "",
        "chosen",
        "both",
    ];
    let works = async || {
        let mut works = std::collections::BTreeSet::new();
        for name in names {
            for (password, whom) in [
                ("wrong", None),
                ("", None),
                ("wrong", Some("several")),
                ("wrong", Some("nobody")),
            ] {
                it.work();
                it.refused(name, password, whom).await;
                works.insert(it.work());
            }
        }
        works.into_iter().collect::<Vec<_>>()
    };
    let quick = MOST_DEVICES as u64;
    assert_eq!(works().await, [(quick, 0)]);
    // As soon as there is a chosen password, whoever has it.
    it.device("chosen", Some("a chosen password")).await;
    for _ in 0..3 {
        it.device("both", None).await;
        it.device("both", Some("a chosen password")).await;
    }
    it.refused("chosen", "wrong", None).await;
    assert_eq!(works().await, [(quick, 1)]);
    // It is found out at the first refusal, too.
    let it = it.again(super::super::testing::config());
    it.refused("nobody", "wrong", None).await;
    assert_eq!(it.work(), (quick, 1));
}

#[tokio::test]
async fn whoever_has_a_generated_password_waits_for_no_slow_hash() {
    let it = Fixture::new();
    it.device("alice", Some("a chosen password")).await;
    let password = it.device("alice", None).await;
    it.work();
    it.admitted("alice", &password).await;
    assert_eq!(it.work(), (MOST_DEVICES as u64, 0));
}

#[tokio::test]
async fn a_flood_of_slow_hashes_is_turned_away() {
    let it = std::sync::Arc::new(Fixture::new());
    it.device("alice", Some("a chosen password")).await;
    let password = it.device("bob", None).await;
    let flood: Vec<_> = (0..150)
        .map(|_| {
            let it = std::sync::Arc::clone(&it);
            tokio::spawn(async move {
                it.accounts
                    .authenticate("alice", &secret("wrong"), None)
                    .await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    // The owner of a generated password gets in meanwhile.
    it.admitted("bob", &password).await;
    let (mut refused, mut busy) = (0, 0);
    for task in flood {
        match task.await.unwrap() {
            Ok(Verdict::Refused) => refused += 1,
            Err(AccountsError::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(busy > 0 && refused > 0, "{refused} refused, {busy} busy");
    it.admitted("alice", &secret("a chosen password")).await;
}

#[tokio::test]
async fn a_master_logs_in_as_others_and_nobody_else_does() {
    let it = Fixture::new();
    let alice = it.account("alice").await;
    it.account("bob").await;
    let master = it.master("master@example.org").await;
    let as_whom = async |user: &str, password: &Secret, whom: &str| {
        it.accounts
            .authenticate(user, password, Some(whom))
            .await
            .unwrap()
    };
    match as_whom("Master@example.org", &master, "BOB").await {
        Verdict::Admitted(admitted) => {
            assert_eq!(admitted.account.address, "bob");
            let masters = it.accounts.find("master@example.org").await;
            assert_eq!(admitted.by, masters.unwrap().unwrap().devices[0].id);
        }
        other => panic!("{other:?}"),
    }
    for (user, password, whom) in [
        ("alice", &alice, "bob"),
        ("master@example.org", &alice, "bob"),
        ("master@example.org", &master, "nobody"),
        ("nobody", &master, "bob"),
    ] {
        let verdict = as_whom(user, password, whom).await;
        assert!(!matches!(verdict, Verdict::Admitted(_)), "{user} as {whom}");
    }
    // As himself.
    assert!(matches!(
        as_whom("alice", &alice, "Alice").await,
        Verdict::Admitted(_)
    ));
    for whom in [None, Some("master@example.org")] {
        let verdict = it
            .accounts
            .authenticate("master@example.org", &master, whom)
            .await;
        assert!(matches!(verdict.unwrap(), Verdict::Refused), "{whom:?}");
    }
    let change = it
        .accounts
        .change("master@example.org", |account| account.disabled = true);
    change.await.unwrap();
    assert!(matches!(
        as_whom("master@example.org", &master, "bob").await,
        Verdict::Refused
    ));
}

#[tokio::test]
async fn a_master_opens_no_secret_that_is_locked() {
    let it = Fixture::locked();
    let mut alice = Account::nobody("alice");
    it.accounts
        .set_tokens(&mut alice, &tokens("alice"))
        .unwrap();
    it.accounts.save(&mut alice).await.unwrap();
    let password = it.device("alice", None).await;
    let master = it.master("master").await;
    let verdict = it
        .accounts
        .authenticate("master", &master, Some("alice"))
        .await;
    let Verdict::Admitted(admitted) = verdict.unwrap() else {
        panic!("refused");
    };
    let open = it
        .accounts
        .open_credential(&admitted.account, &admitted.opener);
    assert_eq!(open, Err(super::super::VaultError::Locked));
    let own = it.admitted("alice", &password).await;
    let open = it.accounts.open_credential(&own.account, &own.opener);
    assert_eq!(open.unwrap(), opened("alice"));
}

#[tokio::test]
async fn a_disabled_account_is_admitted_as_such() {
    let it = Fixture::new();
    let password = it.account("alice").await;
    it.accounts
        .change("alice", |account| account.disabled = true)
        .await
        .unwrap();
    assert!(it.admitted("alice", &password).await.account.disabled);
}

#[tokio::test]
async fn verifiers_that_are_broken_admit_nobody() {
    let it = Fixture::new();
    let password = it.account("alice").await;
    it.device("alice", Some("a chosen password")).await;
    let account = it.accounts.find("alice").await.unwrap().unwrap();
    let Verifier::Chosen(phc) = account.devices[1].verifier.clone() else {
        panic!("{account:?}");
    };
    let generated = |salt: &str, digest: &str| Verifier::Generated {
        salt: salt.to_owned(),
        digest: digest.to_owned(),
    };
    let verifiers = [
        generated("", ""),
        generated("AAAA", ""),
        generated("?", "?"),
        Verifier::Chosen(String::new()),
        Verifier::Chosen("$argon2id$v=19$m=19456,t=2,p=1$".to_owned()),
        Verifier::Chosen(phc.replace("m=19456", "m=4194304")),
        Verifier::Chosen(phc.replace("t=2", "t=4000000")),
        Verifier::Chosen(phc.replace("argon2id", "argon2i")),
        Verifier::Chosen(phc.replace("v=19", "v=16")),
        Verifier::Chosen(phc[..phc.len() - 20].to_owned()),
    ];
    for verifier in verifiers {
        let text = format!("{verifier:?}");
        let change = it.accounts.change("alice", move |account| {
            account.devices = vec![Device {
                verifier: verifier.clone(),
                ..account.devices[0].clone()
            }];
        });
        change.await.unwrap();
        for shown in [&password, &secret("a chosen password"), &secret("")] {
            let verdict = it.login("alice", shown).await;
            assert!(matches!(verdict, Verdict::Refused), "{text}");
        }
    }
}

#[tokio::test]
async fn when_devices_were_used_is_known_soon_and_later() {
    let it = Fixture::new();
    let password = it.account("alice").await;
    assert!(it.accounts.last_used("alice").await.unwrap().is_empty());
    let admitted = it.admitted("alice", &password).await;
    it.accounts.used("Alice", &admitted);
    let used = it.accounts.last_used("ALICE").await.unwrap();
    assert_eq!(used.keys().collect::<Vec<_>>(), [&admitted.by]);
    assert!(used[&admitted.by] >= admitted.account.devices[0].created);
}

#[tokio::test]
async fn a_thousand_wrong_passwords_write_nothing() {
    let it = Fixture::new();
    let mut alice = Account::nobody("alice");
    it.accounts
        .set_tokens(&mut alice, &tokens("alice"))
        .unwrap();
    it.accounts.save(&mut alice).await.unwrap();
    let password = it.device("alice", None).await;
    let file = it.folder.path().join("durable.redb");
    let before = std::fs::read(&file).unwrap();
    for number in 0..1000 {
        let name = ["alice", "nobody"][number % 2];
        it.refused(name, &format!("wrong {number}"), None).await;
    }
    assert!(std::fs::read(&file).unwrap() == before);
    let admitted = it.admitted("alice", &password).await;
    let open = it
        .accounts
        .open_credential(&admitted.account, &admitted.opener);
    assert_eq!(open.unwrap(), opened("alice"));
    assert!(std::fs::read(&file).unwrap() == before);
}
