//! One account's mailbox: opened once, read by UID, and, where a connection is
//! lost, opened again if it is still the same mailbox.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::ahead::{Ahead, CHEAP};
use super::config::Config;
use super::connection::Connection;
use super::disposal::Disposal;
use super::early::{Early, Tried};
use super::folders::{self, Layout};
use super::login::{Capabilities, Greeted, LoggedIn};
use super::mailbox::{self, Selected};
use super::opening::Flight;
use super::resting::Bond;
use super::retrieval::{ImapBody, Retrieval};
use super::round_trips::RoundTrips;
use super::shared::Shared;
use super::vouching::Seen;
use crate::maildrop::{Maildrop, MessageIndex, Outcome, Policy, Portion, SeenPolicy, Update};
use crate::metrics::Metrics;
use crate::sasl::Credentials;
use crate::store::{FolderKey, Learned, MessageKey, Store};
use crate::upstream::habits::Turn;
use crate::upstream::snapshots::Snapshots;
use crate::upstream::{Body, UpstreamError, UpstreamSession, account_in, calendar};

/// How long LOGOUT may take; nobody waits for it.
const LOGOUT: Duration = Duration::from_secs(5);

/// Where a session is, and under which policies.
pub(super) struct Place {
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub store: Option<Store>,
    pub snapshots: Arc<Snapshots>,
    /// There is a store, even where this session does not look into it.
    pub has_store: bool,
    pub policy: Arc<Policy>,
    pub metrics: Arc<Metrics>,
}

/// A session with an IMAP server.
pub(super) struct ImapSession {
    pub(super) config: Arc<Config>,
    pub(super) shared: Arc<Shared>,
    pub(super) store: Option<Store>,
    /// Of the folders, from one opening to the next.
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) has_store: bool,
    pub(super) policy: Arc<Policy>,
    pub(super) metrics: Arc<Metrics>,
    credentials: Credentials,
    client: IpAddr,
    pub(super) connection: Option<Connection>,
    /// Which folder is open on the connection.
    pub(super) selected: Option<usize>,
    pub(super) capabilities: Capabilities,
    /// What was sent behind the login, and nobody has heard yet.
    pub(super) early: Option<Box<Flight>>,
    pub(super) layout: Option<Layout>,
    /// The folders' names, once they were looked for.
    pub(super) names: Vec<String>,
    /// The folders, in the same order, once they were opened.
    pub(super) folders: Vec<Folder>,
    pub(super) messages: Messages,
    notes: Notes,
    round_trips: RoundTrips,
    /// Whom the connection may rest for behind the session.
    pub(super) bond: Option<Bond>,
    /// The connection has rested, and the maildrop is not yet open. Whatever goes
    /// wrong until then goes wrong for that connection only.
    pub(super) is_kept: bool,
    /// Something went wrong: the next session begins with a new connection.
    pub(super) is_troubled: bool,
    /// The login came when the account's next one was expected.
    pub(super) turn: Turn,
    /// What the next session may do with, if nothing changes until then.
    pub(super) seen: Option<Seen>,
    /// When the connection was logged in.
    pub(super) logged_in: Instant,
    pub(super) ahead: Ahead,
}

/// A folder of the session.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub name: String,
    pub key: FolderKey,
    pub uid_validity: u32,
    /// Opened by SELECT, not by EXAMINE.
    pub writes: bool,
    pub disposal: Disposal,
    /// What becomes of messages that have expired.
    pub expiry: Option<Disposal>,
}

/// What a session knows of its messages, by message index.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub uids: Vec<u32>,
    /// As listed, which may be an estimate.
    pub octets: Vec<u64>,
    /// Places in [`ImapSession::folders`]; empty where there is one folder.
    pub folders: Vec<u16>,
    /// When messages were first retrieved, in seconds since 1970; only where
    /// they can expire.
    pub retrieved: HashMap<MessageIndex, i64>,
}

/// What a session learns, to be kept at its end.
#[derive(Debug, Default)]
struct Notes {
    octets: BTreeMap<MessageIndex, u64>,
    retrieved: BTreeMap<MessageIndex, i64>,
    /// Still to be marked as read.
    unread: BTreeSet<MessageIndex>,
}

