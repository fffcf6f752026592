//! Who is dead, who is due, and who is told of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::accounts::testing::{Fixture, TokenEndpoint, config, tokens};
use crate::accounts::{Alarm, Home};
use crate::oauth2::Grant;

const DAY: i64 = 24 * 3600;

/// An account with tokens that were got so many seconds ago.
fn account(accounts: &Accounts, address: &str, age: i64) -> Account {
    let mut account = accounts
        .new_account(address, Home::Provider("mail".to_owned()))
        .unwrap();
    let mut tokens = tokens(address);
    tokens.refreshed = now() - age;
    tokens.expires_at = tokens.refreshed + 3600;
    accounts.set_tokens(&mut account, &tokens).unwrap();
    account
}

fn dead(account: &Account, since: i64) -> Account {
    Account {
        trouble: Some(Trouble {
            since,
            reason: "revoked".to_owned(),
            told: false,
        }),
        ..account.clone()
    }
}

#[tokio::test]
async fn idle_tokens_are_renewed_within_a_week_and_not_all_at_once() {
    let fixture = Fixture::new();
    let now = now();
    let due = |address: &str, age: i64| {
        let account = account(&fixture.accounts, address, age);
        account.idle_need(now - 600, now).is_some()
    };
    let due_after = |days: i64, hours: i64| {
        let age = days * DAY + hours * 3600;
        (0..100)
            .filter(|number| due(&format!("user{number}"), age))
            .count()
    };
    assert_eq!(due_after(5, 23), 0);
    assert!((20..80).contains(&due_after(6, 12)));
    assert_eq!(due_after(7, 0), 100);
}

#[tokio::test]
async fn the_dead_are_asked_about_once_a_day_however_often_popgate_starts() {
    let fixture = Fixture::new();
    let since = 1_000_000;
    let account = dead(&account(&fixture.accounts, "alice", 0), since);
    let asked = |from: i64, to: i64| account.idle_need(since + from, since + to).is_some();
    assert!(!asked(0, 600));
    assert!(!asked(-600, 600));
    assert!(asked(DAY - 300, DAY + 300));
    assert!(!asked(DAY + 300, DAY + 900));
    assert!(asked(5 * DAY - 1, 5 * DAY));
}

#[tokio::test]
async fn nobody_renews_what_needs_a_device_password_or_is_shut() {
    let fixture = Fixture::locked();
    let accounts = &fixture.accounts;
    let old = account(accounts, "alice", 30 * DAY);
    assert!(old.idle_need(0, now()).is_some());
    let shut = Account {
        disabled: true,
        ..old.clone()
    };
    assert!(shut.idle_need(0, now()).is_none());
    let mut locked = old.clone();
    let added = accounts.add_device(&mut locked, "phone", None, None).await;
    added.unwrap();
    assert!(locked.lock.is_some() && locked.idle_need(0, now()).is_none());
    assert_eq!(locked.token_state(now()), TokenState::Locked);
}

#[tokio::test]
async fn a_round_renews_the_idle_and_asks_about_the_dead() {
    let endpoint = TokenEndpoint::start().await;
    endpoint.never_rotates();
    let mut config = config();
    let provider = endpoint.provider("mail", Grant::User);
    config.providers.insert("mail".to_owned(), provider);
    let fixture = Fixture::with(config);
    let accounts = &fixture.accounts;
    let refresh = endpoint.sign_in(true).refresh;
    let mut all = [("idle", 8 * DAY), ("dead", 8 * DAY), ("busy", DAY)].map(|(name, age)| {
        let mut account = account(accounts, name, age);
        let mut tokens = tokens(name);
        tokens.refresh = refresh.clone();
        tokens.refreshed = now() - age;
        accounts.set_tokens(&mut account, &tokens).unwrap();
        account
    });
    all[1] = dead(&all[1], now() - DAY);
    for account in &mut all {
        accounts.save(account).await.unwrap();
    }
    accounts.renew_due(now() - 600, now()).await;
    assert_eq!(endpoint.asked(), 2);
    for (address, is_renewed) in [("idle", true), ("dead", true), ("busy", false)] {
        let row = accounts.find(address).await.unwrap().unwrap();
        assert_eq!(row.trouble, None, "{address}");
        let Credential::OAuth(tokens) = row.credential else {
            panic!("{address}");
        };
        assert_eq!(now() - tokens.refreshed < DAY, is_renewed, "{address}");
    }
    accounts.renew_due(now() - 600, now()).await;
    assert_eq!(endpoint.asked(), 2);
}

