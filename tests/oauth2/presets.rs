//! Each preset, with its endpoints on loopback instead.

use popgate::oauth2::{PRESETS, Preset};

use super::*;

/// A registration for this preset, at our server.
fn registration(server: &AuthorizationServer, preset: &Preset, grant: Grant) -> Registration {
    let mut endpoints = super::registration(server).endpoints;
    endpoints.issuer = None;
    endpoints.userinfo = endpoints.userinfo.filter(|_| !preset.userinfo.is_empty());
    let parameters = preset.parameters.iter();
    Registration {
        scopes: preset.scopes_for(&grant),
        grant,
        endpoints,
        authorization_parameters: parameters
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..super::registration(server)
    }
}

#[tokio::test]
async fn people_sign_in() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    for preset in PRESETS {
        let client = Client::new(registration(&server, preset, Grant::User)).unwrap();
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
        let registration = registration(&server, preset, Grant::ClientCredentials);
        let client = Client::new(registration).unwrap();
        assert!(client.for_mailbox("alice@example.org").await.is_ok());
        let asked = server.asked().pop().unwrap();
        let scopes = preset.scopes_without_user.join(" ");
        assert_eq!(asked.all["scope"].as_str().unwrap_or_default(), scopes);
    }
}