impl ImapSession {
    /// A session on a connection that is logged in.
    pub fn over(
        place: Place,
        credentials: Credentials,
        client: IpAddr,
        mut connection: Connection,
        capabilities: Capabilities,
    ) -> Self {
        let Place {
            config,
            shared,
            store,
            snapshots,
            has_store,
            policy,
            metrics,
        } = place;
        let round_trips = RoundTrips::new(Arc::clone(&metrics));
        round_trips.adopt(&mut connection);
        let read_ahead = config.economy.read_ahead;
        Self {
            ahead: Ahead::new(read_ahead, Arc::clone(&shared), Arc::clone(&metrics)),
            config,
            shared,
            store,
            snapshots,
            has_store,
            policy,
            metrics,
            credentials,
            client,
            connection: Some(connection),
            selected: None,
            capabilities,
            early: None,
            layout: None,
            names: Vec::new(),
            folders: Vec::new(),
            messages: Messages::default(),
            notes: Notes::default(),
            round_trips,
            bond: None,
            is_kept: false,
            is_troubled: false,
            turn: Turn::Unexpected,
            seen: None,
            logged_in: Instant::now(),
        }
    }

    /// Whose mailbox this is, for what the upstream's sessions share.
    pub(super) fn account(&self) -> &str {
        self.credentials.mailbox()
    }

    /// What the store calls a folder.
    pub(super) fn folder_key(&self, name: &str) -> FolderKey {
        folder_key(self.config.realm.as_deref(), self.account(), name)
    }

    /// A connection that is ready for a command on this folder: the present one,
    /// or a new one; the folder is open there, and still the same. A command that
    /// was begun and not finished leaves a connection that is not ready; what was
    /// asked for ahead is settled first.
    pub(super) async fn ready(&mut self, folder: usize) -> Result<&mut Connection, UpstreamError> {
        self.connected().await?;
        if self.selected != Some(folder) {
            self.select(folder).await?;
        }
        self.connection.as_mut().ok_or_else(lost)
    }

    /// A connection that can carry a command: the present one, or a new one.
    pub(super) async fn connected(&mut self) -> Result<&mut Connection, UpstreamError> {
        self.settle_ahead().await;
        if !self.is_usable() {
            self.connection = None;
            self.selected = None;
            self.seen = None;
            let connected = connect(
                &self.config,
                &self.shared,
                &self.credentials,
                self.client,
                None,
            )
            .await;
            let (connected, _) = connected.map_err(|error| match error {
                // They were good when the session began.
                UpstreamError::Authentication => {
                    UpstreamError::temporary("the credentials are no longer accepted")
                }
                other => other,
            })?;
            let mut connection = connected.connection;
            self.round_trips.adopt(&mut connection);
            self.logged_in = Instant::now();
            self.capabilities = connected.capabilities;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or_else(lost)
    }

    /// Opens a folder, anew if it is open: its UIDVALIDITY must be what it was, or
    /// the UIDs may name other messages by now. `Gone`: it no longer exists.
    pub(super) async fn select(&mut self, folder: usize) -> Result<Selected, UpstreamError> {
        self.selected = None;
        self.seen = None;
        let was_doubtful = self.connected().await?.is_doubtful();
        let mut selected = self.try_select(folder).await;
        if was_doubtful && selected.is_err() {
            self.connection = None;
            selected = self.try_select(folder).await;
        }
        let selected = selected?;
        let Some(known) = self.folders.get(folder) else {
            return Err(lost());
        };
        if selected.uid_validity != known.uid_validity {
            return Err(UpstreamError::temporary(
                "UIDVALIDITY changed during the session",
            ));
        }
        self.selected = Some(folder);
        Ok(selected)
    }

    async fn try_select(&mut self, folder: usize) -> Result<Selected, UpstreamError> {
        self.connected().await?;
        let (Some(known), Some(connection)) = (self.folders.get(folder), self.connection.as_mut())
        else {
            return Err(lost());
        };
        let selected = mailbox::select(connection, &known.name, known.writes).await?;
        connection.trust();
        Ok(selected)
    }

    /// Whether a failure may be none of the message's: of a connection that broke
    /// while it rested, or of a server that does not bear many commands at once.
    fn may_begin_again(&mut self, error: &UpstreamError) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        let by_reading_ahead = self.ahead.is_involved()
            && match error {
                UpstreamError::Gone => false,
                UpstreamError::Temporary { retry_after, .. } => {
                    retry_after.is_none() && !connection.is_broken()
                }
                _ => true,
            };
        if by_reading_ahead {
            self.ahead.fail();
        }
        // One that broke while it rested is no failure of this message.
        let has_gone = connection.is_lost() || (connection.is_doubtful() && connection.is_broken());
        by_reading_ahead || has_gone
    }

