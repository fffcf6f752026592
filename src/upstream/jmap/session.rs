//! One account's inbox over JMAP.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::Shared;
use super::api::Api;
use super::config::Config;
use super::download::Download;
use super::emails::{Email, Emails};
use super::http::Http;
use super::listing;
use super::mailboxes::{self, Mailboxes};
use super::removal::{Marked, Removal};
use super::resource::Resource;
use super::unique_ids::UniqueIds;
use crate::maildrop::{
    Ingredients, Maildrop, MessageIndex, Outcome, Policy, Portion, UniqueIdFormat, Update,
};
use crate::sasl::Credentials;
use crate::store::{FolderKey, Kept, MessageKey, Store};
use crate::upstream::assembly::{Assembly, Candidate};
use crate::upstream::{Body, UpstreamError, UpstreamSession};

/// Where a session is, and under which policies.
#[derive(Clone)]
pub(super) struct Place {
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub store: Option<Store>,
    pub policy: Arc<Policy>,
}

/// A session with a JMAP server.
pub(super) struct JmapSession {
    place: Place,
    credentials: Credentials,
    api: Arc<Api>,
    mailboxes: Mailboxes,
    /// The messages of the maildrop, by index.
    messages: Emails,
}

impl JmapSession {
    /// Proves the credentials by a request that needs them, and finds the
    /// inbox. The session resource may be known from a login before; where that
    /// turns out to be no good any more, it is asked for again.
    pub async fn login(place: Place, credentials: Credentials) -> Result<Self, UpstreamError> {
        let (config, shared) = (&place.config, &place.shared);
        if let Some(resource) = shared.resource(&credentials) {
            let api = Self::api(config, shared, &credentials, Some(resource)).await?;
            let found = mailboxes::find(&api, &place.policy).await;
            match found {
                Ok(mailboxes) if !api.is_outdated() => {
                    return Self::open(place, credentials, api, mailboxes);
                }
                Err(error) if is_final(&error) => return Err(error),
                Ok(_) | Err(_) => shared.forget_resource(&credentials),
            }
        }
        let api = Self::api(config, shared, &credentials, None).await?;
        let mailboxes = mailboxes::find(&api, &place.policy).await?;
        Self::open(place, credentials, api, mailboxes)
    }

    async fn api(
        config: &Arc<Config>,
        shared: &Arc<Shared>,
        credentials: &Credentials,
        resource: Option<Resource>,
    ) -> Result<Api, UpstreamError> {
        let http = Http::new(Arc::clone(config), Arc::clone(shared), credentials)?;
        let resource = match resource {
            Some(resource) => resource,
            None => fetch(&http, config, credentials).await?,
        };
        Ok(Api::new(http, resource))
    }

    fn open(
        place: Place,
        credentials: Credentials,
        api: Api,
        mailboxes: Mailboxes,
    ) -> Result<Self, UpstreamError> {
        if api.resource.read_only && place.policy.writes() {
            let reason = "the account is read-only, and the delete policy needs to write";
            return Err(UpstreamError::Misconfigured(reason.into()));
        }
        place.shared.keep_resource(&credentials, &api.resource);
        Ok(Self {
            place,
            credentials,
            api: Arc::new(api),
            mailboxes,
            messages: Emails::default(),
        })
    }

    fn known(&self, message: MessageIndex) -> Result<Email<'_>, UpstreamError> {
        self.messages.get(message).ok_or(UpstreamError::Gone)
    }

    async fn begin(
        &self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Download, UpstreamError> {
        let known = self.known(message)?;
        Download::begin(&self.api, known.blob_id, known.size, portion).await
    }

    /// Asks for the session resource again. Returns whether it is another one
    /// than before; on a failure the one that is there stays.
    async fn renew(&mut self) -> bool {
        self.place.shared.forget_resource(&self.credentials);
        let (config, shared) = (&self.place.config, &self.place.shared);
        let Ok(api) = Self::api(config, shared, &self.credentials, None).await else {
            return false;
        };
        // The ids of the messages are those of this account.
        if api.resource.account != self.api.resource.account {
            return false;
        }
        let changed = !api.resource.leads_as(&self.api.resource);
        self.place
            .shared
            .keep_resource(&self.credentials, &api.resource);
        self.api = Arc::new(api);
        changed
    }

    async fn renew_if_outdated(&mut self) {
        if self.api.is_outdated() {
            self.renew().await;
        }
    }
}

