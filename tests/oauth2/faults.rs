//! Authorisation servers that fail: nobody has to sign in again for it.

use serde_json::{Value, json};

use super::*;

/// A refresh while the server does this, once. The refresh token is good before
/// and, where the server did not obey, afterwards.
async fn refresh_under(fault: &Value) -> Option<Result<Tokens, TokenError>> {
    let server = AuthorizationServer::start()?;
    let refresh = signed_in(&server, &client(&server)).await.refresh.unwrap();
    server.fault(fault.clone());
    let refreshed = impatient(&server).refresh(&refresh).await;
    assert!(
        !format!("{refreshed:?}").contains(refresh.reveal()),
        "{refreshed:?}"
    );
    server.mend();
    let obeyed = ["delay", "drip"].iter().any(|it| fault.get(it).is_some());
    if !obeyed && refreshed.is_err() {
        assert!(client(&server).refresh(&refresh).await.is_ok(), "{fault}");
    }
    Some(refreshed.map_err(|failed| failed.error))
}

#[tokio::test]
async fn outages() {
    for fault in [
        json!({"status": 500}),
        json!({"status": 503, "body": "<html>"}),
        json!({"status": 502, "body": r#"{"error": "invalid_grant"}"#}),
        json!({"status": 200, "body": "<html>"}),
        json!({"status": 200, "body": ""}),
        json!({"status": 200, "body": "{}"}),
        json!({"status": 200, "body": "[".repeat(200_000)}),
        json!({"status": 400, "body": "{\"error\": 7}"}),
        json!({"status": 403, "body": "<html>Go away</html>"}),
        json!({"huge": 300_000}),
        json!({"hang_up": true}),
        json!({"delay": 2}),
        json!({"drip": 0.1}),
    ] {
        let Some(refreshed) = refresh_under(&fault).await else {
            return;
        };
        assert!(is_temporary(&refreshed), "{fault}: {refreshed:?}");
    }
}

#[tokio::test]
async fn throttled() {
    let fault = json!({"status": 429, "headers": {"Retry-After": "120"}});
    let Some(refreshed) = refresh_under(&fault).await else {
        return;
    };
    let expected = TokenError::Temporary {
        reason: "HTTP status 429".to_owned(),
        retry_after: Some(Duration::from_secs(120)),
    };
    assert_eq!(refreshed, Err(expected));
    let long = json!({"status": 503, "headers": {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}});
    let refreshed = refresh_under(&long).await.unwrap();
    assert!(
        matches!(
            refreshed,
            Err(TokenError::Temporary { retry_after: Some(wait), .. }) if wait.as_secs() == 3600
        ),
        "{refreshed:?}"
    );
}

#[tokio::test]
async fn settings_that_are_wrong() {
    for fault in [
        json!({"status": 404}),
        json!({"status": 401}),
        json!({"status": 400, "error": "unsupported_grant_type"}),
    ] {
        let Some(refreshed) = refresh_under(&fault).await else {
            return;
        };
        assert!(is_misconfigured(&refreshed), "{fault}: {refreshed:?}");
    }
}

#[tokio::test]
async fn a_redirect_gets_no_secret() {
    let Some(thief) = AuthorizationServer::start() else {
        return;
    };
    for status in [301, 302, 303, 307, 308] {
        let to = thief.url("token");
        let fault = json!({"status": status, "headers": {"Location": to.as_str()}});
        let refreshed = refresh_under(&fault).await.unwrap();
        assert!(is_misconfigured(&refreshed), "{refreshed:?}");
    }
    assert!(thief.asked().is_empty());
}

#[tokio::test]
async fn nobody_listens() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let refresh = signed_in(&server, &client).await.refresh.unwrap();
    drop(server);
    let refreshed = refreshed(&client, &refresh).await;
    assert!(is_temporary(&refreshed));
    // Where, for whoever has several providers.
    assert_eq!(
        refreshed.unwrap_err().to_string(),
        "127.0.0.1: cannot connect"
    );
}

#[tokio::test]
async fn words_of_the_server_hold_no_secret() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let refresh = signed_in(&server, &client).await.refresh.unwrap();
    for description in [
        format!("The token {} is bad", refresh.reveal()),
        format!("The secret {CLIENT_SECRET} is bad"),
        format!("Line\r\nWARN {}", "x".repeat(5000)),
    ] {
        server.fault(json!({
            "error": "invalid_grant", "more": {"error_description": description},
        }));
        let error = client.refresh(&refresh).await.unwrap_err().to_string();
        assert!(!error.contains(refresh.reveal()), "{error}");
        assert!(!error.contains(CLIENT_SECRET), "{error}");
        assert!(
            error.len() < 300 && !error.contains(['\r', '\n']),
            "{error}"
        );
    }
}
