//! Opening a folder in few round trips, on servers that have things to say about
//! that: what is sent ahead saves time where all goes as expected, and costs
//! nothing but time where it does not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod early;
mod flight;
mod warm;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use popgate::maildrop::{DeletePolicy, Maildrop, Policy};
use popgate::metrics::Metrics;
use popgate::sasl::Credentials;
use popgate::store::Store;
use popgate::upstream::imap::{Imap, Timeouts};
use popgate::upstream::{Rest, Upstream, UpstreamError, UpstreamSession};

use support::scripted_imap::{Builder, Command, World};
use support::{Answer, PATIENCE, ScriptedImap, imap_config, messages};

/// popgate's upstream in front of a server, and what it counts.
struct Rig {
    upstream: Imap,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new(server: &ScriptedImap) -> Self {
        Self::at(&server.plain_url(), None)
    }

    fn at(url: &str, store: Option<Store>) -> Self {
        Self::over(url, store, Timeouts::default())
    }

    fn over(url: &str, store: Option<Store>, timeouts: Timeouts) -> Self {
        let mut config = imap_config(url);
        config.timeouts = timeouts;
        // Each session is to log in.
        config.economy.rest = Rest::OFF;
        let metrics = Arc::new(Metrics::new());
        Self {
            upstream: Imap::new(config, store).counting(Arc::clone(&metrics)),
            metrics,
        }
    }

    async fn login(&self, policy: &Policy) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        self.login_with(alice(), policy).await
    }

    async fn login_with(
        &self,
        credentials: Credentials,
        policy: &Policy,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let login = self
            .upstream
            .login(credentials, nobody, Arc::new(policy.clone()));
        tokio::time::timeout(PATIENCE, login)
            .await
            .expect("the login does not end")
    }

    async fn try_open(&self, policy: &Policy) -> Result<Maildrop, UpstreamError> {
        let mut session = self.login(policy).await?;
        session.folders().await?;
        let opened = tokio::time::timeout(PATIENCE, session.snapshot()).await;
        let maildrop = opened.expect("the opening does not end")?;
        session.close().await;
        Ok(maildrop)
    }

    /// Opens the maildrop, and gives the sizes of its messages.
    async fn open(&self, policy: &Policy) -> Vec<u64> {
        let maildrop = self.try_open(policy).await.unwrap();
        maildrop.iter().map(|message| message.octets).collect()
    }

    /// How often a session waited for its server, which has ended.
    async fn round_trips(&self, policy: &Policy) -> u64 {
        let before = self.counted("popgate_upstream_round_trips_sum");
        self.open(policy).await;
        self.counted("popgate_upstream_round_trips_sum") - before
    }

    /// The value of a series.
    fn counted(&self, series: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        let value = line.and_then(|rest| rest.trim().split('.').next());
        value.unwrap().parse().unwrap()
    }
}

fn alice() -> Credentials {
    Credentials::password("alice", "pw-alice").unwrap()
}

fn policy(delete: DeletePolicy) -> Policy {
    Policy {
        delete,
        ..Policy::default()
    }
}

fn trash() -> Policy {
    policy(DeletePolicy::TrashIfThere)
}

fn builder(count: usize) -> Builder {
    let messages: Vec<Vec<u8>> = (1..=count).map(|n| messages::plain(n, 100 * n)).collect();
    ScriptedImap::builder().messages(&messages)
}

/// The sizes of the first messages of [`builder`].
fn sizes(count: usize) -> Vec<u64> {
    let size = |n| messages::plain(n, 100 * n).len() as u64;
    (1..=count).map(size).collect()
}

/// The commands of one connection.
fn commands(server: &ScriptedImap, connection: usize) -> Vec<String> {
    let commands = server.commands().into_iter();
    let of_it = commands.filter(|(number, _)| *number == connection);
    of_it.map(|(_, line)| line).collect()
}

fn starting(commands: &[String], start: &str) -> usize {
    commands.iter().filter(|it| it.starts_with(start)).count()
}
