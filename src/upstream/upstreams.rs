//! Every place where mailboxes are: the gateway's own, and those of accounts,
//! made when they are first needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Listings, Reason, Upstream, UpstreamError, realm};
use crate::store::Store;

/// Makes an upstream of its URL, in the realm of that ([`realm()`]).
pub type Make = Box<dyn Fn(&str) -> Result<Arc<dyn Upstream>, Reason> + Send + Sync>;

/// The upstreams of a gateway.
pub struct Upstreams {
    gateway: Option<Arc<dyn Upstream>>,
    make: Make,
    made: Mutex<HashMap<String, Arc<dyn Upstream>>>,
    listings: Listings,
}

impl Upstreams {
    /// The gateway's own, where it has one, and how others are made.
    pub fn new(gateway: Option<Arc<dyn Upstream>>, make: Make) -> Self {
        Self {
            gateway,
            make,
            made: Mutex::default(),
            listings: Listings::default(),
        }
    }

    /// Keeps in this store what maildrops show, for a time when they do not open.
    pub fn keeping(self, store: Option<Store>) -> Self {
        Self {
            listings: Listings::new(store),
            ..self
        }
    }

    /// What maildrops showed last.
    pub fn listings(&self) -> &Listings {
        &self.listings
    }

    /// The gateway's own.
    pub fn gateway(&self) -> Option<&Arc<dyn Upstream>> {
        self.gateway.as_ref()
    }

    /// The one with this URL, which is the operator's: the same one each time, and
    /// the gateway's own where it is that.
    pub fn at(&self, url: &str) -> Result<Arc<dyn Upstream>, UpstreamError> {
        if let Some(gateway) = &self.gateway
            && is_same(gateway.name(), url)
        {
            return Ok(Arc::clone(gateway));
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = made.get(url) {
            return Ok(Arc::clone(upstream));
        }
        let upstream = (self.make)(url).map_err(UpstreamError::Misconfigured)?;
        made.insert(url.to_owned(), Arc::clone(&upstream));
        Ok(upstream)
    }

    /// Closes what rests between sessions, everywhere.
    pub async fn close(&self) {
        let made = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *made)
        };
        let all = self.gateway.iter().cloned().chain(made.into_values());
        futures_util::future::join_all(all.map(|it| async move { it.close().await })).await;
    }
}

/// Whether two URLs name one server, reached in the same way.
fn is_same(one: &str, other: &str) -> bool {
    let scheme = |url: &str| url.split_once(':').map(|(it, _)| it.to_lowercase());
    scheme(one) == scheme(other) && realm(one) == realm(other)
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstreams")
    }
}
