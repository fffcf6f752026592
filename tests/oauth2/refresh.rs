//! New tokens for refresh tokens.

use serde_json::json;

use super::*;

#[tokio::test]
async fn each_refresh_token_is_good_once() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let first = signed_in(&server, &client).await;
    let mut last = first.refresh.clone().unwrap();
    for _ in 0..3 {
        let tokens = client.refresh(&last).await.unwrap();
        assert_ne!(tokens.access, first.access);
        assert_ne!(tokens.refresh.as_ref(), Some(&last));
        last = tokens.refresh.unwrap();
    }
    assert_eq!((server.refreshes(), server.replays()), (3, 0));
    assert_eq!(server.live("alice@example.org"), 1);
    // A second use: somebody may have stolen it, and nothing of it is good any more.
    let replayed = refreshed(&client, &first.refresh.unwrap()).await;
    assert!(is_refused(&replayed), "{replayed:?}");
    assert_eq!(server.replays(), 1);
    assert!(is_refused(&refreshed(&client, &last).await));
}

#[tokio::test]
async fn a_provider_that_gives_no_other_one() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let refresh = signed_in(&server, &client).await.refresh.unwrap();
    server.set(json!({"rotation": "none"}));
    for _ in 0..2 {
        let tokens = client.refresh(&refresh).await.unwrap();
        assert_eq!(tokens.refresh.as_ref(), Some(&refresh));
    }
}

#[tokio::test]
async fn a_provider_that_gives_none_at_all() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    server.set(json!({"refresh_token": false}));
    assert_eq!(signed_in(&server, &client(&server)).await.refresh, None);
}

#[tokio::test]
async fn what_is_revoked_needs_somebody() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let refresh = signed_in(&server, &client).await.refresh.unwrap();
    server.revoke("alice@example.org");
    let refreshed = refreshed(&client, &refresh).await;
    assert!(is_refused(&refreshed), "{refreshed:?}");
    assert!(!format!("{refreshed:?}").contains(refresh.reveal()));
}

#[tokio::test]
async fn who_is_to_blame() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let refresh = signed_in(&server, &client).await.refresh.unwrap();
    for error in ["invalid_client", "unauthorized_client", "invalid_scope"] {
        server.refuse_refresh(error, 1);
        assert!(
            is_misconfigured(&refreshed(&client, &refresh).await),
            "{error}"
        );
    }
    server.refuse_refresh("invalid_grant", 1);
    assert!(is_refused(&refreshed(&client, &refresh).await));
    server.fault(json!({"error": "invalid_grant", "more": {"temporary": true}}));
    assert!(is_temporary(&refreshed(&client, &refresh).await));
    // None of it has cost the token.
    assert!(client.refresh(&refresh).await.is_ok());
}

#[tokio::test]
async fn how_long_tokens_are_good() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    for (said, least, most) in [
        (json!(120), 110, 120),
        (json!("120"), 110, 120),
        (json!("omit"), 3590, 3600),
        (json!(-1), 3590, 3600),
        (json!(1e30), 86_400 * 300, 86_400 * 366),
    ] {
        server.set(json!({"expires_in": said}));
        let left = signed_in(&server, &client).await.expires_at - now();
        assert!((least..=most).contains(&left), "{said}: {left}");
    }
}

#[tokio::test]
async fn tokens_that_are_none() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let refresh = signed_in(&server, &client).await.refresh.unwrap();
    server.set(json!({"rotation": "none"}));
    for token in ["", "a b", "a\r\nA1 LOGOUT", "a\u{1}b", "\u{e4}"] {
        server.set(json!({"access_token": token}));
        let refreshed = refreshed(&client, &refresh).await;
        assert!(is_temporary(&refreshed), "{token:?}: {refreshed:?}");
    }
    for (octets, good) in [(16 * 1024, true), (16 * 1024 + 1, false)] {
        server.set(json!({"access_token": "a".repeat(octets)}));
        assert_eq!(client.refresh(&refresh).await.is_ok(), good, "{octets}");
    }
}

#[tokio::test]
async fn a_refresh_token_beside_what_is_no_access_token() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let first = signed_in(&server, &client).await.refresh.unwrap();
    server.set(json!({"access_token": "a b"}));
    let failed = client.refresh(&first).await.unwrap_err();
    assert!(is_temporary::<()>(&Err(failed.error)));
    let second = failed.refresh.unwrap();
    assert_ne!(second, first);
    server.set(json!({"access_token": null}));
    assert!(client.refresh(&second).await.is_ok());
    assert_eq!(server.replays(), 0);
}
