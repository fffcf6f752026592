//! One account's maildrop over JMAP.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::Shared;
use super::ahead::{Ahead, Waited};
use super::api::Api;
use super::clients::Lane;
use super::config::Config;
use super::download::Download;
use super::emails::Email;
use super::http::Http;
use super::learning::Learning;
use super::mailboxes::Mailboxes;
use super::messages::{Making, Messages};
use super::opening::Opening;
use super::resource::Resource;
use super::rounds::Rounds;
use super::terms::{check_unique_ids, needs_write};
use super::update::{AtQuit, Folder, mark_read, unusable};
use crate::maildrop::{Maildrop, MessageIndex, Outcome, Policy, Portion, SeenPolicy, Update};
use crate::metrics::Metrics;
use crate::sasl::Credentials;
use crate::store::{FolderKey, Kept, MessageKey, Store};
use crate::upstream::snapshots::Snapshots;
use crate::upstream::{Body, UpstreamError, UpstreamSession, account_in, calendar};

/// Where a session is, and under which policies.
#[derive(Clone)]
pub(super) struct Site {
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub store: Option<Store>,
    pub snapshots: Arc<Snapshots>,
    pub policy: Arc<Policy>,
    pub metrics: Arc<Metrics>,
}

/// A session with a JMAP server.
pub(super) struct JmapSession {
    pub(super) place: Site,
    pub(super) credentials: Credentials,
    pub(super) api: Arc<Api>,
    rounds: Arc<Rounds>,
    pub(super) mailboxes: Mailboxes,
    messages: Messages,
    ahead: Ahead,
    /// What is known of the maildrop, until it is open.
    pub(super) opening: Opening,
    /// By folder, once they were listed.
    folders: Vec<Folder>,
    learning: Learning,
    /// Messages that were marked as read.
    read: HashSet<MessageIndex>,
}

impl JmapSession {
    /// Proves the credentials by a request that needs them, and finds the
    /// inbox. The session resource may be known from a login before; where that
    /// turns out to be no good any more, it is asked for again.
    pub async fn login(place: Site, credentials: Credentials) -> Result<Self, UpstreamError> {
        check_unique_ids(&place.policy)?;
        let shared = &place.shared;
        let owner = place.policy.shared.as_deref();
        let rounds = Arc::<Rounds>::default();
        if let Some(resource) = shared.resource(&credentials, owner) {
            let api = Self::api(&place, &rounds, &credentials, Some(resource)).await?;
            let mut opening = Opening::warm(&place, &credentials, &api).await;
            match opening.find(&place, &api).await {
                Ok(found) if !api.is_outdated() => {
                    return Self::open(place, credentials, (api, rounds), (found, opening));
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(UpstreamError::NoFolder(reason)) if !api.is_outdated() => {
                    return Err(UpstreamError::NoFolder(reason));
                }
                Ok(_) | Err(_) => shared.forget_resource(&credentials, owner),
            }
            // The simplest way, whatever it was.
            let api = Self::api(&place, &rounds, &credentials, None).await?;
            let mut opening = Opening::new(&place, &api);
            let found = opening.find(&place, &api).await?;
            return Self::open(place, credentials, (api, rounds), (found, opening));
        }
        let api = Self::api(&place, &rounds, &credentials, None).await?;
        let mut opening = Opening::warm(&place, &credentials, &api).await;
        let found = match opening.find(&place, &api).await {
            // It may have been too much for one request.
            Err(error) if opening.is_warm() && !is_final(&error) => {
                opening = Opening::new(&place, &api);
                opening.find(&place, &api).await?
            }
            found => found?,
        };
        Self::open(place, credentials, (api, rounds), (found, opening))
    }

    async fn api(
        place: &Site,
        rounds: &Arc<Rounds>,
        credentials: &Credentials,
        resource: Option<Resource>,
    ) -> Result<Api, UpstreamError> {
        let (config, shared) = (&place.config, &place.shared);
        let (of_http, rounds) = (Arc::clone(shared), Arc::clone(rounds));
        let http = Http::new(Arc::clone(config), of_http, rounds, credentials)?;
        let owner = place.policy.shared.as_deref();
        let resource = match resource {
            Some(resource) => resource,
            None => fetch(&http, config, credentials, owner).await?,
        };
        Ok(Api::new(http, resource))
    }

    fn open(
        place: Site,
        credentials: Credentials,
        (api, rounds): (Api, Arc<Rounds>),
        (mailboxes, opening): (Mailboxes, Opening),
    ) -> Result<Self, UpstreamError> {
        if api.resource.read_only && needs_write(&place.policy) {
            let reason = "the account is read-only, and the delete policy needs to write";
            return Err(UpstreamError::Misconfigured(reason.into()));
        }
        let owner = place.policy.shared.as_deref();
        let shared = &place.shared;
        shared.keep_resource(&credentials, owner, &api.resource);
        let terms = place.config.economy.read_ahead;
        let budget = shared.ahead(terms.process);
        Ok(Self {
            ahead: Ahead::new(terms, budget, Arc::clone(&place.metrics)),
            place,
            credentials,
            api: Arc::new(api),
            rounds,
            mailboxes,
            opening,
            messages: Messages::default(),
            folders: Vec::new(),
            learning: Learning::default(),
            read: HashSet::new(),
        })
    }

    fn known(&self, message: MessageIndex) -> Result<Email<'_>, UpstreamError> {
        self.messages.get(message).ok_or(UpstreamError::Gone)
    }

