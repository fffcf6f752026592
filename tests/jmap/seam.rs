//! Sessions at the seam, under any policy and with any store: what a POP3
//! server in front would do, and nothing in between.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use popgate::config::{self, Given, Origin, Overrides, Purpose};
use popgate::maildrop::{Maildrop, MessageIndex, Outcome, Policy, Portion, Update};
use popgate::metrics::{Metrics, Opening};
use popgate::sasl::Credentials;
use popgate::store::{FolderKey, MessageKey, Store};
use popgate::upstream::jmap::{Config, Jmap, diagnose};
use popgate::upstream::{Economy, Finding, Upstream as _, UpstreamError, UpstreamSession};

/// A JMAP server as popgate sees it.
pub struct Seam {
    runtime: tokio::runtime::Runtime,
    config: Config,
    upstream: Jmap,
    metrics: Arc<Metrics>,
}

/// A session of alice's, and what it listed.
pub struct Open<'a> {
    runtime: &'a tokio::runtime::Runtime,
    session: Box<dyn UpstreamSession>,
    /// The names of its folders.
    pub folders: Vec<String>,
    pub maildrop: Maildrop,
    retrieved: Vec<MessageIndex>,
}

/// A session of alice's that has listed nothing yet.
pub struct LoggedIn<'a> {
    runtime: &'a tokio::runtime::Runtime,
    session: Box<dyn UpstreamSession>,
}

impl<'a> LoggedIn<'a> {
    pub fn open(mut self) -> Open<'a> {
        let opened = async {
            let folders = self.session.folders().await.unwrap();
            let maildrop = self.session.snapshot().await.unwrap();
            (folders, maildrop)
        };
        let (folders, maildrop) = self.runtime.block_on(opened);
        Open {
            runtime: self.runtime,
            session: self.session,
            folders,
            maildrop,
            retrieved: Vec::new(),
        }
    }
}

impl Seam {
    pub fn new(url: &str, store: Option<Store>) -> Self {
        let overrides = Overrides {
            upstream: Some(Given {
                value: url.to_owned(),
                origin: Origin::Missing("test"),
            }),
            ..Overrides::default()
        };
        let loaded = config::load(overrides, Purpose::Check).unwrap();
        let Some(config::Upstream::Jmap(mut config)) = loaded.upstream else {
            panic!("{url} is no JMAP");
        };
        config.economy = Economy::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let metrics = Arc::<Metrics>::default();
        Self {
            runtime,
            upstream: Jmap::new(config.clone(), store).counting(Arc::clone(&metrics)),
            config,
            metrics,
        }
    }

    pub fn try_open(&self, policy: &Policy) -> Result<Open<'_>, UpstreamError> {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let credentials = Credentials::password("alice", "pw-alice").unwrap();
        let policy = Arc::new(policy.clone());
        let opened = async {
            let mut session = self.upstream.login(credentials, client, policy).await?;
            let folders = session.folders().await?;
            let maildrop = session.snapshot().await?;
            Ok::<_, UpstreamError>((session, folders, maildrop))
        };
        let (session, folders, maildrop) = self.runtime.block_on(opened)?;
        Ok(Open {
            runtime: &self.runtime,
            session,
            folders,
            maildrop,
            retrieved: Vec::new(),
        })
    }

    pub fn open(&self, policy: &Policy) -> Open<'_> {
        self.try_open(policy).unwrap()
    }

    /// A session that has logged in, and opens its folders when it is told to.
    pub fn login(&self, policy: &Policy) -> LoggedIn<'_> {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let credentials = Credentials::password("alice", "pw-alice").unwrap();
        let policy = Arc::new(policy.clone());
        let login = self.upstream.login(credentials, client, policy);
        LoggedIn {
            runtime: &self.runtime,
            session: self.runtime.block_on(login).unwrap(),
        }
    }

    /// Folders that were opened so.
    pub fn openings(&self, how: Opening) -> u64 {
        self.metrics.openings.get_or_create(&how).get()
    }

    /// The unique ids that a login shows.
    pub fn listed(&self, policy: &Policy) -> Vec<String> {
        self.open(policy).unique_ids()
    }

    /// DELE of these messages, by their indexes, and QUIT.
    pub fn delete(
        &self,
        policy: &Policy,
        messages: &[MessageIndex],
    ) -> Result<Outcome, UpstreamError> {
        self.open(policy).quit(messages)
    }

    /// What `popgate check` tells alice's operator, a line for each step, and
    /// whether all is well.
    pub fn diagnose(&self, policy: &Policy) -> (bool, String) {
        let credentials = Credentials::password("alice", "pw-alice").unwrap();
        let mut lines = String::new();
        let tell = |step, finding| {
            let told = match finding {
                Finding::Good(told) => format!("{step}: {told}\n"),
                Finding::Warning(told) => format!("{step} note: {told}\n"),
                Finding::Bad { seen, advice } => format!("{step} FAILED: {seen}: {advice}\n"),
            };
            lines.push_str(&told);
        };
        let told = diagnose(&self.config, policy, Some(&credentials), tell);
        let well = self.runtime.block_on(told);
        (well, lines)
    }

    /// Why a login is refused: a setting that has to be changed.
    #[track_caller]
    pub fn misconfigured(&self, policy: &Policy) -> String {
        match self.try_open(policy).map(|open| open.unique_ids()) {
            Err(UpstreamError::Misconfigured(reason) | UpstreamError::NoFolder(reason)) => {
                reason.to_string()
            }
            other => panic!("{policy:?}: {other:?}"),
        }
    }
}

impl Open<'_> {
    pub fn unique_ids(&self) -> Vec<String> {
        let messages = self.maildrop.iter();
        messages
            .map(|message| message.unique_id.to_owned())
            .collect()
    }

    pub fn sizes(&self) -> Vec<u64> {
        self.maildrop.iter().map(|message| message.octets).collect()
    }

    /// RETR, with every octet delivered.
    pub fn retrieve(&mut self, message: MessageIndex) -> Vec<u8> {
        let octets = self.maildrop.get(message).unwrap().octets;
        self.retrieve_as(message, octets)
    }

    /// The same, where the message turns out to have so many octets.
    pub fn retrieve_as(&mut self, message: MessageIndex, delivered: u64) -> Vec<u8> {
        let session = &mut self.session;
        let read = async {
            let mut octets = Vec::new();
            let mut body = session.retrieve(message, Portion::Whole).await.unwrap();
            while let Some(chunk) = body.chunk().await.unwrap() {
                octets.extend_from_slice(&chunk);
            }
            drop(body);
            session.delivered(message, delivered).await;
            octets
        };
        let octets = self.runtime.block_on(read);
        self.retrieved.push(message);
        octets
    }

    pub fn kept_as(&self, message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        self.session.kept_as(message)
    }

    /// DELE of these messages, and QUIT.
    pub fn quit(mut self, messages: &[MessageIndex]) -> Result<Outcome, UpstreamError> {
        let update = Update::with_retrieved(messages.to_vec(), self.retrieved);
        let updated = async {
            let outcome = self.session.update(&update).await;
            self.session.close().await;
            outcome
        };
        self.runtime.block_on(updated)
    }

    /// The connection is lost.
    pub fn reset(mut self) {
        self.runtime.block_on(self.session.close());
    }
}
