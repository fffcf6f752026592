//! Device codes: the person signs in elsewhere.

use std::time::Duration;

use serde_json::json;

use super::*;

#[tokio::test]
async fn approved() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    assert_eq!(client.has_device_codes().await, Ok(true));
    let device = client.device().await.unwrap();
    assert_eq!(device.verification_uri, server.url("device"));
    let complete = device.verification_uri_complete.clone().unwrap();
    assert!(complete.as_str().contains(&device.user_code));
    assert_eq!(device.expires_in.as_secs(), 900);
    assert_eq!(device.interval.as_secs(), 1);
    let (tokens, ()) = tokio::join!(client.device_tokens(&device), async {
        // It has asked at least once in vain.
        while server.count(DEVICE_CODE) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.approve(&device.user_code, "alice@example.org");
    });
    let tokens = tokens.unwrap();
    assert_eq!(tokens.identity.as_deref(), Some("alice@example.org"));
    assert!(client.refresh(&tokens.refresh.unwrap()).await.is_ok());
    let asked = server.asked();
    assert!(asked.iter().any(|it| it.error == "authorization_pending"));
    assert!(asked.iter().all(|it| it.all.get("too_soon").is_none()));
}

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[tokio::test]
async fn refused() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let device = client.device().await.unwrap();
    server.deny(&device.user_code);
    let tokens = client.device_tokens(&device).await;
    assert!(is_not_signed_in(&tokens), "{tokens:?}");
}

#[tokio::test]
async fn run_out() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    // Sooner than the server said.
    let device = client.device().await.unwrap();
    server.fault(json!({"grant": DEVICE_CODE, "error": "expired_token"}));
    let tokens = client.device_tokens(&device).await;
    assert!(is_not_signed_in(&tokens), "{tokens:?}");
    // As it said: nobody is asked again.
    server.set(json!({"device_lifetime": 1}));
    let device = client.device().await.unwrap();
    server.forget_requests();
    let tokens = client.device_tokens(&device).await;
    assert!(is_not_signed_in(&tokens), "{tokens:?}");
    assert_eq!(server.count(DEVICE_CODE), 0);
}

#[tokio::test]
async fn slower() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    server.set(json!({"slow_down": 1}));
    let device = client.device().await.unwrap();
    server.approve(&device.user_code, "alice@example.org");
    assert!(client.device_tokens(&device).await.is_ok());
    let times: Vec<f64> = server
        .asked()
        .iter()
        .filter(|it| it.grant == DEVICE_CODE)
        .map(|it| it.all["time"].as_f64().unwrap())
        .collect();
    // One second, and the five that RFC 8628 §3.5 adds.
    assert!(times.len() == 2 && times[1] - times[0] >= 5.5, "{times:?}");
}

#[tokio::test]
async fn an_outage_meanwhile() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let device = client.device().await.unwrap();
    server.approve(&device.user_code, "alice@example.org");
    server.fault(json!({"grant": DEVICE_CODE, "hang_up": true}));
    server.fault(json!({"grant": DEVICE_CODE, "status": 503, "headers": {"Retry-After": "0"}}));
    assert!(client.device_tokens(&device).await.is_ok());
}

#[tokio::test]
async fn who_waits_may_be_dropped() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let device = client.device().await.unwrap();
    let patience = Duration::from_millis(1200);
    let waited = tokio::time::timeout(patience, client.device_tokens(&device)).await;
    assert!(waited.is_err());
    server.approve(&device.user_code, "alice@example.org");
    assert!(client.device_tokens(&device).await.is_ok());
}

#[tokio::test]
async fn no_device_codes() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let mut registration = registration(&server);
    registration.endpoints.device = None;
    let client = Client::new(registration).unwrap();
    assert_eq!(client.has_device_codes().await, Ok(false));
    let device = client.device().await;
    assert!(is_misconfigured(&device), "{device:?}");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn answers_that_are_none() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let good = json!({
        "device_code": "d", "user_code": "U", "verification_uri": "https://example.org/device",
    });
    let answer = async |name: &str, value: serde_json::Value| {
        let mut answer = good.clone();
        answer[name] = value;
        server.fault(json!({"endpoint": "device_authorization", "body": answer.to_string()}));
        client.device().await
    };
    assert!(answer("interval", json!(null)).await.is_ok());
    let old = answer("verification_uri_complete", json!(null))
        .await
        .unwrap();
    assert_eq!(old.verification_uri_complete, None);
    assert_eq!(
        (old.interval.as_secs(), old.expires_in.as_secs()),
        (5, 3600)
    );
    for (name, value) in [
        ("device_code", json!("")),
        ("user_code", json!("")),
        ("user_code", json!("\u{1b}[2J")),
        ("user_code", json!("U".repeat(65))),
        ("user_code", json!(17)),
    ] {
        let device = answer(name, value).await;
        assert!(is_temporary(&device), "{device:?}");
    }
    // A QR code or a link that leads to a program instead of a page.
    for uri in ["javascript:alert(1)", "http://example.org/", "file:///etc"] {
        assert!(is_misconfigured(
            &answer("verification_uri", json!(uri)).await
        ));
        let device = answer("verification_uri_complete", json!(uri))
            .await
            .unwrap();
        assert_eq!(device.verification_uri_complete, None);
    }
    server.fault(json!({"endpoint": "device_authorization", "error": "invalid_scope"}));
    assert!(is_misconfigured(&client.device().await));
    server.fault(json!({"endpoint": "device_authorization", "status": 503}));
    assert!(is_temporary(&client.device().await));
}