    async fn begin(
        &self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Box<Download>, UpstreamError> {
        let known = self.known(message)?;
        let (api, blob, size) = (&self.api, known.blob_id, known.size);
        let begun = Download::begin(api, blob, size, portion, Lane::Asked).await;
        begun.map(Box::new)
    }

    /// The message as it was downloaded ahead; where that hangs, whichever
    /// answers first: that, or a download of its own. None where it has to be
    /// downloaded the plain way.
    async fn downloaded_ahead(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Option<Result<Box<Download>, UpstreamError>> {
        let slot = self.ahead.asked(message, portion);
        self.ahead.go_on(&self.api, &self.messages);
        let mut slot = slot?;
        let failure = match slot.wait().await {
            Waited::Done(download) => return Some(Ok(download)),
            Waited::Failed(error) => error,
            Waited::Stalled => tokio::select! {
                ended = slot.end() => match ended {
                    Ok(download) => return Some(Ok(download)),
                    Err(error) => error,
                },
                begun = self.begin(message, portion) => return Some(begun),
            },
        };
        if !matches!(failure, UpstreamError::Gone) {
            self.ahead.failed();
        }
        None
    }

    /// Asks for the session resource again. Returns whether it is another one
    /// than before; on a failure the one that is there stays.
    async fn renew(&mut self) -> bool {
        let owner = self.place.policy.shared.as_deref();
        let shared = &self.place.shared;
        shared.forget_resource(&self.credentials, owner);
        let (place, rounds) = (&self.place, &self.rounds);
        let Ok(api) = Self::api(place, rounds, &self.credentials, None).await else {
            return false;
        };
        // The ids of the messages are those of this account.
        if api.resource.account != self.api.resource.account {
            return false;
        }
        let changed = !api.resource.leads_as(&self.api.resource);
        shared.keep_resource(&self.credentials, owner, &api.resource);
        // What is under way may lead nowhere.
        self.ahead.clear();
        self.api = Arc::new(api);
        changed
    }

    async fn renew_if_outdated(&mut self) {
        if self.api.is_outdated() {
            self.renew().await;
        }
    }

    /// What is kept of the folders, by their places.
    async fn kept(&self) -> Result<Vec<Kept>, UpstreamError> {
        let mut all = Vec::new();
        for source in &self.mailboxes.sources {
            let kept = match &self.place.store {
                Some(store) => store.folder(&self.key(&source.kept_as)).await,
                None => Ok(Kept::default()),
            };
            all.push(kept.map_err(unusable)?);
        }
        Ok(all)
    }

    pub(super) fn key(&self, folder: &str) -> FolderKey {
        FolderKey {
            account: account_in(
                self.place.config.realm.as_deref(),
                self.credentials.mailbox(),
            ),
            folder: folder.to_owned(),
        }
    }

    async fn keep_learned(&mut self) {
        let store = self.place.store.as_ref();
        let learning = &mut self.learning;
        learning.write(store, &self.messages, &self.folders).await;
    }

    fn at_quit(&self) -> AtQuit<'_> {
        AtQuit {
            api: &self.api,
            policy: &self.place.policy,
            mailboxes: &self.mailboxes,
            messages: &self.messages,
            folders: &self.folders,
            store: self.place.store.as_ref(),
            most_messages: self.place.config.limits.messages,
        }
    }
}

/// Whether asking again, or for something else, cannot mend this.
pub(super) fn is_final(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Authentication
            | UpstreamError::Temporary {
                retry_after: Some(_),
                ..
            }
    )
}

/// The session resource, which must be that of the user who logs in, for the
/// account that another user shares, where it is to be that one.
pub(super) async fn fetch(
    http: &Http,
    config: &Config,
    credentials: &Credentials,
    shared: Option<&str>,
) -> Result<Resource, UpstreamError> {
    let (base, json) = http.resource(&config.resource).await?;
    let resource = Resource::parse(&json, &base, &config.origins, shared)?;
    match credentials {
        // HTTP carries no name beside a token: whose it is shows here.
        Credentials::Bearer { user, .. } if !is_same_user(user, &resource.username) => {
            Err(UpstreamError::Authentication)
        }
        _ => Ok(resource),
    }
}

/// Whether a server may call this user so: with or without a domain. Some
/// servers give no name at all (RFC 8620 §2).
fn is_same_user(user: &str, username: &str) -> bool {
    username.is_empty() || is_called(user, username)
}

/// Whether both are names of one user, with or without a domain.
pub(super) fn is_called(user: &str, username: &str) -> bool {
    let split = |name: &str| -> (String, Option<String>) {
        match name.to_lowercase().split_once('@') {
            Some((local, domain)) => (local.to_owned(), Some(domain.to_owned())),
            None => (name.to_lowercase(), None),
        }
    };
    let ((local, domain), (other, other_domain)) = (split(user), split(username));
    local == other && (domain.is_none() || other_domain.is_none() || domain == other_domain)
}

