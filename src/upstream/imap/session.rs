//! One account's mailbox: opened once, read by UID, and, where a connection is
//! lost, opened again if it is still the same mailbox.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::config::Config;
use super::connection::Connection;
use super::login::{Capabilities, Greeted, are_sendable};
use super::mailbox::{self, Removal};
use super::retrieval::{ImapBody, Retrieval};
use super::shared::Shared;
use crate::maildrop::{Maildrop, MaildropBuilder, MessageIndex, Outcome, Portion, Update};
use crate::sasl::Credentials;
use crate::upstream::{Body, UpstreamError, UpstreamSession};

/// How long LOGOUT may take; nobody waits for it.
const LOGOUT: Duration = Duration::from_secs(5);

/// A session with an IMAP server.
pub(super) struct ImapSession {
    pub(super) config: Arc<Config>,
    pub(super) shared: Arc<Shared>,
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
        config: Arc<Config>,
        shared: Arc<Shared>,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<Self, UpstreamError> {
        if !are_sendable(&credentials) {
            return Err(UpstreamError::Authentication);
        }
        let (connection, capabilities) = connect(&config, &shared, &credentials, client).await?;
        Ok(Self {
            config,
            shared,
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
        let selected = mailbox::select(&mut connection, self.config.delete.writes()).await?;
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
    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let shared = Arc::clone(&self.shared);
        let account = self.account().to_owned();
        let config = Arc::clone(&self.config);
        let Some(connection) = self.connection.as_mut() else {
            return Err(UpstreamError::temporary("the connection is lost"));
        };
        let unfinished = |uid_validity| shared.unfinished(&account, uid_validity);
        let opened = mailbox::open(connection, &self.capabilities, &config, unfinished).await;
        let opened = opened.inspect_err(|error| self.heed(error))?;
        let uid_validity = opened.selected.uid_validity;
        let mut maildrop = MaildropBuilder::with_capacity(opened.entries.len());
        self.mailbox = Mailbox {
            uid_validity,
            uids: Vec::with_capacity(opened.entries.len()),
            octets: Vec::with_capacity(opened.entries.len()),
            removal: opened.removal,
        };
        let learned = shared.learned(&account, uid_validity);
        for entry in &opened.entries {
            let octets = learned.get(&entry.uid).copied().unwrap_or(entry.octets);
            let unique_id = config.unique_ids.unique_id(entry.uid, uid_validity);
            maildrop
                .push(octets, &unique_id)
                .map_err(|error| UpstreamError::protocol(error.to_string().as_str()))?;
            self.mailbox.uids.push(entry.uid);
            self.mailbox.octets.push(entry.octets);
        }
        if !opened.marked.is_empty()
            && let Err(error) = self.unmark(&opened.marked).await
        {
            tracing::warn!(upstream = %self.config.name, %error, "messages stay marked \\Deleted");
        }
        maildrop
            .build()
            .map_err(|error| UpstreamError::protocol(error.to_string().as_str()))
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

    fn learn_octets(&mut self, message: MessageIndex, octets: u64) {
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