    pub(super) fn is_usable(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.is_usable())
    }

    /// Keeps in mind, for all sessions of this account, how long the upstream
    /// asked to be left alone.
    pub(super) fn heed(&mut self, error: &UpstreamError) {
        self.is_troubled |= !matches!(error, UpstreamError::Gone);
        heed(&self.shared, self.account(), error);
    }

    /// Where a message is: folder and UID.
    pub(super) fn place(&self, message: MessageIndex) -> Result<(usize, u32), UpstreamError> {
        let uid = self.messages.uids.get(message).copied();
        let folder = self
            .messages
            .folders
            .get(message)
            .map_or(0, |it| (*it).into());
        uid.map(|uid| (folder, uid)).ok_or(UpstreamError::Gone)
    }

    /// What the store knows a message by.
    fn key(&self, message: MessageIndex) -> Option<(&Folder, MessageKey)> {
        let (folder, uid) = self.place(message).ok()?;
        let folder = self.folders.get(folder)?;
        Some((folder, Box::new(message_key(folder.uid_validity, uid))))
    }

    /// Looks for the folders of the policy, once.
    pub(super) async fn find_folders(&mut self) -> Result<(), UpstreamError> {
        if self.names.is_empty() {
            let connection = self.connection.as_mut().ok_or_else(lost)?;
            let (capabilities, policy) = (&self.capabilities, &self.policy);
            self.names =
                folders::resolve(connection, capabilities, policy, &mut self.layout).await?;
        }
        Ok(())
    }

    /// Messages that are to be marked as read when the session ends.
    pub(super) fn take_unread(&mut self) -> BTreeSet<MessageIndex> {
        std::mem::take(&mut self.notes.unread)
    }

    /// Gives the store what the session has learned, all at once. That may be
    /// lost, and is no reason for an error.
    async fn learn(&mut self) {
        let Notes {
            octets, retrieved, ..
        } = std::mem::take(&mut self.notes);
        let Some(store) = &self.store else { return };
        let mut learned: HashMap<usize, Vec<Learned>> = HashMap::new();
        let messages: BTreeSet<_> = octets.keys().chain(retrieved.keys()).copied().collect();
        for message in messages {
            let folder = self.place(message).map_or(0, |(folder, _)| folder);
            if let Some((_, key)) = self.key(message) {
                learned.entry(folder).or_default().push(Learned {
                    message: key,
                    octets: octets.get(&message).copied(),
                    retrieved: retrieved.get(&message).copied(),
                });
            }
        }
        for (folder, learned) in learned {
            if let Some(folder) = self.folders.get(folder)
                && let Err(error) = store.learn(&folder.key, learned).await
            {
                tracing::warn!(upstream = %self.config.name, %error, "what was learned is not kept");
            }
        }
    }
}

/// What the store calls a folder of an account.
pub(super) fn folder_key(realm: Option<&str>, account: &str, name: &str) -> FolderKey {
    FolderKey {
        account: account_in(realm, account),
        folder: name.to_owned(),
    }
}

/// What the store knows a message by.
pub(super) fn message_key(uid_validity: u32, uid: u32) -> [u8; 8] {
    (u64::from(uid_validity) << 32 | u64::from(uid)).to_be_bytes()
}

pub(super) fn unkept(error: crate::store::StoreError) -> UpstreamError {
    UpstreamError::temporary(error.to_string().as_str())
}

pub(super) fn lost() -> UpstreamError {
    UpstreamError::temporary("the connection is lost")
}

