//! One account's mailbox: opened once, read by UID, and, where a connection is
//! lost, opened again if it is still the same mailbox.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::config::Config;
use super::connection::Connection;
use super::login::{Capabilities, Greeted, are_sendable};
use super::mailbox::{self, Removal};
use super::retrieval::{ImapBody, Retrieval};
use super::shared::Shared;
use crate::maildrop::{
    Ingredients, Maildrop, MessageIndex, Outcome, Policy, Portion, UniqueIdFormat, Update,
};
use crate::sasl::Credentials;
use crate::store::{FolderKey, Kept, MessageKey, Store};
use crate::upstream::assembly::{Assembly, Candidate};
use crate::upstream::{Body, UpstreamError, UpstreamSession};

/// How long LOGOUT may take; nobody waits for it.
const LOGOUT: Duration = Duration::from_secs(5);

/// Where a session is, and under which policies.
pub(super) struct Place {
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub store: Option<Store>,
    pub policy: Arc<Policy>,
}

/// A session with an IMAP server.
pub(super) struct ImapSession {
    pub(super) config: Arc<Config>,
    pub(super) shared: Arc<Shared>,
    store: Option<Store>,
    pub(super) policy: Arc<Policy>,
    credentials: Credentials,
    client: IpAddr,
    pub(super) connection: Option<Connection>,
    pub(super) capabilities: Capabilities,
    pub(super) mailbox: Mailbox,
}

/// What a session knows of its mailbox, by message index.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub uid_validity: u32,
    pub uids: Vec<u32>,
    /// As listed, which may be an estimate.
    pub octets: Vec<u64>,
    pub removal: Removal,
}

impl ImapSession {
    /// Logs in; the mailbox is opened later.
    pub async fn login(
        place: Place,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<Self, UpstreamError> {
        let Place {
            config,
            shared,
            store,
            policy,
        } = place;
        if !are_sendable(&credentials) {
            return Err(UpstreamError::Authentication);
        }
        let (connection, capabilities) = connect(&config, &shared, &credentials, client).await?;
        Ok(Self {
            config,
            shared,
            store,
            policy,
            credentials,
            client,
            connection: Some(connection),
            capabilities,
            mailbox: Mailbox {
                uid_validity: 0,
                uids: Vec::new(),
                octets: Vec::new(),
                removal: Removal::Never,
            },
        })
    }

    /// Whose mailbox this is, for what the upstream's sessions share.
    pub(super) fn account(&self) -> &str {
        self.credentials.mailbox()
    }

    /// A connection that is ready for a command: the present one, or a new one
    /// on which the same mailbox is open again. A command that was begun and not
    /// finished leaves a connection that is not.
    pub(super) async fn ready(&mut self) -> Result<&mut Connection, UpstreamError> {
        let connection = match self.connection.take() {
            Some(connection) if connection.is_usable() => connection,
            _ => self.reopen().await?,
        };
        Ok(self.connection.insert(connection))
    }

    async fn reopen(&mut self) -> Result<Connection, UpstreamError> {
        let connected = connect(&self.config, &self.shared, &self.credentials, self.client).await;
        let (mut connection, capabilities) = connected.map_err(|error| match error {
            // They were good when the session began.
            UpstreamError::Authentication => {
                UpstreamError::temporary("the credentials are no longer accepted")
            }
            other => other,
        })?;
        let selected = mailbox::select(&mut connection, self.policy.writes()).await?;
        if selected.uid_validity != self.mailbox.uid_validity {
            return Err(UpstreamError::temporary(
                "UIDVALIDITY changed during the session",
            ));
        }
        self.capabilities = capabilities;
        Ok(connection)
    }

    /// Keeps in mind, for all sessions of this account, how long the upstream
    /// asked to be left alone.
    pub(super) fn heed(&self, error: &UpstreamError) {
        heed(&self.shared, self.account(), error);
    }

    /// The UID of a message of the maildrop.
    pub(super) fn uid(&self, message: MessageIndex) -> Result<u32, UpstreamError> {
        self.mailbox
            .uids
            .get(message)
            .copied()
            .ok_or(UpstreamError::Gone)
    }
}

/// What the store knows a message by.
fn message_key(uid_validity: u32, uid: u32) -> [u8; 8] {
    (u64::from(uid_validity) << 32 | u64::from(uid)).to_be_bytes()
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs().cast_signed())
}

fn unkept(error: crate::store::StoreError) -> UpstreamError {
    UpstreamError::temporary(error.to_string().as_str())
}

async fn connect(
    config: &Config,
    shared: &Shared,
    credentials: &Credentials,
    client: IpAddr,
) -> Result<(Connection, Capabilities), UpstreamError> {
    let account = credentials.mailbox();
    shared.pauses.check(account)?;
    let connected = async {
        let mut greeted = Greeted::connect(config).await?;
        shared.learn_mechanisms(&greeted.capabilities);
        greeted.identify(config, client).await?;
        greeted.login(credentials, config).await
    };
    connected
        .await
        .inspect_err(|error| heed(shared, account, error))
}

