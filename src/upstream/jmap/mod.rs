//! The JMAP upstream (RFC 8620, RFC 8621).
//!
//! `clients` (connections, which may rest: `resting`) → `http` (credentials,
//! bounded answers, allowed origins) → `resource` (the session resource) → `api`
//! and `calls` → `mailboxes` (from `mailbox_list` and `tree`),
//! `listing` (kept `packed`, brought up to date by `refresh`), `download` (and `ahead`
//! of it), `removal` → `messages` (the maildrop), `update` (the
//! policies at QUIT) → `session`, which is the seam's other side.
//! `docs/decisions/0006-jmap-unique-ids.md` says how messages are told apart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::maildrop::Policy;
use crate::metrics::Metrics;
use crate::sasl::{Credentials, Mechanism};
use crate::store::Store;
use crate::upstream::pauses::Pauses;
use crate::upstream::snapshots::Snapshots;
use crate::upstream::{Upstream, UpstreamError, UpstreamSession};

mod ahead;
mod api;
mod calls;
mod clients;
mod config;
mod date;
mod diagnosis;
mod download;
mod emails;
mod http;
mod ids;
mod keywords;
mod learning;
mod listing;
mod mailbox_list;
mod mailboxes;
mod messages;
mod opening;
mod origin;
mod packed;
mod refresh;
mod removal;
mod resource;
mod resting;
mod retry_after;
mod rounds;
mod session;
mod terms;
mod tree;
mod unique_ids;
mod update;
mod updates;

use refresh::Place;
use resource::Resource;
use resting::Resting;
use updates::Updates;

pub use config::{Config, Limits, Timeouts};
pub use diagnosis::diagnose;
pub use origin::Origins;

/// A JMAP server as configured.
#[derive(Debug)]
pub struct Jmap {
    config: Arc<Config>,
    shared: Arc<Shared>,
    store: Option<Store>,
    snapshots: Arc<Snapshots>,
    metrics: Arc<Metrics>,
}

impl Jmap {
    /// The upstream; it is first connected to when somebody logs in. Without a
    /// store nothing is kept beyond this process.
    pub fn new(mut config: Config, store: Option<Store>) -> Self {
        config.economy.rest = config.economy.rest.as_descriptors_allow();
        Self {
            snapshots: Arc::new(Snapshots::new(store.clone(), &config.name)),
            config: Arc::new(config),
            shared: Arc::default(),
            store,
            metrics: Arc::default(),
        }
    }

    /// Counts where the program's metrics are.
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }
}

#[async_trait]
impl Upstream for Jmap {
    async fn login(
        &self,
        credentials: Credentials,
        _client: IpAddr,
        policy: Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let place = session::Site {
            config: Arc::clone(&self.config),
            shared: Arc::clone(&self.shared),
            store: self.store.clone(),
            snapshots: Arc::clone(&self.snapshots),
            metrics: Arc::clone(&self.metrics),
            policy,
        };
        let session = session::JmapSession::login(place, credentials).await?;
        Ok(Box::new(session))
    }

    fn accepts(&self, _mechanism: Mechanism) -> bool {
        // Basic takes passwords, Bearer takes tokens.
        true
    }

    fn name(&self) -> &str {
        &self.config.name
    }

    fn realm(&self) -> Option<&str> {
        self.config.realm.as_deref()
    }

    fn opens_by_name(&self) -> bool {
        false
    }
}

/// What the sessions of one upstream know together, by account.
#[derive(Debug, Default)]
struct Shared {
    resources: Mutex<HashMap<String, Resource>>,
    sizes: Mutex<HashMap<String, Sizes>>,
    pauses: Pauses,
    resting: Resting,
    ahead: OnceLock<Arc<Semaphore>>,
    /// Accounts for which downloads ahead were too many, and when.
    too_many: Mutex<HashMap<String, Instant>>,
    /// Where the folders of maildrops are: by user, owner and folders.
    places: Mutex<HashMap<String, Vec<Place>>>,
    updates: Updates,
}

/// True sizes of messages, with CRLF line ends, where the blobs have others; by
/// blobId.
type Sizes = HashMap<Box<str>, u64>;

/// Accounts remembered; beyond that all are forgotten and asked for anew.
const MOST_ACCOUNTS: usize = 10_000;
/// Sizes remembered of one account.
const MOST_SIZES: usize = 10_000;

impl Shared {
    /// The session resource as it was at the last login: for the user's own
    /// account, or the one that `owner` shares.
    fn resource(&self, credentials: &Credentials, owner: Option<&str>) -> Option<Resource> {
        let name = cached_for(credentials, owner)?;
        lock(&self.resources).get(&name).cloned()
    }

    fn keep_resource(&self, credentials: &Credentials, owner: Option<&str>, resource: &Resource) {
        if let Some(name) = cached_for(credentials, owner) {
            let mut resources = lock(&self.resources);
            make_room(&mut resources, &name);
            resources.insert(name, resource.clone());
        }
    }

    fn forget_resource(&self, credentials: &Credentials, owner: Option<&str>) {
        if let Some(name) = cached_for(credentials, owner) {
            lock(&self.resources).remove(&name);
        }
    }

    /// KiB of messages that all sessions may hold ahead.
    fn ahead(&self, octets: u64) -> Arc<Semaphore> {
        let most = usize::try_from(octets / 1024).unwrap_or(usize::MAX);
        let budget = || Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::clone(self.ahead.get_or_init(budget))
    }

    /// The server asked to be left alone for what was downloaded ahead: no session
    /// of the account does so for some time. Else each would be refused all the
    /// rest, its update too.
    fn note_too_many(&self, account: &str) {
        let mut accounts = lock(&self.too_many);
        make_room(&mut accounts, account);
        accounts.insert(account.to_owned(), Instant::now());
    }

    fn is_too_many(&self, account: &str) -> bool {
        const PERIOD: Duration = Duration::from_secs(60 * 60);
        let noted = lock(&self.too_many).get(account).copied();
        noted.is_some_and(|noted| noted.elapsed() < PERIOD)
    }

    /// Where the folders of a maildrop were at the last login.
    fn places(&self, maildrop: &str) -> Vec<Place> {
        lock(&self.places)
            .get(maildrop)
            .cloned()
            .unwrap_or_default()
    }

    fn keep_places(&self, maildrop: String, found: Vec<Place>) {
        let mut places = lock(&self.places);
        make_room(&mut places, &maildrop);
        places.insert(maildrop, found);
    }

    fn octets(&self, account: &str) -> Sizes {
        lock(&self.sizes).get(account).cloned().unwrap_or_default()
    }

    fn learn_octets(&self, account: &str, blob: &str, octets: u64) {
        let mut sizes = lock(&self.sizes);
        make_room(&mut sizes, account);
        let sizes = sizes.entry(account.to_owned()).or_default();
        if sizes.len() >= MOST_SIZES {
            sizes.clear();
        }
        sizes.insert(blob.into(), octets);
    }
}

/// The name under which a session resource is remembered. A token's is asked
/// for each time: only there it shows whose token it is.
fn cached_for(credentials: &Credentials, owner: Option<&str>) -> Option<String> {
    match (credentials, owner) {
        (Credentials::Password { user, .. }, None) => Some(user.clone()),
        // No user name holds a NUL.
        (Credentials::Password { user, .. }, Some(owner)) => Some(format!("{user}\0{owner}")),
        (Credentials::Bearer { .. }, _) => None,
    }
}

fn make_room<T>(accounts: &mut HashMap<String, T>, account: &str) {
    if accounts.len() >= MOST_ACCOUNTS && !accounts.contains_key(account) {
        accounts.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