#[tokio::test]
async fn states_in_words() {
    let fixture = Fixture::new();
    let accounts = &fixture.accounts;
    let state = |account: &Account| account.token_state(now());
    let good = account(accounts, "alice", 2 * 3600);
    assert_eq!(state(&good), TokenState::Ok, "it is renewed at a login");
    let neglected = account(accounts, "alice", 9 * DAY);
    assert_eq!(state(&neglected), TokenState::Expiring);
    let mut fixed = good.clone();
    let mut tokens = tokens("alice");
    tokens.refresh = None;
    tokens.expires_at = now() + 30 * DAY;
    accounts.set_tokens(&mut fixed, &tokens).unwrap();
    assert_eq!(state(&fixed), TokenState::Ok);
    tokens.expires_at = now() + 3 * DAY;
    accounts.set_tokens(&mut fixed, &tokens).unwrap();
    assert_eq!(state(&fixed), TokenState::Expiring);
    assert_eq!(state(&dead(&good, 1)), TokenState::Refused);
    let shut = Account {
        disabled: true,
        ..dead(&good, 1)
    };
    assert_eq!(state(&shut), TokenState::Disabled);
    let mut bare = good.clone();
    bare.credential = Credential::Provider;
    assert_eq!(state(&bare), TokenState::Provider);
    accounts.set_password(&mut bare, &"app".into()).unwrap();
    assert_eq!(state(&bare), TokenState::Ok);
}

#[tokio::test(start_paused = true)]
async fn each_death_is_told_until_somebody_knows_and_then_its_end() {
    let fixture = Fixture::new();
    let alice = account(&fixture.accounts, "alice", 0);
    let bob = account(&fixture.accounts, "bob", 0);
    let mut alarms = Alarms::default();
    let telling = RefCell::new(VecDeque::new());
    let told = |alarms: &mut Alarms, all: &[Account]| {
        alarms.compare(all, None);
        let mut told = Vec::new();
        while let Some(message) = alarms.next() {
            told.push((message.address.clone(), message.event));
            telling.borrow_mut().push_back(message);
        }
        told
    };
    let ended = |alarms: &mut Alarms, is_told: bool| {
        let message = telling.borrow_mut().pop_front().unwrap();
        alarms.ended(&message, is_told);
    };
    let died = vec![("alice".to_owned(), Event::SignInNeeded)];
    let cured = vec![("alice".to_owned(), Event::Cured)];
    assert_eq!(told(&mut alarms, &[alice.clone(), bob.clone()]), []);
    let all = [dead(&alice, 5), bob.clone()];
    assert_eq!(told(&mut alarms, &all), died);
    assert_eq!(told(&mut alarms, &all), [], "it is being told");
    ended(&mut alarms, false);
    assert_eq!(told(&mut alarms, &all), []);
    tokio::time::advance(AGAIN).await;
    assert_eq!(told(&mut alarms, &all), died);
    ended(&mut alarms, true);
    let mut known = dead(&alice, 5);
    if let Some(trouble) = &mut known.trouble {
        trouble.told = true;
    }
    assert_eq!(told(&mut alarms, &[known.clone(), bob.clone()]), []);
    tokio::time::advance(10 * AGAIN).await;
    assert_eq!(told(&mut alarms, &[known.clone(), bob.clone()]), []);
    assert_eq!(told(&mut alarms, &[alice.clone(), bob.clone()]), cured);
    ended(&mut alarms, true);
    // Another death, cured while it is being told: one after the other.
    assert_eq!(told(&mut alarms, &[dead(&alice, 9)]), died);
    let well = std::slice::from_ref(&alice);
    assert_eq!(told(&mut alarms, well), []);
    ended(&mut alarms, true);
    assert_eq!(told(&mut alarms, well), cured);
    ended(&mut alarms, true);
    // Cured before anybody knew: nothing to tell.
    assert_eq!(told(&mut alarms, &[dead(&alice, 12)]), died);
    ended(&mut alarms, false);
    assert_eq!(told(&mut alarms, well), []);
    // Dead again while it could not be told of the death before: that one is old news.
    assert_eq!(told(&mut alarms, &[dead(&alice, 20)]), died);
    let unknown = dead(&alice, 21);
    assert_eq!(told(&mut alarms, std::slice::from_ref(&unknown)), []);
    ended(&mut alarms, false);
    assert_eq!(told(&mut alarms, std::slice::from_ref(&unknown)), died);
    ended(&mut alarms, true);
    tokio::time::advance(AGAIN).await;
    assert_eq!(told(&mut alarms, &[unknown]), [], "it is known");
    assert_eq!(told(&mut alarms, well), cured);
    ended(&mut alarms, true);
    // Known from before popgate started.
    let mut fresh = Alarms::default();
    assert_eq!(told(&mut fresh, &[known]), []);
    assert_eq!(told(&mut fresh, &[]), [], "removed");
}

