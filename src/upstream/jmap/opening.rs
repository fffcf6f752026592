//! A maildrop is opened: by what has changed since the last login, or by a new
//! listing of its folders.

use super::api::Api;
use super::listing::{self, Wanted};
use super::mailboxes::{self, Mailboxes, Source};
use super::messages::Listed;
use super::packed::{self, Head};
use super::refresh::{Asked, Place, Refresh, Rider, Warm};
use super::session::{JmapSession, Site};
use crate::maildrop::{DeletePolicy, Policy};
use crate::metrics::Opening as Opened;
use crate::sasl::Credentials;
use crate::upstream::UpstreamError;

/// What is known of a maildrop before it is opened.
pub(super) struct Opening {
    warm: Option<Warm>,
    /// What has changed, as it was answered at the login.
    asked: Asked,
    /// Updates of the account before that.
    updates: u64,
}

impl Opening {
    /// One that asks for nothing but the folders.
    pub fn new(place: &Site, api: &Api) -> Self {
        Self {
            warm: None,
            asked: Asked::Nothing,
            updates: place.shared.updates.count(api.account()),
        }
    }

    /// One that asks what has changed since the last login, too, where there is
    /// a snapshot of it.
    pub async fn warm(place: &Site, credentials: &Credentials, api: &Api) -> Self {
        let mut opening = Self::new(place, api);
        let places = place.shared.places(&maildrop(credentials, &place.policy));
        let keywords = looks_at_keywords(&place.policy);
        let snapshots = &place.snapshots;
        opening.warm = Warm::load(snapshots, places, api.account(), keywords).await;
        opening
    }

    /// Whether there is a snapshot.
    pub fn is_warm(&self) -> bool {
        self.warm.is_some()
    }

    /// Finds the folders, and asks in the same request.
    pub async fn find(&mut self, place: &Site, api: &Api) -> Result<Mailboxes, UpstreamError> {
        let mut rider = Rider::new(self.warm.as_ref());
        let has_store = place.store.is_some();
        let found = mailboxes::find(api, &place.policy, has_store, &mut rider).await?;
        self.asked = rider.asked();
        Ok(found)
    }
}

/// Whether messages are hidden by a keyword. In an account that several users
/// share, keywords are all users'.
fn looks_at_keywords(policy: &Policy) -> bool {
    policy.delete == DeletePolicy::Hide && policy.shared.is_none()
}

/// Names a maildrop: whose, and which folders of it.
fn maildrop(credentials: &Credentials, policy: &Policy) -> String {
    let owner = policy.shared.as_deref().unwrap_or_default();
    let mut name = format!("{}\0{owner}", credentials.mailbox().to_lowercase());
    for folder in &policy.folders {
        name.push('\0');
        name.push_str(folder.as_str());
    }
    name
}

impl JmapSession {
    /// The listings of the folders: those of the last login, brought up to date,
    /// or else new ones.
    pub(super) async fn listed(&mut self) -> Result<Listed, UpstreamError> {
        let account = self.api.account().to_owned();
        let updates = self.place.shared.updates.count(&account);
        // What was answered before the maildrop was locked may be older than
        // what another session did before it was unlocked.
        let is_current = self.opening.updates == updates;
        let first = match std::mem::replace(&mut self.opening.asked, Asked::Nothing) {
            Asked::Answered(answered) if is_current => Some(answered),
            Asked::Answered(_) | Asked::Nothing => None,
            Asked::Unanswered => return self.listed_anew().await,
        };
        let places = self.places();
        let warm = match self.opening.warm.take().filter(|warm| warm.is_of(&places)) {
            Some(warm) => Some((warm, first)),
            None => {
                let snapshots = &self.place.snapshots;
                let keywords = looks_at_keywords(&self.place.policy);
                let warm = Warm::load(snapshots, places, &account, keywords).await;
                warm.map(|warm| (warm, None))
            }
        };
        if let Some((warm, first)) = warm {
            let refresh = Refresh {
                api: &self.api,
                sources: &self.mailboxes.sources,
                most: self.place.config.limits.messages,
            };
            if let Some(refreshed) = refresh.run(&warm, first).await? {
                let mut folders = Vec::new();
                for (place, (emails, snapshot)) in warm.places().iter().zip(refreshed) {
                    self.place.snapshots.keep(&place.key, snapshot);
                    folders.push(emails);
                }
                self.opened(Opened::Refreshed, folders.len());
                self.remember_places();
                return Listed::new(folders);
            }
        }
        self.listed_anew().await
    }

    /// The listings of the folders, one after the other.
    async fn listed_anew(&mut self) -> Result<Listed, UpstreamError> {
        let keywords = looks_at_keywords(&self.place.policy);
        let mut most = self.place.config.limits.messages;
        let mut folders = Vec::new();
        // That of the first is older than the others.
        let mut since: Option<String> = None;
        for (source, place) in self.mailboxes.sources.iter().zip(self.places()) {
            let wanted = Wanted {
                mailbox: &source.id,
                most,
                expected: source.total,
                keywords,
            };
            let (emails, state) = listing::list(&self.api, wanted).await?;
            most -= emails.len().min(most);
            if since.is_none() {
                since = state;
            }
            if let Some(state) = since.clone() {
                let head = Head {
                    account: self.api.account().to_owned(),
                    mailbox: source.id.clone(),
                    state,
                    keywords,
                    count: 0,
                };
                let snapshots = &self.place.snapshots;
                snapshots.keep(&place.key, packed::pack(head, &emails));
            }
            folders.push(emails);
        }
        self.opened(Opened::Listed, folders.len());
        self.remember_places();
        Listed::new(folders)
    }

    /// The folders, as the store and as the server knows them.
    fn places(&self) -> Vec<Place> {
        let sources = self.mailboxes.sources.iter();
        let place = |source: &Source| Place {
            key: self.key(&source.kept_as),
            mailbox: source.id.clone(),
        };
        sources.map(place).collect()
    }

    /// The next login asks for the changes there at once.
    fn remember_places(&self) {
        let maildrop = maildrop(&self.credentials, &self.place.policy);
        self.place.shared.keep_places(maildrop, self.places());
    }

    fn opened(&self, how: Opened, folders: usize) {
        let openings = &self.place.metrics.openings;
        openings.get_or_create(&how).inc_by(folders as u64);
    }
}
