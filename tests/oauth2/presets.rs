//! Each preset, with its endpoints on loopback instead.

use popgate::oauth2::{Given, PRESETS};

use super::*;

fn given(server: &AuthorizationServer) -> Given {
    Given {
        client_id: Some(CLIENT_ID.to_owned()),
        client_secret: Some(CLIENT_SECRET.into()),
        tenant: Some("example.org".to_owned()),
        authorization_url: Some(server.url("authorize")),
        token_url: Some(server.url("token")),
        device_url: Some(server.url("device_authorization")),
        ..Given::default()
    }
}

#[tokio::test]
async fn people_sign_in() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    for preset in PRESETS {
        let mut given = given(&server);
        given.grant = Some(Grant::User);
        // Nobody's certificate is good: nothing goes to the preset's own endpoints.
        let registration = Registration::new(Some(preset), given, no_tls()).unwrap();
        let client = Client::new(registration).unwrap();
        let tokens = signed_in(&server, &client).await;
        let alice = "alice@example.org".to_owned();
        let who = preset.tells_who().then_some(alice);
        assert_eq!(tokens.identity, who, "{}", preset.name);
        assert!(client.refresh(&tokens.refresh.unwrap()).await.is_ok());
        assert!(client.device().await.is_ok());
    }
}

#[tokio::test]
async fn nobody_signs_in() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    for preset in PRESETS {
        let mut given = given(&server);
        given.grant = Some(Grant::ClientCredentials);
        let registration = Registration::new(Some(preset), given, no_tls()).unwrap();
        let scopes = registration.scopes.join(" ");
        assert_eq!(scopes, preset.scopes_without_user.join(" "));
        let client = Client::new(registration).unwrap();
        assert!(client.for_mailbox("alice@example.org").await.is_ok());
    }
}
