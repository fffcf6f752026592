//! Accounts as a whole: found by any writing of their name, and overwritten by
//! nobody who has not seen them.

#![allow(clippy::unwrap_used)]

use super::testing::Fixture;
use super::*;

fn home(name: &str) -> Home {
    Home::Provider(name.to_owned())
}

#[tokio::test]
async fn an_account_is_found_however_its_name_is_written() {
    let fixture = Fixture::new();
    let it = &fixture.accounts;
    let mut account = Account::nobody("J\u{d6}RG@Example.ORG");
    account.home = home("one");
    it.save(&mut account).await.unwrap();
    assert_eq!(
        (account.version, account.address.as_str()),
        (1, "j\u{f6}rg@example.org")
    );
    for name in ["j\u{f6}rg@example.org", "J\u{f6}rg@EXAMPLE.org"] {
        assert_eq!(it.find(name).await.unwrap().as_ref(), Some(&account));
    }
    assert_eq!(it.find("jorg@example.org").await.unwrap(), None);
    assert_eq!(it.find("").await.unwrap(), None);
    let nobody = it.save(&mut Account::nobody("")).await;
    assert!(
        matches!(nobody, Err(AccountsError::Unsuitable(_))),
        "{nobody:?}"
    );
}

#[tokio::test]
async fn nobody_overwrites_what_he_has_not_seen() {
    let fixture = Fixture::new();
    let it = &fixture.accounts;
    let mut alice = Account::nobody("alice");
    let mut second = alice.clone();
    it.save(&mut alice).await.unwrap();
    let exists = AccountsError::Exists("alice".to_owned());
    assert_eq!(it.save(&mut second).await, Err(exists));
    let mut old = alice.clone();
    alice.home = home("one");
    it.save(&mut alice).await.unwrap();
    old.home = home("two");
    let changed = AccountsError::Changed("alice".to_owned());
    assert_eq!(it.save(&mut old).await, Err(changed.clone()));
    assert_eq!(it.find("alice").await.unwrap(), Some(alice.clone()));
    // Removed and made anew, it is another one.
    assert!(it.remove("Alice").await.unwrap());
    assert!(!it.remove("alice").await.unwrap());
    assert_eq!(it.save(&mut alice).await, Err(changed));
    it.save(&mut second).await.unwrap();
    assert!(it.save(&mut alice).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_counts() {
    let it = Fixture::new();
    it.account("alice").await;
    let before = it.accounts.find("alice").await.unwrap().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let accounts = it.accounts.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let change = accounts.change("ALICE", |account| {
                        account.rules.folders.push(format!("{number} {round}"));
                    });
                    change.await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let account = it.accounts.find("alice").await.unwrap().unwrap();
    let mut folders = account.rules.folders.clone();
    folders.sort();
    folders.dedup();
    assert_eq!((folders.len(), account.version), (40, before.version + 40));
    assert_eq!(account.devices, before.devices);

    // What changes nothing writes nothing.
    let (same, seen) = it
        .accounts
        .change("alice", |account| account.version)
        .await
        .unwrap();
    assert_eq!((same, seen), (account.clone(), account.version));
    let nobody = it.accounts.change("bob", |_| ()).await;
    assert_eq!(nobody, Err(AccountsError::Missing("bob".to_owned())));
}

#[tokio::test]
async fn a_row_that_is_no_account_is_an_error_and_stays() {
    let it = Fixture::new();
    let rows = [
        "{}",
        "[]",
        "{\"created\":1,\"home\":\"gateway\",\"credential\":\"provider\",\"later\":1}",
    ];
    for (row, number) in rows.into_iter().zip(0..) {
        let name = format!("user{number}");
        it.accounts
            .access
            .put_account(&name, 0, row.into())
            .await
            .unwrap();
        let unreadable = AccountsError::Unreadable(name.clone());
        assert_eq!(it.accounts.find(&name).await, Err(unreadable.clone()));
        let verdict = it
            .accounts
            .authenticate(&name, &Secret::from("x"), None)
            .await;
        assert_eq!(verdict.unwrap_err(), unreadable);
        assert_eq!(it.accounts.change(&name, |_| ()).await, Err(unreadable));
        let stored = it.accounts.access.account(&name).await.unwrap().unwrap();
        assert_eq!(&*stored.value, row.as_bytes());
    }
    // Others do not suffer.
    it.account("alice").await;
    let all = it.accounts.all().await.unwrap();
    let names: Vec<_> = all.iter().map(|account| account.address.as_str()).collect();
    assert_eq!(names, ["alice"]);
    // It can be removed.
    assert!(it.accounts.remove("user0").await.unwrap());
}
