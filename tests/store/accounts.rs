//! Accounts and their tokens: kill -9 while they are written, backups, and a key
//! that is another.

use std::sync::Arc;

use popgate::accounts::{
    Accounts, AccountsError, Config, Home, KeyRing, OpenedCredential, Opener, PlainTokens,
    VaultError, Verdict,
};
use popgate::secret::Secret;
use popgate::store::Access;

use super::support::PATIENCE;
use super::*;

const ADDRESS: &str = "alice@example.org";

fn accounts(access: Access, keys: &Secret) -> Accounts {
    let config = Config {
        keys: Some(KeyRing::parse(keys).unwrap()),
        locked_by_password: false,
        providers: Default::default(),
        gateway_upstream: None,
        alarm: Default::default(),
    };
    Accounts::new(access, config, Arc::default())
}

/// Tokens of which one can tell when they were got.
fn tokens(number: u64) -> PlainTokens {
    PlainTokens {
        // Of many lengths, some over several pages of the file.
        refresh: Some(Secret::new(format!(
            "refresh {number} {}",
            "r".repeat(usize::try_from(number * 37 % 6000).unwrap())
        ))),
        access: Secret::new(format!("access {number}")),
        expires_at: 2_000_000_000,
        signed_in: 1,
        refreshed: i64::try_from(number).unwrap(),
    }
}

/// A new account with the first tokens, and its device password.
async fn enrol(accounts: &Accounts) -> Secret {
    let home = Home::Provider("somewhere".to_owned());
    let mut account = accounts.new_account(ADDRESS, home).unwrap();
    accounts.set_tokens(&mut account, &tokens(0)).unwrap();
    let added = accounts.add_device(&mut account, "phone", None, None).await;
    accounts.save(&mut account).await.unwrap();
    added.unwrap().password
}

/// Which tokens an account has; they open, and both are of the same time.
async fn generation(accounts: &Accounts) -> u64 {
    let account = accounts.find(ADDRESS).await.unwrap().unwrap();
    let opened = accounts.open_credential(&account, &Opener::default());
    let OpenedCredential::OAuth { refresh, access } = opened.unwrap() else {
        panic!("no tokens");
    };
    let number = access.reveal().strip_prefix("access ").unwrap();
    let number = number.parse().unwrap();
    assert_eq!(refresh, tokens(number).refresh);
    number
}

#[test]
fn tokens_survive_a_kill_wherever_it_comes() {
    const ROUNDS: u64 = 200;
    let keys = KeyRing::generate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password = wait(async {
        let store = Store::open(folder.path()).unwrap();
        enrol(&accounts(Access::Local(store), &keys)).await
    });
    let (mut stored, mut between) = (0, 0);
    for round in 0..ROUNDS {
        let mut gateway = serve(folder.path());
        let access = Access::open(folder.path()).unwrap();
        assert!(matches!(access, Access::Remote(_)));
        let accounts_there = accounts(access, &keys);
        let (written, killer) = std::sync::mpsc::channel();
        let killed = std::thread::spawn(move || {
            for _ in 0..1 + round % 4 {
                killer.recv_timeout(PATIENCE).unwrap();
            }
            // Somewhere in the write that follows.
            std::thread::sleep(std::time::Duration::from_micros(round * 37 % 3000));
            gateway.kill();
        });
        let mut asked = stored;
        let confirmed = wait(async {
            let mut confirmed = stored;
            loop {
                asked += 1;
                let next = tokens(asked);
                let change = accounts_there.change(ADDRESS, |account| {
                    accounts_there.set_tokens(account, &next).unwrap();
                });
                match change.await {
                    Ok(_) => confirmed = asked,
                    Err(_) => break confirmed,
                }
                let _ = written.send(());
            }
        });
        killed.join().unwrap();

        // The last that was confirmed, or the one that was being written.
        let found = wait(async {
            let store = Store::open(folder.path()).unwrap();
            let accounts = accounts(Access::Local(store), &keys);
            let verdict = accounts.authenticate(ADDRESS, &password, None).await;
            assert!(matches!(verdict.unwrap(), Verdict::Admitted(_)));
            generation(&accounts).await
        });
        assert!(
            found == confirmed || found == confirmed + 1,
            "round {round}: {found}, and {confirmed} was confirmed"
        );
        between += u64::from(found > confirmed);
        stored = found;
    }
    assert!(stored >= ROUNDS);
    println!("{stored} writes, {between} of them in the file though not confirmed");
}

#[test]
fn a_backup_brings_accounts_back_where_the_key_is() {
    let keys = KeyRing::generate().unwrap();
    let (folder, _) = filled();
    let password = wait(async {
        let store = Store::open(folder.path()).unwrap();
        enrol(&accounts(Access::Local(store), &keys)).await
    });
    let backup = folder.path().join("backup");
    let (from, to) = (folder.path().to_str().unwrap(), backup.to_str().unwrap());
    let exported = state(&["export", to, "--state", from]);
    assert!(
        exported.stderr.contains(", 1 accounts"),
        "{}",
        exported.stderr
    );
    exported.succeeded();
    let text = fs::read_to_string(&backup).unwrap();
    assert!(text.contains(ADDRESS) && !text.contains("refresh 0"));

    let new = tempfile::tempdir().unwrap();
    let imported = state(&["import", to, "--state", new.path().to_str().unwrap()]);
    assert!(
        imported.stderr.contains(", 1 accounts"),
        "{}",
        imported.stderr
    );
    imported.succeeded();
    wait(async {
        let store = Store::open(new.path()).unwrap();
        let own = accounts(Access::Local(store.clone()), &keys);
        assert_eq!(generation(&own).await, 0);
        let verdict = own.authenticate(ADDRESS, &password, None).await.unwrap();
        assert!(matches!(verdict, Verdict::Admitted(_)));

        // With another key it says so, and names the one that is missing.
        let id = KeyRing::parse(&keys)
            .unwrap()
            .ids()
            .next()
            .unwrap()
            .to_owned();
        let another = KeyRing::generate().unwrap();
        let others = accounts(Access::Local(store), &another);
        let account = others.find(ADDRESS).await.unwrap().unwrap();
        let error = others
            .open_credential(&account, &Opener::default())
            .unwrap_err();
        assert_eq!(error, VaultError::AnotherKey(id.clone()));
        let rekeyed = others.rekey().await.unwrap();
        let failed = AccountsError::Vault(VaultError::AnotherKey(id));
        assert_eq!(rekeyed.failed, [(ADDRESS.to_owned(), failed)]);
        // Nothing was lost by that.
        assert_eq!(generation(&own).await, 0);
    });
}