/// Whether asking for the session resource again cannot mend this.
fn is_final(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Authentication
            | UpstreamError::Temporary {
                retry_after: Some(_),
                ..
            }
    )
}

/// The session resource, which must be that of the user who logs in.
pub(super) async fn fetch(
    http: &Http,
    config: &Config,
    credentials: &Credentials,
) -> Result<Resource, UpstreamError> {
    let (base, json) = http.resource(&config.resource).await?;
    let resource = Resource::parse(&json, &base, &config.origins)?;
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
    let split = |name: &str| -> (String, Option<String>) {
        match name.to_lowercase().split_once('@') {
            Some((local, domain)) => (local.to_owned(), Some(domain.to_owned())),
            None => (name.to_lowercase(), None),
        }
    };
    let ((local, domain), (other, other_domain)) = (split(user), split(username));
    username.is_empty()
        || local == other && (domain.is_none() || other_domain.is_none() || domain == other_domain)
}

#[async_trait]
impl UpstreamSession for JmapSession {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        Ok(vec!["INBOX".to_owned()])
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        let most = self.place.config.limits.messages;
        let listed = listing::list(&self.api, &self.mailboxes.inbox, most).await?;
        let policy = Arc::clone(&self.place.policy);
        let kept = Kept::default();
        let mut assembly = Assembly::new(&policy, UniqueIdFormat::jmap(), 0, listed.len());
        assembly.folder("INBOX", &kept);
        let mut unique_ids = UniqueIds::default();
        let learned = self.place.shared.octets(self.credentials.mailbox());
        for (row, email) in (0..).zip(listed.iter()) {
            let unique_id = unique_ids
                .next(email.blob_id)
                .ok_or_else(|| UpstreamError::protocol("a blobId that cannot be a unique id"))?;
            let octets = learned.get(email.blob_id).copied().unwrap_or(email.size);
            assembly.message(&Candidate {
                row,
                octets,
                received: None,
                key: unique_id.as_str().as_bytes(),
                known: Ingredients {
                    email_id: Some(email.id),
                    blob_id: Some(unique_id.as_str()),
                    ..Ingredients::default()
                },
            })?;
        }
        drop(unique_ids);
        let assembled = assembly.finish()?;
        self.messages = listed;
        Ok(assembled.maildrop)
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
        let mut begun = self.begin(message, portion).await;
        // The message is gone, or the URL leads there no more.
        if matches!(begun, Err(UpstreamError::Gone)) && self.renew().await {
            begun = self.begin(message, portion).await;
        }
        Ok(Box::new(begun?))
    }

    fn kept_as(&self, _message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        None
    }

    async fn delivered(&mut self, message: MessageIndex, octets: u64) {
        if let Some(known) = self.messages.get(message)
            && known.size != octets
        {
            let account = self.credentials.mailbox();
            self.place
                .shared
                .learn_octets(account, known.blob_id, octets);
        }
    }

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        let marked: HashSet<MessageIndex> = update.delete().iter().copied().collect();
        let mut going = Vec::with_capacity(marked.len());
        for &index in update.delete() {
            let known = self.known(index)?;
            going.push(Marked {
                index,
                id: known.id.into(),
                blob: known.blob_id.into(),
                received_at: known.received_at.into(),
            });
        }
        self.renew_if_outdated().await;
        let kept = self.messages.iter().enumerate();
        let kept = kept.filter(|(index, _)| !marked.contains(index));
        let removal = Removal {
            api: &self.api,
            mailboxes: &self.mailboxes,
            policy: &self.place.policy.delete,
            kept: kept.map(|(_, email)| email.id).collect(),
            most_messages: self.place.config.limits.messages,
        };
        let left = removal.run(going).await?;
        let left: HashSet<MessageIndex> = left.iter().map(|marked| marked.index).collect();
        let (remaining, removed) = update
            .delete()
            .iter()
            .copied()
            .partition(|index| left.contains(index));
        Ok(Outcome { removed, remaining })
    }

    async fn close(&mut self) {}
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
