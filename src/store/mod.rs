//! What must last of all maildrops, and what may be lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::maildrop::UniqueId;

/// What is kept of maildrops. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Mutex<HashMap<FolderKey, Kept>>>);

/// One folder of one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FolderKey {
    /// The account, in lower case.
    pub account: String,
    /// The folder's name upstream.
    pub folder: String,
}

/// Names a message within its folder, for ever: octets of the upstream's
/// choosing.
pub type MessageKey = Box<[u8]>;

/// A unique id that stays what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Which message.
    pub message: MessageKey,
    /// Its place among those that are frozen.
    pub rank: u32,
    /// Its unique id.
    pub unique_id: UniqueId,
}

/// What is kept of one folder.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Messages that are never shown again.
    pub hidden: HashSet<MessageKey>,
    /// Frozen unique ids, with their places.
    pub frozen: HashMap<MessageKey, (u32, UniqueId)>,
    /// True sizes in octets, where the upstream only estimates.
    pub octets: HashMap<MessageKey, u64>,
    /// When messages were first retrieved, in seconds since 1970.
    pub retrieved: HashMap<MessageKey, i64>,
}

/// Something learned of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Which message.
    pub message: MessageKey,
    /// Its true size in octets.
    pub octets: Option<u64>,
    /// When it was retrieved, in seconds since 1970; the first time stays.
    pub retrieved: Option<i64>,
}

/// The store cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

impl Store {
    /// Everything that is kept of a folder.
    pub async fn folder(&self, folder: &FolderKey) -> Result<Kept, StoreError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.get(folder).cloned().unwrap_or_default())
    }

    /// Hides messages for ever. Durable when it returns.
    pub async fn hide(
        &self,
        folder: &FolderKey,
        messages: Vec<MessageKey>,
    ) -> Result<(), StoreError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(folder.clone())
            .or_default()
            .hidden
            .extend(messages);
        Ok(())
    }

    /// Keeps what may be lost again.
    pub async fn learn(&self, folder: &FolderKey, learned: Vec<Learned>) -> Result<(), StoreError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(folder.clone()).or_default();
        for it in learned {
            if let Some(octets) = it.octets {
                kept.octets.insert(it.message.clone(), octets);
            }
            if let Some(retrieved) = it.retrieved {
                kept.retrieved.entry(it.message).or_insert(retrieved);
            }
        }
        Ok(())
    }
}
