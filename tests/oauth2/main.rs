//! popgate as a client of an authorisation server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod device_codes;
mod discovery;
mod faults;
mod mail_servers;
mod presets;
mod refresh;
mod sign_in;
mod trust;
mod without_a_user;

use std::sync::Arc;
use std::time::Duration;

use popgate::oauth2::{
    AuthorizationRequest, Client, ClientProof, Endpoints, Grant, Registration, TokenError, Tokens,
};
use popgate::secret::Secret;
use rustls::RootCertStore;
use support::AuthorizationServer;
use support::authorization_server::{CLIENT_ID, CLIENT_SECRET};
use url::Url;

/// Nobody's certificate is good.
fn no_tls() -> Arc<rustls::ClientConfig> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A confidential client for people who sign in, all endpoints given.
fn registration(server: &AuthorizationServer) -> Registration {
    Registration {
        grant: Grant::User,
        endpoints: Endpoints {
            authorization: Some(server.url("authorize")),
            token: Some(server.url("token")),
            device: Some(server.url("device_authorization")),
            userinfo: Some(server.url("userinfo")),
            issuer: Some(server.issuer().parse().unwrap()),
        },
        client_id: CLIENT_ID.to_owned(),
        client_proof: ClientProof::Secret(CLIENT_SECRET.into()),
        scopes: ["openid", "email", "mail"].map(str::to_owned).to_vec(),
        authorization_parameters: vec![("access_type".to_owned(), "offline".to_owned())],
        tls: no_tls(),
    }
}

fn client(server: &AuthorizationServer) -> Client {
    Client::new(registration(server)).unwrap()
}

/// One that waits for a short time only.
fn impatient(server: &AuthorizationServer) -> Client {
    Client::with_patience(registration(server), Duration::from_millis(300)).unwrap()
}

/// Where browsers are sent back to. Nobody listens there.
fn redirect() -> Url {
    "http://127.0.0.1:1/enrol/callback".parse().unwrap()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    let found = url.query_pairs().find(|(it, _)| it == name);
    found.map(|(_, value)| value.into_owned())
}

/// Somebody signs in: the request, and the code that the browser brings.
async fn code(server: &AuthorizationServer, client: &Client) -> (AuthorizationRequest, Secret) {
    let request = client.begin(&redirect(), None).await.unwrap();
    let back = server.sign_in(&request.url, "alice@example.org");
    assert_eq!(
        parameter(&back, "state").as_deref(),
        Some(request.state.reveal())
    );
    (request, Secret::new(parameter(&back, "code").unwrap()))
}

async fn signed_in(server: &AuthorizationServer, client: &Client) -> Tokens {
    let (request, code) = code(server, client).await;
    client.finish(&request, &redirect(), &code).await.unwrap()
}

fn is_temporary<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Temporary { .. }))
}

fn is_misconfigured<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Misconfigured(_)))
}

fn is_not_signed_in<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::NotSignedIn(_)))
}

fn is_refused<T>(result: &Result<T, TokenError>) -> bool {
    matches!(result, Err(TokenError::Refused(_)))
}

/// What becomes of a refresh, and why.
async fn refreshed(client: &Client, refresh: &Secret) -> Result<Tokens, TokenError> {
    let refreshed = client.refresh(refresh).await;
    refreshed.map_err(|failed| failed.error)
}

/// In seconds of Unix time.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs().try_into().unwrap()
}