#[async_trait]
impl UpstreamSession for JmapSession {
    fn names_its_user(&self) -> bool {
        let resource = &self.api.resource;
        match &self.credentials {
            // Where the server gives a name, it is that of the user (`fetch`).
            Credentials::Bearer { user, .. } => {
                !resource.username.is_empty() || is_called(user, &resource.account_name)
            }
            Credentials::Password { .. } => true,
        }
    }

    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        let sources = self.mailboxes.sources.iter();
        Ok(sources.map(|source| source.name.clone()).collect())
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let kept = self.kept().await?;
        let listed = self.listed().await?;
        let sources = &self.mailboxes.sources;
        // A folder that was named twice is one.
        let policy = Policy {
            folders: sources.iter().map(|source| source.folder.clone()).collect(),
            ..Policy::clone(&self.place.policy)
        };
        let making = Making {
            policy: &policy,
            sources,
            kept: &kept,
            sizes: &self.place.shared.octets(self.credentials.mailbox()),
            now: calendar::now(),
        };
        let (messages, maildrop) = Messages::assemble(listed, &making)?;
        self.folders = sources
            .iter()
            .zip(&kept)
            .map(|(source, kept)| Folder {
                key: self.key(&source.kept_as),
                hides_by_store: !source.has_keywords || !kept.hidden.is_empty(),
            })
            .collect();
        if policy.expire_after.is_some() {
            self.learning.recall(&messages, &kept);
        }
        self.messages = messages;
        Ok(maildrop)
    }

    async fn retrieve(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        if self.known(message)?.size > self.place.config.limits.message {
            let reason = "a message that is larger than is allowed (upstream_limits.literal)";
            return Err(UpstreamError::Misconfigured(reason.into()));
        }
        self.renew_if_outdated().await;
        let mut begun = match self.downloaded_ahead(message, portion).await {
            Some(begun) => begun,
            None => self.begin(message, portion).await,
        };
        // The message is gone, or the URL leads there no more.
        if matches!(begun, Err(UpstreamError::Gone)) && self.renew().await {
            begun = self.begin(message, portion).await;
        }
        Ok(begun?)
    }

    fn kept_as(&self, message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        let (folder, key) = self.messages.kept_as(message).into_iter().next()?;
        let folder = self.folders.get(usize::from(folder))?;
        Some((folder.key.clone(), key))
    }

    async fn delivered(&mut self, message: MessageIndex, octets: u64) {
        let Some(known) = self.messages.get(message) else {
            return;
        };
        if known.size != octets {
            let account = self.credentials.mailbox();
            let shared = &self.place.shared;
            shared.learn_octets(account, known.blob_id, octets);
            self.learning.octets(message, octets);
        }
        let policy = &self.place.policy;
        if policy.expire_after.is_some() {
            self.learning.retrieved(message);
        }
        if policy.seen == SeenPolicy::OnRetr && self.read.insert(message) {
            mark_read(&self.api, &self.messages, &[message]).await;
        }
    }

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        self.ahead.clear();
        let shared = Arc::clone(&self.place.shared);
        let account = self.api.account().to_owned();
        let _updating = shared.updates.begin(&account);
        self.renew_if_outdated().await;
        if self.place.policy.seen == SeenPolicy::OnQuit {
            mark_read(&self.api, &self.messages, update.retrieved()).await;
        }
        let deleted = self.at_quit().delete(update.delete()).await;
        let due = self.place.policy.expire_after;
        let expired = match (&deleted, due) {
            (Ok(_), Some(age)) => {
                let due = self.learning.expired(age, update);
                self.at_quit().expire(due).await
            }
            _ => Vec::new(),
        };
        // What could not be deleted was retrieved all the same.
        self.keep_learned().await;
        let left = deleted?;
        let (remaining, removed) = update
            .delete()
            .iter()
            .copied()
            .partition(|index| left.contains(index));
        Ok(Outcome {
            removed,
            remaining,
            expired,
        })
    }

    async fn close(&mut self) {
        self.ahead.clear();
        self.keep_learned().await;
        self.api.http.rest(&self.place.metrics);
    }
}

impl Drop for JmapSession {
    fn drop(&mut self) {
        #[allow(clippy::cast_precision_loss)]
        let rounds = self.rounds.count() as f64;
        self.place.metrics.upstream_round_trips.observe(rounds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_token_it_is() {
        for (user, username) in [
            ("alice", "alice"),
            ("Alice", "alice@example.org"),
            ("alice@example.org", "ALICE"),
            ("alice@example.org", "alice@Example.org"),
            ("alice", ""),
        ] {
            assert!(is_same_user(user, username), "{user} {username}");
        }
        for (user, username) in [
            ("alice", "bob"),
            ("alice", "alicea"),
            ("alice@example.org", "alice@example.com"),
            ("alice@example.org", "bob@example.org"),
        ] {
            assert!(!is_same_user(user, username), "{user} {username}");
        }
    }
}
