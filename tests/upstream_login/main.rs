//! Logging in to an IMAP server, against servers that do it in unusual ways,
//! badly, or with ill will.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod blame;
mod capabilities;
mod credentials;
mod deadlines;
mod tls;

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use popgate::sasl::Credentials;
use popgate::upstream::imap::{Config, Imap, Limits, Security, Timeouts};
use popgate::upstream::{Upstream, UpstreamError, UpstreamSession};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use support::scripted_imap::Command;
use support::{Answer, Authority, Identity, PATIENCE, ScriptedImap, messages};

const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn trusting(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority.ca_file()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn config(port: u16, security: Security, authority: &Authority) -> Config {
    Config {
        name: "the upstream".to_owned(),
        realm: None,
        host: "localhost".to_owned(),
        port,
        security,
        tls: trusting(authority),
        send_client_address: false,
        timeouts: Timeouts {
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(20),
            command: Duration::from_secs(20),
        },
        limits: Limits::default(),
        economy: popgate::upstream::Economy::default(),
    }
}

fn cleartext(server: &ScriptedImap) -> Imap {
    let config = config(server.port(), Security::Cleartext, &Authority::new());
    Imap::new(config, None)
}

fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password {
        user: user.to_owned(),
        authorize_as: None,
        password: password.into(),
    }
}

fn alice() -> Credentials {
    password("alice", "pw-alice")
}

fn token(user: &str, token: &str) -> Credentials {
    Credentials::Bearer {
        user: user.to_owned(),
        token: token.into(),
    }
}

/// Logs in; hanging for ever is a failure of the test.
async fn login(
    imap: &Imap,
    credentials: Credentials,
) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
    tokio::time::timeout(PATIENCE, imap.login(credentials, CLIENT, Arc::default()))
        .await
        .expect("the login does not end")
}

async fn login_error(imap: &Imap, credentials: Credentials) -> UpstreamError {
    match login(imap, credentials).await {
        Ok(_) => panic!("logged in"),
        Err(error) => error,
    }
}

fn is_outage(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Temporary { .. } | UpstreamError::Protocol(_)
    )
}

/// Logs in and lists one message.
async fn works(server: &ScriptedImap) {
    let imap = cleartext(server);
    let mut session = login(&imap, alice()).await.unwrap();
    assert_eq!(session.snapshot().await.unwrap().len(), 1);
}

fn one_message() -> support::scripted_imap::Builder {
    ScriptedImap::builder().messages(&[messages::plain(1, 300)])
}

/// The two ways of a password upstream.
const COMMANDS: [&str; 2] = ["AUTHENTICATE", "LOGIN"];

fn answering(
    command: &str,
    answer: impl Fn(&Command) -> Answer + Send + Sync + 'static,
) -> ScriptedImap {
    let builder = match command {
        "LOGIN" => ScriptedImap::builder().without(&["AUTH=PLAIN"]),
        _ => ScriptedImap::builder(),
    };
    builder
        .on(command, move |command, _| answer(command))
        .start()
}
