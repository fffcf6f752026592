//! Where an issuer says that its endpoints are.

use serde_json::json;

use super::*;

fn discovering(server: &AuthorizationServer) -> Registration {
    let mut registration = registration(server);
    registration.endpoints = Endpoints {
        issuer: registration.endpoints.issuer,
        ..Endpoints::default()
    };
    registration
}

fn documents(server: &AuthorizationServer) -> usize {
    let asked = server.asked();
    asked.iter().filter(|it| it.endpoint == "discovery").count()
}

#[tokio::test]
async fn the_issuer_alone_is_enough() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(discovering(&server)).unwrap();
    assert_eq!(documents(&server), 0, "when it is first needed");
    let tokens = signed_in(&server, &client).await;
    assert_eq!(tokens.identity.as_deref(), Some("alice@example.org"));
    assert!(client.refresh(&tokens.refresh.unwrap()).await.is_ok());
    assert!(client.device().await.is_ok());
    assert_eq!(documents(&server), 1);
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(discovering(&server)).unwrap();
    server.fault(json!({"endpoint": "discovery", "delay": 0.2}));
    let callback = redirect();
    let all = (0..20).map(|_| client.begin(&callback, None));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(documents(&server), 1);
}

#[tokio::test]
async fn a_failure_is_not_for_ever() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(discovering(&server)).unwrap();
    for fault in [
        json!({"status": 503}),
        json!({"body": "<html>"}),
        json!({"body": "{}"}),
        json!({"huge": 300_000}),
        json!({"hang_up": true}),
    ] {
        server.fault(fault.clone());
        let begun = client.begin(&redirect(), None).await;
        assert!(is_temporary(&begun), "{fault}: {begun:?}");
    }
    assert!(client.begin(&redirect(), None).await.is_ok());
}

#[tokio::test]
async fn documents_that_are_not_believed() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(discovering(&server)).unwrap();
    server.set(json!({"issuer": "https://another.example.org"}));
    assert!(is_misconfigured(&client.begin(&redirect(), None).await));
    server.set(json!({"issuer": null}));
    for document in [
        json!({"token_endpoint": "http://192.0.2.1/token"}),
        json!({"authorization_endpoint": "javascript:alert(1)"}),
        json!({"userinfo_endpoint": "file:///etc/passwd"}),
    ] {
        server.set(json!({"discovery": document}));
        let begun = client.begin(&redirect(), None).await;
        assert!(is_misconfigured(&begun), "{document}: {begun:?}");
    }
    server.set(json!({"discovery": {"device_authorization_endpoint": null}}));
    assert!(is_misconfigured(&client.device().await));
    assert!(client.begin(&redirect(), None).await.is_ok());
}

#[tokio::test]
async fn what_is_configured_comes_first() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let mut registration = discovering(&server);
    let elsewhere: Url = "https://login.example.org/authorize".parse().unwrap();
    registration.endpoints.authorization = Some(elsewhere.clone());
    let client = Client::new(registration).unwrap();
    let request = client.begin(&redirect(), None).await.unwrap();
    assert_eq!(request.url.host_str(), elsewhere.host_str());
    assert_eq!(documents(&server), 1);
    // Nothing is missing: nobody is asked.
    server.forget_requests();
    assert!(
        super::client(&server)
            .begin(&redirect(), None)
            .await
            .is_ok()
    );
    assert_eq!(documents(&server), 0);
}

#[tokio::test]
async fn the_secret_goes_where_the_server_takes_it() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    // What encoding could break (RFC 6749 §2.3.1).
    let secret = "a:b%c+d e&f=\u{e4}";
    server.add_client(json!({"client_id": "odd:id", "secret": secret}));
    for (methods, in_the_form) in [
        (json!(null), false),
        (json!(["client_secret_basic"]), false),
        (json!(["client_secret_basic", "client_secret_post"]), true),
    ] {
        let methods = json!({"token_endpoint_auth_methods_supported": methods});
        server.set(json!({"discovery": methods}));
        server.forget_requests();
        let mut registration = discovering(&server);
        registration.client_id = "odd:id".to_owned();
        registration.client_proof = ClientProof::Secret(secret.into());
        signed_in(&server, &Client::new(registration).unwrap()).await;
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.endpoint, "token");
        assert_eq!(asked.all.get("client_id").is_some(), in_the_form);
    }
}
