//! Connections that rest between sessions: who gets one, what is asked on it,
//! and what becomes of it when something goes wrong. The servers here keep a
//! journal of the wire.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod real;
mod takeover;
mod trouble;
mod vouching;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use popgate::maildrop::{DeletePolicy, Maildrop, MessageIndex, Policy, Portion, Update};
use popgate::metrics::{Metrics, Opening};
use popgate::sasl::Credentials;
use popgate::upstream::imap::{Config, Imap, Limits, Security, Timeouts};
use popgate::upstream::{Economy, ReadAhead, Rest, Upstream, UpstreamError, UpstreamSession};
use rustls::{ClientConfig, RootCertStore};
use support::scripted_imap::Builder;
use support::{PATIENCE, ScriptedImap, messages};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

type Session = Box<dyn UpstreamSession>;

/// An upstream, and what it counts.
struct Site {
    imap: Imap,
    metrics: Arc<Metrics>,
    policy: Arc<Policy>,
}

fn config(port: u16) -> Config {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Config {
        name: "the upstream".to_owned(),
        realm: None,
        host: "localhost".to_owned(),
        port,
        security: Security::Cleartext,
        tls: Arc::new(tls),
        send_client_address: false,
        timeouts: Timeouts {
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(2),
            command: Duration::from_secs(20),
        },
        limits: Limits::default(),
        economy: Economy {
            rest: Rest::default(),
            read_ahead: ReadAhead::OFF,
        },
    }
}

impl Site {
    fn new(server: &ScriptedImap) -> Self {
        Self::with(config(server.port()))
    }

    fn with(config: Config) -> Self {
        let metrics = Arc::new(Metrics::new());
        Self {
            imap: Imap::new(config, None).counting(Arc::clone(&metrics)),
            metrics,
            policy: policy(DeletePolicy::Expunge),
        }
    }

    async fn try_login(
        &self,
        credentials: Credentials,
        policy: &Arc<Policy>,
        client: IpAddr,
    ) -> Result<Session, UpstreamError> {
        let login = self.imap.login(credentials, client, Arc::clone(policy));
        let mut session = in_time(login).await?;
        in_time(session.folders()).await?;
        Ok(session)
    }

    async fn try_open(
        &self,
        credentials: Credentials,
    ) -> Result<(Session, Maildrop), UpstreamError> {
        let mut session = self.try_login(credentials, &self.policy, CLIENT).await?;
        let maildrop = in_time(session.snapshot()).await?;
        Ok((session, maildrop))
    }

    /// Logs alice in and opens her maildrop.
    async fn open(&self) -> (Session, Maildrop) {
        self.try_open(password("alice")).await.unwrap()
    }

    /// A session that looks and goes. The unique ids that it was shown.
    async fn poll(&self) -> Vec<String> {
        let (mut session, maildrop) = self.open().await;
        in_time(session.close()).await;
        ids(&maildrop)
    }

    /// Connections at rest now.
    fn resting(&self) -> i64 {
        self.metrics.upstream_resting.get()
    }

    /// Waits until so many rest.
    async fn rests(&self, count: i64) {
        eventually(|| self.resting() == count).await;
    }

    /// Sessions that took no more than so many round trips.
    fn within(&self, round_trips: u32) -> u64 {
        let start = format!("popgate_upstream_round_trips_bucket{{le=\"{round_trips}.0\"}} ");
        let text = self.metrics.encode();
        let count = text.lines().find_map(|line| line.strip_prefix(&start));
        count.unwrap().parse().unwrap()
    }

    fn opened(&self, how: Opening) -> u64 {
        self.metrics.openings.get_or_create(&how).get()
    }
}

fn policy(delete: DeletePolicy) -> Arc<Policy> {
    Arc::new(Policy {
        delete,
        ..Policy::default()
    })
}

fn password(user: &str) -> Credentials {
    wrong(user, &format!("pw-{user}"))
}

fn wrong(user: &str, password: &str) -> Credentials {
    Credentials::password(user, password).unwrap()
}

fn ids(maildrop: &Maildrop) -> Vec<String> {
    let all = (0..maildrop.len()).filter_map(|index| maildrop.get(index));
    all.map(|message| message.unique_id.to_string()).collect()
}

async fn in_time<F: Future>(work: F) -> F::Output {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.expect("it does not end")
}

/// Waits until it is so.
async fn eventually(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn read(session: &mut Session, message: MessageIndex) -> Result<Vec<u8>, UpstreamError> {
    let mut body = in_time(session.retrieve(message, Portion::Whole)).await?;
    let mut octets = Vec::new();
    while let Some(chunk) = in_time(body.chunk()).await? {
        octets.extend_from_slice(&chunk);
    }
    Ok(octets)
}

async fn remove(session: &mut Session, messages: &[MessageIndex]) {
    let outcome = session.update(&Update::new(messages.to_vec())).await;
    assert_eq!(outcome.unwrap().removed, messages);
}

fn builder(count: usize) -> Builder {
    let messages: Vec<Vec<u8>> = (1..=count).map(|n| messages::plain(n, 300)).collect();
    ScriptedImap::builder().messages(&messages)
}

/// Logins that were sent, of whatever kind.
fn logins(server: &ScriptedImap) -> usize {
    server.commands_starting("AUTHENTICATE").len() + server.commands_starting("LOGIN ").len()
}
