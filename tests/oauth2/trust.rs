//! Whom secrets go to.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use support::{Authority, Identity};

use super::*;

/// A server that does its part of a TLS handshake and collects what it is sent
/// afterwards.
fn listener(identity: &Identity) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let config = identity.server_config();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&received);
    thread::spawn(move || {
        for socket in listener.incoming().take(2) {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket.unwrap());
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut octets) {
                collected.lock().unwrap().extend(&octets[..count]);
            }
        }
    });
    (port, received)
}

fn registration_at(url: &str, authority: &Authority) -> Registration {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority.ca_file()).unwrap();
    roots.add(certificate).unwrap();
    Registration {
        grant: Grant::User,
        endpoints: Endpoints {
            token: Some(url.parse().unwrap()),
            authorization: Some("https://localhost/".parse().unwrap()),
            ..Endpoints::default()
        },
        client_id: CLIENT_ID.to_owned(),
        client_proof: ClientProof::Secret(CLIENT_SECRET.into()),
        scopes: Vec::new(),
        authorization_parameters: Vec::new(),
        tls: trusting(roots),
    }
}

#[tokio::test]
async fn a_bad_certificate_gets_nothing() {
    let authority = Authority::new();
    for identity in [
        Authority::new().localhost(),
        authority.other_host(),
        authority.expired(),
        Identity::self_signed(),
    ] {
        let (port, received) = listener(&identity);
        let url = format!("https://localhost:{port}/token");
        let client = Client::new(registration_at(&url, &authority)).unwrap();
        let refreshed = refreshed(&client, &"secret".into()).await;
        assert!(is_misconfigured(&refreshed), "{refreshed:?}");
        assert!(received.lock().unwrap().is_empty());
    }
    // The same server gets it all where its certificate is good.
    let (port, received) = listener(&authority.localhost());
    let url = format!("https://localhost:{port}/token");
    let registration = registration_at(&url, &authority);
    let client = Client::with_patience(registration, Duration::from_secs(1)).unwrap();
    assert!(is_temporary(&refreshed(&client, &"secret".into()).await));
    assert!(!received.lock().unwrap().is_empty());
}

#[test]
fn urls_that_secrets_do_not_go_to() {
    let authority = Authority::new();
    for url in [
        "http://login.example.org/token",
        "http://192.0.2.1/token",
        "ftp://127.0.0.1/token",
        "https://user:password@login.example.org/token",
    ] {
        let client = Client::new(registration_at(url, &authority));
        assert!(is_misconfigured(&client), "{url}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let authority = Authority::new();
    let client = Client::new(registration_at("https://localhost/", &authority)).unwrap();
    assert!(!format!("{client:?}").contains(CLIENT_SECRET));
}
