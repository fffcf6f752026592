//! Nobody hammers a provider with what it has refused.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{World, set_tokens};

const SIGN_IN: &str =
    "-ERR [AUTH] your mail provider asks you to sign in again: https://pop.example.org/enrol";

/// So many logins, some of them at once; how many succeeded.
fn storm(world: &World, logins: usize, user: &str, password: &str) -> usize {
    let (begun, succeeded) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::SeqCst) < logins {
                    match world.login(user, password) {
                        Ok(client) => {
                            succeeded.fetch_add(1, Ordering::SeqCst);
                            client.quit();
                        }
                        Err(told) => assert_eq!(told, SIGN_IN),
                    }
                }
            });
        }
    });
    succeeded.into_inner()
}

#[test]
fn five_hundred_logins_with_a_dead_token() {
    let world = World::new();
    let password = world.enrolled("alice@example.org", "access-1");
    world.tokens.refuses();
    assert_eq!(storm(&world, 500, "alice@example.org", &password), 0);
    let upstream = world.other.logins().len();
    assert!(
        upstream + world.tokens.asked() <= 3,
        "{upstream} and {}",
        world.tokens.asked()
    );
    assert!(upstream >= 1);
    // Somebody signs in again: at once all is well.
    world.other.opens("alice@example.org", &["token access-7"]);
    let accounts = world.accounts.clone();
    world.change("alice@example.org", |account| {
        set_tokens(&accounts, account, "access-7", 3600);
        account.trouble = None;
    });
    world.login("alice@example.org", &password).unwrap().quit();
}

#[test]
fn five_hundred_logins_with_tokens_that_are_fresh_and_refused() {
    let world = World::new();
    let password = world.enrolled("alice@example.org", "access-1");
    // The provider gives new ones each time, and the mail server wants none.
    world.tokens.gives("access-2");
    assert_eq!(storm(&world, 500, "alice@example.org", &password), 0);
    assert_eq!(world.other.logins().len(), 3);
    assert!(world.tokens.asked() <= 3, "{}", world.tokens.asked());
    // Nobody else is the worse for it.
    world.other.opens("bob@example.org", &["token access-5"]);
    let bobs = world.enrolled("bob@example.org", "access-5");
    world.login("bob@example.org", &bobs).unwrap().quit();
}

#[test]
fn many_at_once_with_a_token_that_was_revoked_and_can_be_renewed() {
    let world = World::new();
    let password = world.enrolled("alice@example.org", "access-1");
    world.tokens.gives("access-2");
    world.other.opens("alice@example.org", &["token access-2"]);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| match world.login("alice@example.org", &password) {
                Ok(client) => assert!(client.quit().starts_with("+OK")),
                Err(told) => assert!(told.starts_with("-ERR [IN-USE]"), "{told}"),
            });
        }
    });
    world.login("alice@example.org", &password).unwrap().quit();
    assert_eq!(world.tokens.asked(), 1);
}

#[test]
fn a_password_upstream_that_was_changed() {
    let world = World::new();
    let home = popgate::accounts::Home::Upstream(super::OTHER.to_owned());
    let password = world.account("carol@example.org", home, |accounts, account| {
        accounts.set_password(account, &"app-1".into()).unwrap();
    });
    assert_eq!(storm(&world, 50, "carol@example.org", &password), 0);
    assert_eq!(world.other.logins().len(), 3);
    world.other.opens("carol@example.org", &["app-2"]);
    let accounts = world.accounts.clone();
    world.change("carol@example.org", |account| {
        accounts.set_password(account, &"app-2".into()).unwrap();
    });
    world.login("carol@example.org", &password).unwrap().quit();
    assert_eq!(world.stored("carol@example.org").trouble, None);
}

#[test]
fn a_hundred_logins_of_an_account_that_is_well() {
    let world = World::new();
    world.other.opens("alice@example.org", &["token access-1"]);
    let password = world.enrolled("alice@example.org", "access-1");
    // One after the other, as there is one lock.
    for _ in 0..100 {
        world.login("alice@example.org", &password).unwrap().quit();
    }
    assert_eq!(world.tokens.asked(), 0);
}
