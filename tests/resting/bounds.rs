//! How many rest, how long, and who gives way.

use std::sync::atomic::{AtomicUsize, Ordering};

use support::Answer;

use super::*;

fn site(server: &ScriptedImap, rest: Rest) -> Site {
    let mut config = config(server.port());
    config.economy.rest = rest;
    Site::with(config)
}

async fn poll(site: &Site, user: &str) {
    let (mut session, _) = site.try_open(password(user)).await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn none_rests_where_that_is_switched_off() {
    let default = Rest::default();
    for rest in [
        Rest::OFF,
        Rest {
            longest: Duration::ZERO,
            ..default
        },
        Rest { most: 0, ..default },
        Rest {
            per_account: 0,
            ..default
        },
    ] {
        let server = builder(1).announcing("IDLE").start();
        let site = site(&server, rest);
        for _ in 0..2 {
            site.poll().await;
        }
        assert_eq!(logins(&server), 2, "{rest:?}");
        assert_eq!(server.commands_starting("LOGOUT").len(), 2, "{rest:?}");
        server.wait_until_closed();
    }
}

#[tokio::test]
async fn those_least_recently_used_give_way() {
    let server = builder(1).start();
    let most = 2;
    let site = site(
        &server,
        Rest {
            most,
            ..Rest::default()
        },
    );
    for user in ["alice", "bob", "alice", "carol"] {
        poll(&site, user).await;
    }
    // Bob's has gone, politely.
    eventually(|| server.open_connections() == 2).await;
    assert_eq!(server.commands_starting("LOGOUT").len(), 1);
    assert_eq!((site.resting(), server.connections()), (2, 3));
    poll(&site, "alice").await;
    poll(&site, "carol").await;
    assert_eq!(server.connections(), 3);
    poll(&site, "bob").await;
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn one_account_has_no_more_than_its_share() {
    let server = builder(1).start();
    let per_account = 2;
    let site = site(
        &server,
        Rest {
            per_account,
            ..Rest::default()
        },
    );
    poll(&site, "bob").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(site.open().await.0);
    }
    for mut session in sessions {
        session.close().await;
    }
    eventually(|| server.open_connections() == 3).await;
    assert_eq!(site.resting(), 3);
    assert_eq!(server.commands_starting("LOGOUT").len(), 2);
    let before = server.connections();
    poll(&site, "bob").await;
    assert_eq!(server.connections(), before);
}

#[tokio::test]
async fn a_rest_ends() {
    let server = builder(1).announcing("IDLE").start();
    let longest = Duration::from_millis(200);
    let site = site(
        &server,
        Rest {
            longest,
            ..Rest::default()
        },
    );
    site.poll().await;
    assert_eq!(site.resting(), 1);
    site.rests(0).await;
    server.wait_until_closed();
    assert_eq!(server.commands_starting("LOGOUT").len(), 1);
}

/// A server that lets an account in as long as it has fewer connections.
fn strict(refusal: &'static str) -> ScriptedImap {
    let there = AtomicUsize::new(0);
    builder(1)
        .announcing("IDLE")
        .on("", move |command, _| match command.name.as_str() {
            "AUTHENTICATE" if there.load(Ordering::SeqCst) > 0 => Answer::send(command.no(refusal)),
            "AUTHENTICATE" => {
                there.fetch_add(1, Ordering::SeqCst);
                Answer::Usual
            }
            "LOGOUT" => {
                there.fetch_sub(1, Ordering::SeqCst);
                Answer::Usual
            }
            _ => Answer::Usual,
        })
        .start()
}

#[tokio::test]
async fn a_login_that_has_no_room_gets_that_of_those_at_rest() {
    for refusal in [
        "[LIMIT] Maximum number of connections from user+IP exceeded",
        "[INUSE] too many",
        "Too many simultaneous connections. (Failure)",
    ] {
        let server = strict(refusal);
        let site = Site::new(&server);
        site.poll().await;
        // For the same account, but not for the same session.
        let other = policy(DeletePolicy::Refuse);
        let session = site.try_login(password("alice"), &other, CLIENT).await;
        let mut session = session.unwrap_or_else(|error| panic!("{refusal}: {error:?}"));
        assert_eq!(in_time(session.snapshot()).await.unwrap().len(), 1);
        assert_eq!(site.resting(), 0, "{refusal}");
        // With nothing at rest it is what the server says.
        let full = site.try_open(password("alice")).await.err().unwrap();
        assert!(matches!(full, UpstreamError::InUse(_)), "{full:?}");
    }
}
