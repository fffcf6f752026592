//! What a session learns of messages, for those that come after it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::messages::Messages;
use super::update::Folder;
use crate::maildrop::{MessageIndex, Update};
use crate::store::{Kept, Learned, Store};
use crate::upstream::calendar;

/// Sizes and times of messages.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// When messages were first retrieved, in seconds since 1970, as far as
    /// that was known at login.
    retrieved: HashMap<MessageIndex, i64>,
    /// What was not written yet.
    news: BTreeMap<MessageIndex, News>,
}

/// What was learned of a message.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    octets: Option<u64>,
    retrieved: Option<i64>,
}

impl Learning {
    /// Takes over when messages were retrieved before.
    pub fn recall(&mut self, messages: &Messages, kept: &[Kept]) {
        if kept.iter().all(|kept| kept.retrieved.is_empty()) {
            return;
        }
        for message in 0..messages.len() {
            let first = messages.kept_as(message).into_iter().next();
            let since = first.and_then(|(folder, key)| {
                let kept = kept.get(usize::from(folder))?;
                kept.retrieved.get(&key).copied()
            });
            self.retrieved.extend(since.map(|it| (message, it)));
        }
    }

    /// A message turned out to have so many octets.
    pub fn octets(&mut self, message: MessageIndex, octets: u64) {
        self.news.entry(message).or_default().octets = Some(octets);
    }

    /// A message was retrieved, now; what counts is the first time.
    pub fn retrieved(&mut self, message: MessageIndex) {
        if !self.retrieved.contains_key(&message) {
            let news = self.news.entry(message).or_default();
            news.retrieved.get_or_insert_with(calendar::now);
        }
    }

    /// Messages that were retrieved as long ago as `age`, before this session,
    /// and are not deleted anyway.
    pub fn expired(&self, age: Duration, update: &Update) -> Vec<MessageIndex> {
        update.expired(&self.retrieved, calendar::before(calendar::now(), age))
    }

    /// Writes what was learned. It may be lost: a failure is logged.
    pub async fn write(&mut self, store: Option<&Store>, messages: &Messages, folders: &[Folder]) {
        let news = std::mem::take(&mut self.news);
        let Some(store) = store else {
            return;
        };
        let mut batches: BTreeMap<u8, Vec<Learned>> = BTreeMap::new();
        for (message, news) in news {
            if let Some((folder, key)) = messages.kept_as(message).into_iter().next() {
                batches.entry(folder).or_default().push(Learned {
                    message: key,
                    octets: news.octets,
                    retrieved: news.retrieved,
                });
            }
        }
        for (folder, batch) in batches {
            let Some(folder) = folders.get(usize::from(folder)) else {
                continue;
            };
            if let Err(error) = store.learn(&folder.key, batch).await {
                tracing::warn!(%error, "sizes and times of messages were not kept");
            }
        }
    }
}