#[tokio::test]
async fn a_death_is_counted_told_once_and_noted() {
    let endpoint = TokenEndpoint::start().await;
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let script = format!("cat >>{0}; echo >>{0}", told.display());
    let mut config = config();
    let provider = endpoint.provider("mail", Grant::User);
    config.providers.insert("mail".to_owned(), provider);
    config.alarm = Alarm {
        command: Some(["/bin/sh", "-c", &script].map(str::to_owned).to_vec()),
        sign_in: Some("https://pop.example.org/enrol".parse().unwrap()),
        ..Alarm::default()
    };
    let fixture = Fixture::with(config);
    let accounts = &fixture.accounts;
    let mut alice = account(accounts, "alice", 2 * 3600);
    accounts.save(&mut alice).await.unwrap();
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn({
        let (accounts, shutdown) = (accounts.clone(), shutdown.clone());
        async move { accounts.run(shutdown).await }
    });
    endpoint.revoke();
    let refused = accounts
        .renewed("alice", &Opener::default(), Need::Fresh)
        .await;
    refused.unwrap_err();
    let state = |state: TokenState| accounts.metrics.token_state.get_or_create(&state).get();
    let lines = async |count: usize| loop {
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        if text.lines().count() >= count {
            return text;
        }
        sleep(Duration::from_millis(5)).await;
    };
    let text = lines(1).await;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["event"], "sign-in-needed");
    assert_eq!(json["address"], "alice");
    assert_eq!(json["provider"], "mail");
    assert_eq!(json["sign_in"], "https://pop.example.org/enrol");
    assert!(json["reason"].as_str().unwrap().contains("invalid_grant"));
    let trouble = async || accounts.find("alice").await.unwrap().unwrap().trouble;
    while !trouble().await.unwrap().told {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(json["since"], trouble().await.unwrap().since);
    assert_eq!(state(TokenState::Refused), 1);
    assert_eq!(state(TokenState::Ok), 0);
    accounts
        .change("alice", |row| row.trouble = None)
        .await
        .unwrap();
    accounts.renewals.news.notify_one();
    let text = lines(2).await;
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "cured");
    assert_eq!(text.lines().count(), 2);
    assert_eq!(state(TokenState::Ok), 1);
    let alarms = &accounts.metrics.token_alarms;
    while alarms.get_or_create(&AlarmResult::Told).get() < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    let metrics = accounts.metrics.encode();
    assert!(metrics.contains("popgate_token_oldest_sign_in_timestamp_seconds 1700000000\n"));
    assert!(!metrics.contains("alice"));
    shutdown.cancel();
    watching.await.unwrap();
    assert_eq!(Arc::strong_count(&accounts.config), 1);
}

#[tokio::test]
async fn of_two_calls_the_one_that_fails_is_counted_too() {
    let mut config = config();
    config.alarm = Alarm {
        // In the clear, and not on loopback: refused before anybody is called.
        webhook: Some("http://192.0.2.1/hook".parse().unwrap()),
        command: Some(vec!["/bin/true".to_owned()]),
        ..Alarm::default()
    };
    let fixture = Fixture::with(config);
    let accounts = &fixture.accounts;
    let mut alice = dead(&account(accounts, "alice", 0), 5);
    accounts.save(&mut alice).await.unwrap();
    let mut alarms = Alarms::default();
    alarms.compare(std::slice::from_ref(&alice), None);
    let message = alarms.next().unwrap();
    let (_, told) = accounts.clone().tell(message).await;
    assert!(told, "the command knows");
    let count = |result: AlarmResult| {
        let counter = accounts.metrics.token_alarms.get_or_create(&result);
        counter.get()
    };
    assert_eq!(
        (count(AlarmResult::Told), count(AlarmResult::Failed)),
        (1, 1)
    );
    let row = accounts.find("alice").await.unwrap().unwrap();
    assert!(row.trouble.unwrap().told);
}
