//! A gateway in the test's own process, in front of an upstream with defects:
//! what no mail server would do, and limits that the configuration refuses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use popgate::maildrop::{
    Maildrop, MaildropBuilder, MessageIndex, Outcome, Policy, Portion, UniqueId, Update,
};
use popgate::metrics::Metrics;
use popgate::sasl::{Credentials, Mechanism};
use popgate::server::config::{Config, Limits, Listener, Security, Timeouts};
use popgate::server::policies::Policies;
use popgate::store::{FolderKey, MessageKey};
use popgate::upstream::{Body, Upstream, UpstreamError, UpstreamSession};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, Pop3, only};

/// An upstream whose sessions do as the user's name says.
struct Fake;

struct FakeSession {
    user: String,
}

#[async_trait]
impl Upstream for Fake {
    async fn login(
        &self,
        credentials: Credentials,
        _client: IpAddr,
        _policy: Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let user = credentials.user().to_owned();
        Ok(Box::new(FakeSession { user }))
    }

    fn accepts(&self, mechanism: Mechanism) -> bool {
        mechanism.takes_password()
    }

    fn name(&self) -> &str {
        "fake"
    }
}

/// Only the first of each kind, so that the next session shows what is left.
static PANICKED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

fn panic_once(which: usize) {
    assert!(PANICKED[which].swap(true, Ordering::SeqCst), "a defect");
}

#[async_trait]
impl UpstreamSession for FakeSession {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        Ok(vec!["INBOX".to_owned()])
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        if self.user == "panics-listing" {
            panic_once(0);
        }
        let mut maildrop = MaildropBuilder::with_capacity(1);
        let unique_id = UniqueId::of("1".to_owned());
        maildrop.push(5, &unique_id).unwrap();
        Ok(maildrop.build().unwrap())
    }

    async fn retrieve(
        &mut self,
        _message: MessageIndex,
        _portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        panic_once(1);
        Err(UpstreamError::Gone)
    }

    fn kept_as(&self, _message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        None
    }

    async fn delivered(&mut self, _message: MessageIndex, _octets: u64) {}

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        panic_once(2);
        Ok(Outcome {
            removed: update.delete().to_vec(),
            ..Outcome::default()
        })
    }

    async fn close(&mut self) {}
}

/// An address on loopback at which nobody listens.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A gateway in this process.
struct InProcess {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

impl InProcess {
    fn start(limits: Limits, timeouts: Timeouts) -> Self {
        let address = free_address();
        Self::listening(&[address], limits, timeouts)
    }

    fn listening(addresses: &[SocketAddr], limits: Limits, timeouts: Timeouts) -> Self {
        let metrics = Arc::new(Metrics::new());
        let listener = |address: &SocketAddr| Listener {
            address: *address,
            security: Security::Stls(None),
        };
        let config = Config {
            listeners: addresses.iter().map(listener).collect(),
            allow_cleartext: true,
            policies: Policies::default(),
            http_check: None,
            replace_nul: false,
            session_takeover: false,
            notice: false,
            limits,
            timeouts,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let counted = Arc::clone(&metrics);
        let gateway =
            popgate::server::Gateway::bind(config, only(Arc::new(Fake)), None, counted).unwrap();
        let shutdown = CancellationToken::new();
        runtime.spawn(gateway.run(shutdown.clone()));
        Self {
            runtime,
            address: addresses[0],
            metrics,
            shutdown,
        }
    }

    fn wait_for_metric(&self, line: &str) {
        let started = std::time::Instant::now();
        while !self.metrics.encode().contains(line) {
            let metrics = self.metrics.encode();
            assert!(started.elapsed() < PATIENCE, "no {line} in\n{metrics}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        self.shutdown.cancel();
        self.runtime.shutdown_timeout(PATIENCE);
    }
}

#[test]
fn a_defect_ends_one_session_and_holds_nothing() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let gateway = InProcess::start(limits, Timeouts::default());
    for (count, (user, command)) in [
        ("panics-listing", ""),
        ("alice", "RETR 1"),
        ("alice", "DELE 1\r\nQUIT"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Pop3::connect(gateway.address);
        let commands = format!("USER {user}\r\nPASS x\r\n{command}\r\n");
        client.send_octets(commands.as_bytes());
        while matches!(client.try_line(), Ok(Some(_))) {}
        let ended = format!(
            "popgate_sessions_total{{reason=\"internal\"}} {}\n",
            count + 1
        );
        gateway.wait_for_metric(&ended);
        gateway.wait_for_metric("popgate_sessions_active 0\n");
        gateway.wait_for_metric("popgate_upstream_connections 0\n");
        // There is one place, and one maildrop: both are free.
        let mut client = Pop3::connect(gateway.address);
        client.login(user, "x");
        gateway.wait_for_metric("popgate_upstream_connections 1\n");
        assert_eq!(client.quit(), "+OK bye");
        gateway.wait_for_metric("popgate_sessions_active 0\n");
    }
    gateway.stop();
}

#[test]
fn both_families_may_be_listened_to_on_one_port() {
    let v4 = free_address();
    let v6 = SocketAddr::new("::".parse().unwrap(), v4.port());
    for addresses in [[v4, v6], [v6, v4]] {
        let gateway = InProcess::listening(&addresses, Limits::default(), Timeouts::default());
        let loopback = SocketAddr::new("::1".parse().unwrap(), v4.port());
        for address in [v4, loopback] {
            let client = Pop3::connect(address);
            assert_eq!(client.quit(), "+OK bye");
        }
        gateway.stop();
    }
}

#[test]
fn the_idle_limit_counts_commands_and_not_octets() {
    let timeouts = Timeouts {
        idle: Duration::from_millis(1500),
        ..Timeouts::default()
    };
    let gateway = InProcess::start(Limits::default(), timeouts);
    let mut client = Pop3::connect(gateway.address);
    client.login("alice", "x");
    client.expect_ok("DELE 1");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        client.expect_ok("NOOP");
    }
    let ended = loop {
        std::thread::sleep(Duration::from_millis(50));
        if let Err(error) = client.try_send(b"N") {
            break error;
        }
    };
    let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    assert!(kinds.contains(&ended.kind()), "{ended}");
    gateway.wait_for_metric("popgate_sessions_total{reason=\"idle\"} 1\n");
    gateway.wait_for_metric("popgate_messages_deleted_total 0\n");
    gateway.stop();
}