/// Connects and logs in, with what is to be sent early behind the login where
/// there is such.
pub(super) async fn connect(
    config: &Config,
    shared: &Shared,
    credentials: &Credentials,
    client: IpAddr,
    early: Option<Early>,
) -> Result<(LoggedIn, Option<Box<Flight>>), UpstreamError> {
    let account = credentials.mailbox();
    shared.pauses.check(account)?;
    let greet = || async {
        let greeted = Greeted::connect(config).await?;
        shared.learn_mechanisms(&greeted.capabilities);
        Ok::<_, UpstreamError>(greeted)
    };
    let connected = async {
        let mut is_unclear = false;
        if let Some(early) = early {
            match early
                .login(greet().await?, credentials, client, config)
                .await?
            {
                Tried::Done(logged_in, flight) => return Ok((*logged_in, flight)),
                Tried::Otherwise(logged_in) => {
                    shared.send_nothing_early();
                    return Ok((*logged_in, None));
                }
                Tried::Unclear => is_unclear = true,
                Tried::Lost(error) => {
                    shared.send_nothing_early();
                    return Err(error);
                }
            }
        }
        let mut greeted = greet().await?;
        greeted.identify(config, client).await?;
        let logged_in = greeted.login(credentials, config).await?;
        if is_unclear {
            // Without anything behind it, it did work.
            shared.send_nothing_early();
        }
        Ok((logged_in, None))
    };
    let connected = connected.await;
    match &connected {
        Ok((logged_in, _)) => shared.learn_capabilities(logged_in),
        Err(error) => heed(shared, account, error),
    }
    connected
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
        let mut found = self.find_folders().await;
        if let Err(error) = &found
            && self.is_kept_to_blame(error)
        {
            self.begin_anew().await?;
            found = self.find_folders().await;
        }
        found.inspect_err(|error| self.heed(error))?;
        Ok(self.names.clone())
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let mut maildrop = self.open_folders().await;
        if let Err(error) = &maildrop
            && self.is_kept_to_blame(error)
        {
            let locked = self.names.clone();
            self.begin_anew().await?;
            self.find_folders()
                .await
                .inspect_err(|error| self.heed(error))?;
            maildrop = match self.names == locked {
                true => self.open_folders().await,
                false => Err(UpstreamError::temporary("the folders are others now")),
            };
        }
        self.is_kept = false;
        if let (Ok(_), Some(connection)) = (&maildrop, &mut self.connection)
            && !connection.idling().is_on()
        {
            connection.trust();
        }
        maildrop.inspect_err(|error| self.heed(error))
    }

    async fn retrieve(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        let place = self.place(message)?;
        self.shared.pauses.check(self.account())?;
        let listed = self.messages.octets.get(message).copied().unwrap_or(0);
        if portion == Portion::Whole && listed > self.config.limits.literal {
            return Err(UpstreamError::Misconfigured(
                "a message that is larger than upstream_limits.literal".into(),
            ));
        }
        self.ahead.turn_to(message, portion);
        let retrieval = || Retrieval::new(message, place, listed, portion);
        let mut begun = retrieval().begin(self).await;
        // Nothing of it was seen yet.
        if let Err(error) = &begun
            && self.may_begin_again(error)
        {
            self.settle_ahead().await;
            begun = retrieval().begin(self).await;
        }
        let retrieval = begun.inspect_err(|error| self.heed(error))?;
        if let Some(connection) = &mut self.connection {
            connection.trust();
        }
        Ok(Box::new(ImapBody::new(self, retrieval)))
    }

    fn kept_as(&self, message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        let (folder, key) = self.key(message)?;
        Some((folder.key.clone(), key))
    }

    async fn delivered(&mut self, message: MessageIndex, octets: u64) {
        let Ok((place, uid)) = self.place(message) else {
            return;
        };
        if let Some(folder) = self.folders.get(place)
            && self.messages.octets.get(message) != Some(&octets)
        {
            let uid_validity = folder.uid_validity;
            self.shared.learn(&folder.key, uid_validity, uid, octets);
            self.notes.octets.insert(message, octets);
        }
        if self.policy.expire_after.is_some() && !self.messages.retrieved.contains_key(&message) {
            self.notes
                .retrieved
                .entry(message)
                .or_insert_with(calendar::now);
        }
        if self.policy.seen == SeenPolicy::OnRetr && !self.mark_as_read(place, &[uid]).await {
            self.notes.unread.insert(message);
        }
    }

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        let outcome = self.carry_out(update).await;
        self.is_troubled |= !matches!(&outcome, Ok(outcome) if outcome.remaining.is_empty());
        self.learn().await;
        outcome.inspect_err(|error| self.heed(error))
    }

    async fn close(&mut self) {
        self.learn().await;
        self.settle_ahead_within(CHEAP).await;
        if let Some(connection) = self.connection.take()
            && connection.is_usable()
            && let Some(connection) = self.rest(connection)
        {
            connection.logout(LOGOUT).await;
        }
    }
}