fn heed(shared: &Shared, account: &str, error: &UpstreamError) {
    if let UpstreamError::Temporary {
        retry_after: Some(period),
        ..
    } = error
    {
        shared.pauses.begin(account, *period);
    }
}

#[async_trait]
impl UpstreamSession for ImapSession {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        Ok(vec!["INBOX".to_owned()])
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let shared = Arc::clone(&self.shared);
        let account = self.account().to_owned();
        let config = Arc::clone(&self.config);
        let Some(connection) = self.connection.as_mut() else {
            return Err(UpstreamError::temporary("the connection is lost"));
        };
        let unfinished = |uid_validity| shared.unfinished(&account, uid_validity);
        let policy = Arc::clone(&self.policy);
        let most = config.limits.messages;
        let opened = mailbox::open(connection, &self.capabilities, &policy, most, unfinished).await;
        let opened = opened.inspect_err(|error| self.heed(error))?;
        let uid_validity = opened.selected.uid_validity;
        let folder = FolderKey {
            account: account.to_lowercase(),
            folder: "INBOX".to_owned(),
        };
        let kept = match &self.store {
            Some(store) => store.folder(&folder).await.map_err(unkept)?,
            None => Kept::default(),
        };
        let format = UniqueIdFormat::default();
        let mut assembly = Assembly::new(&policy, format, now(), opened.entries.len());
        assembly.folder("INBOX", &kept);
        self.mailbox = Mailbox {
            uid_validity,
            uids: Vec::with_capacity(opened.entries.len()),
            octets: Vec::with_capacity(opened.entries.len()),
            removal: opened.removal,
        };
        let learned = shared.learned(&account, uid_validity);
        for (row, entry) in (0..).zip(&opened.entries) {
            let octets = learned.get(&entry.uid).copied().unwrap_or(entry.octets);
            assembly.message(&Candidate {
                row,
                octets,
                received: None,
                key: &message_key(uid_validity, entry.uid),
                known: Ingredients {
                    uid: Some(entry.uid),
                    uid_validity: Some(uid_validity),
                    ..Ingredients::default()
                },
            })?;
        }
        let assembled = assembly.finish()?;
        for row in assembled.rows {
            if let Some(entry) = opened.entries.get(row as usize) {
                self.mailbox.uids.push(entry.uid);
                self.mailbox.octets.push(entry.octets);
            }
        }
        if !opened.marked.is_empty()
            && let Err(error) = self.unmark(&opened.marked).await
        {
            tracing::warn!(upstream = %self.config.name, %error, "messages stay marked \\Deleted");
        }
        Ok(assembled.maildrop)
    }

    async fn retrieve(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        let uid = self.uid(message)?;
        self.shared.pauses.check(self.account())?;
        let listed = self.mailbox.octets.get(message).copied().unwrap_or(0);
        if portion == Portion::Whole && listed > self.config.limits.literal {
            return Err(UpstreamError::Misconfigured(
                "a message that is larger than upstream_limits.literal".into(),
            ));
        }
        let mut begun = Retrieval::new(uid, listed, portion).begin(self).await;
        // A connection that broke while it rested is no failure of this
        // message: nothing of it was seen yet.
        if begun.is_err() && self.connection.as_ref().is_some_and(Connection::is_lost) {
            self.connection = None;
            begun = Retrieval::new(uid, listed, portion).begin(self).await;
        }
        let retrieval = begun.inspect_err(|error| self.heed(error))?;
        Ok(Box::new(ImapBody::new(self, retrieval)))
    }

    fn kept_as(&self, message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        let uid = self.mailbox.uids.get(message)?;
        let folder = FolderKey {
            account: self.account().to_lowercase(),
            folder: "INBOX".to_owned(),
        };
        let key = message_key(self.mailbox.uid_validity, *uid);
        Some((folder, Box::new(key)))
    }

    async fn delivered(&mut self, message: MessageIndex, octets: u64) {
        let known = (
            self.mailbox.uids.get(message),
            self.mailbox.octets.get(message),
        );
        if let (Some(uid), Some(listed)) = known
            && *listed != octets
        {
            self.shared
                .learn(self.account(), self.mailbox.uid_validity, *uid, octets);
        }
    }

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        let uids: Result<Vec<u32>, _> = update
            .delete()
            .iter()
            .map(|message| self.uid(*message))
            .collect();
        self.shared.pauses.check(self.account())?;
        let left = self.remove(uids?).await;
        let left = left.inspect_err(|error| self.heed(error))?;
        let left: HashSet<u32> = left.into_iter().collect();
        let mut outcome = Outcome::default();
        for &message in update.delete() {
            if left.contains(&self.uid(message)?) {
                outcome.remaining.push(message);
            } else {
                outcome.removed.push(message);
            }
        }
        Ok(outcome)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.is_usable()
        {
            connection.logout(LOGOUT).await;
        }
    }
}
