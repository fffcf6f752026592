//! Client credentials, and service accounts.

use std::process::Command;

use serde_json::json;

use super::*;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// An RSA key: private and public, in PEM.
fn key() -> (Secret, String) {
    let openssl = |arguments: &[&str], input: &[u8]| {
        use std::io::Write as _;
        let mut child = Command::new(support::servers::scripts().join("run"))
            .arg("openssl")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let bits = "rsa_keygen_bits:2048";
    let private = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits], b"");
    let public = openssl(&["pkey", "-pubout"], private.as_bytes());
    (Secret::new(private), public)
}

fn by_secret(server: &AuthorizationServer) -> Registration {
    let mut registration = registration(server);
    registration.grant = Grant::ClientCredentials;
    registration.scopes = vec!["https://mail.example.org/.default".to_owned()];
    registration
}

fn by_certificate(server: &AuthorizationServer) -> Registration {
    let (key, public_key) = key();
    let thumbprint = "00112233445566778899AABBCCDDEEFF00112233".to_owned();
    server.add_client(json!({
        "client_id": "by-certificate",
        "public_key": public_key,
        "key_id": "ABEiM0RVZneImaq7zN3u_wARIjM",
    }));
    let mut registration = by_secret(server);
    registration.client_id = "by-certificate".to_owned();
    registration.client_proof = ClientProof::Certificate { key, thumbprint };
    registration
}

fn service_account(server: &AuthorizationServer) -> Registration {
    let (key, public_key) = key();
    let account = "popgate@project.example.org";
    server.add_client(json!({"client_id": account, "public_key": public_key, "key_id": "k1"}));
    let mut registration = by_secret(server);
    registration.grant = Grant::ServiceAccount;
    registration.client_id = account.to_owned();
    registration.client_proof = ClientProof::Certificate {
        key,
        thumbprint: "k1".to_owned(),
    };
    registration
}

#[tokio::test]
async fn one_token_opens_all_mailboxes() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    for registration in [by_secret(&server), by_certificate(&server)] {
        server.forget_requests();
        let client = Client::new(registration).unwrap();
        let alice = client.for_mailbox("alice@example.org").await.unwrap();
        let bob = client.for_mailbox("bob@example.org").await.unwrap();
        assert_eq!(alice, bob);
        assert_eq!((alice.refresh, alice.identity), (None, None));
        let asked = server.asked();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].grant, "client_credentials");
        assert_eq!(asked[0].all["scope"], "https://mail.example.org/.default");
    }
}

#[tokio::test]
async fn a_service_account_has_a_token_for_each_mailbox() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(service_account(&server)).unwrap();
    let alice = client.for_mailbox("alice@example.org").await.unwrap();
    let bob = client.for_mailbox("bob@example.org").await.unwrap();
    assert_ne!(alice.access, bob.access);
    let again = client.for_mailbox("alice@example.org").await.unwrap();
    assert_eq!(alice, again);
    let asked = server.asked();
    let users: Vec<_> = asked.iter().map(|it| it.user.as_str()).collect();
    assert_eq!(users, ["alice@example.org", "bob@example.org"]);
    assert!(asked.iter().all(|it| it.grant == JWT_BEARER));
}

#[tokio::test]
async fn keys_of_somebody_else() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let (other, _) = key();
    for mut registration in [by_certificate(&server), service_account(&server)] {
        let ClientProof::Certificate { key, .. } = &mut registration.client_proof else {
            panic!("no certificate");
        };
        *key = other.clone();
        let client = Client::new(registration).unwrap();
        let token = client.for_mailbox("alice@example.org").await;
        assert!(is_misconfigured(&token), "{token:?}");
    }
    let mut registration = by_certificate(&server);
    let ClientProof::Certificate { thumbprint, .. } = &mut registration.client_proof else {
        panic!("no certificate");
    };
    *thumbprint = "another".to_owned();
    let client = Client::new(registration).unwrap();
    assert!(is_misconfigured(
        &client.for_mailbox("alice@example.org").await
    ));
}

#[tokio::test]
async fn what_the_operator_has_to_mend() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    // No such mailbox: there is nobody who could sign in again.
    server.set(json!({"mailboxes": ["alice@example.org"]}));
    let client = Client::new(service_account(&server)).unwrap();
    assert!(client.for_mailbox("alice@example.org").await.is_ok());
    let nobody = client.for_mailbox("nobody@example.org").await;
    assert!(is_misconfigured(&nobody), "{nobody:?}");
    // Not allowed to.
    let mut registration = by_secret(&server);
    server.add_client(json!({"client_id": "powerless", "secret": "s", "grants": []}));
    registration.client_id = "powerless".to_owned();
    registration.client_proof = ClientProof::Secret("s".into());
    let client = Client::new(registration).unwrap();
    assert!(is_misconfigured(
        &client.for_mailbox("alice@example.org").await
    ));
    // Somebody has to sign in there.
    let client = super::client(&server);
    assert!(is_misconfigured(
        &client.for_mailbox("alice@example.org").await
    ));
    // No key.
    let mut registration = service_account(&server);
    registration.client_proof = ClientProof::Secret("s".into());
    assert!(is_misconfigured(&Client::new(registration)));
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(service_account(&server)).unwrap();
    server.fault(json!({"endpoint": "token", "delay": 0.2, "times": -1}));
    let all = (0..50).map(|it| client.for_mailbox(["a@b", "c@d"][it % 2]));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.count(JWT_BEARER), 2);
    // While it fails they fail together.
    server.mend();
    server.fault(json!({"endpoint": "token", "delay": 0.2, "status": 503, "times": -1}));
    let all = (0..50).map(|_| client.for_mailbox("e@f"));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(is_temporary));
    assert_eq!(server.count(JWT_BEARER), 3);
}

#[tokio::test]
async fn a_throttled_provider_is_left_alone() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(by_secret(&server)).unwrap();
    server.fault(json!({"status": 429, "headers": {"Retry-After": "600"}}));
    for _ in 0..5 {
        let token = client.for_mailbox("alice@example.org").await;
        assert!(is_temporary(&token), "{token:?}");
    }
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    // The first would end within ten minutes, but is good for half of its time.
    for (lifetime, requests) in [(3600, 1), (60, 1), (1, 3)] {
        server.set_lifetime(lifetime);
        server.forget_requests();
        let client = Client::new(by_secret(&server)).unwrap();
        for _ in 0..3 {
            assert!(client.for_mailbox("alice@example.org").await.is_ok());
            if lifetime == 1 {
                tokio::time::sleep(Duration::from_millis(1100)).await;
            }
        }
        assert_eq!(server.asked().len(), requests, "{lifetime}");
    }
}

#[tokio::test]
async fn a_token_that_the_mail_server_refused_is_forgotten() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = Client::new(by_secret(&server)).unwrap();
    let first = client.for_mailbox("alice@example.org").await.unwrap();
    let mailbox = "alice@example.org";
    client.forget_for_mailbox(mailbox, &"another".into());
    assert_eq!(client.for_mailbox(mailbox).await.unwrap(), first);
    client.forget_for_mailbox(mailbox, &first.access);
    let second = client.for_mailbox(mailbox).await.unwrap();
    assert_ne!(first.access, second.access);
    assert_eq!(server.asked().len(), 2);
}
