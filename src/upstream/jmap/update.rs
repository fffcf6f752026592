//! The end of a session: what its policy does with the messages that were
//! deleted, retrieved, or retrieved long ago.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::api::Api;
use super::calls::{Calls, SetAnswer};
use super::ids::batches;
use super::keywords::Keyword;
use super::mailboxes::Mailboxes;
use super::messages::Messages;
use super::removal::{Leaving, Marked, Removal};
use crate::maildrop::{DeletePolicy, MessageIndex, Policy};
use crate::store::{FolderKey, MessageKey, Store, StoreError};
use crate::upstream::{Reason, UpstreamError};

/// A session at its end.
pub(super) struct AtQuit<'a> {
    pub api: &'a Api,
    pub policy: &'a Policy,
    pub mailboxes: &'a Mailboxes,
    pub messages: &'a Messages,
    /// By folder: what the store calls it, and whether it hides messages there.
    pub folders: &'a [Folder],
    pub store: Option<&'a Store>,
    pub most_messages: usize,
}

/// A folder of the session, as the store knows it.
#[derive(Debug)]
pub(super) struct Folder {
    pub key: FolderKey,
    /// `hide` uses the store: there are no keywords for it, or it did before.
    pub hides_by_store: bool,
}

impl AtQuit<'_> {
    /// Does what DELE asked for. Returns the messages for which that is not
    /// known to be done; an error means that it is known for none.
    pub async fn delete(
        &self,
        messages: &[MessageIndex],
    ) -> Result<HashSet<MessageIndex>, UpstreamError> {
        if messages.is_empty() {
            return Ok(HashSet::new());
        }
        let trash = self.mailboxes.trash.as_deref();
        let target = self.mailboxes.target.as_deref();
        let lost = || UpstreamError::Misconfigured("the delete policy has no folder".into());
        let leaving = match &self.policy.delete {
            DeletePolicy::TrashIfThere => trash.map_or(Leaving::Expunge, Leaving::Trash),
            DeletePolicy::Trash => Leaving::Trash(trash.ok_or_else(lost)?),
            DeletePolicy::Archive | DeletePolicy::Move(_) => {
                Leaving::Into(target.ok_or_else(lost)?)
            }
            DeletePolicy::Expunge => Leaving::Expunge,
            DeletePolicy::Seen => Leaving::Marked(Keyword::Seen),
            DeletePolicy::Hide => return self.hide(messages).await,
            DeletePolicy::Refuse => {
                let reason = "the delete policy refuses deletion";
                return Err(UpstreamError::Misconfigured(reason.into()));
            }
        };
        self.remove(messages, leaving).await
    }

    async fn remove(
        &self,
        messages: &[MessageIndex],
        leaving: Leaving<'_>,
    ) -> Result<HashSet<MessageIndex>, UpstreamError> {
        let marked = messages.iter().map(|message| self.marked(*message));
        let marked = marked.collect::<Result<Vec<_>, _>>()?;
        let removal = Removal {
            api: self.api,
            sources: &self.mailboxes.sources,
            leaving,
            known: self.messages.emails(),
            most_messages: self.most_messages,
        };
        let left = removal.run(marked).await?;
        Ok(left.into_iter().map(|marked| marked.index).collect())
    }

    fn marked(&self, index: MessageIndex) -> Result<Marked, UpstreamError> {
        let email = self.messages.get(index).ok_or(UpstreamError::Gone)?;
        let folders = self.messages.kept_as(index).into_iter();
        Ok(Marked {
            index,
            id: email.id.into(),
            blob: email.blob_id.into(),
            received_at: email.received_at.into(),
            folders: folders.map(|(folder, _)| folder).collect(),
        })
    }

    /// Hides messages: by the keyword, or in the store, as each one's folder
    /// has it.
    async fn hide(
        &self,
        messages: &[MessageIndex],
    ) -> Result<HashSet<MessageIndex>, UpstreamError> {
        let by_store = |message: &MessageIndex| {
            let email = self.messages.get(*message);
            let folder = email.and_then(|it| self.folders.get(usize::from(it.folder)));
            folder.is_some_and(|it| it.hides_by_store)
        };
        let (stored, marked): (Vec<MessageIndex>, Vec<MessageIndex>) =
            messages.iter().copied().partition(by_store);
        let mut left = HashSet::new();
        let mut failure = None;
        match self.hide_in_store(&stored).await {
            Ok(()) => {}
            Err(error) => {
                left.extend(stored);
                failure = Some(error);
            }
        }
        if !marked.is_empty() {
            match self.remove(&marked, Leaving::Marked(Keyword::Hidden)).await {
                Ok(remaining) => left.extend(remaining),
                Err(error) => {
                    left.extend(marked);
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if left.len() == messages.len() => Err(error),
            Some(error) => {
                tracing::warn!(%error, left = left.len(), "not all messages could be hidden");
                Ok(left)
            }
            None => Ok(left),
        }
    }

    /// Durable when it returns. A message that lies in several folders of the
    /// session is hidden in each.
    async fn hide_in_store(&self, messages: &[MessageIndex]) -> Result<(), UpstreamError> {
        let mut keys: BTreeMap<u8, Vec<MessageKey>> = BTreeMap::new();
        for message in messages {
            for (folder, key) in self.messages.kept_as(*message) {
                keys.entry(folder).or_default().push(key);
            }
        }
        for (folder, keys) in keys {
            let folder = self.folders.get(usize::from(folder));
            let (Some(store), Some(folder)) = (self.store, folder) else {
                return Err(UpstreamError::Misconfigured("hide needs --state".into()));
            };
            store.hide(&folder.key, keys).await.map_err(unusable)?;
        }
        Ok(())
    }

    /// Moves messages to the Trash because their time is over. Returns those
    /// that are gone; what goes wrong is logged.
    pub async fn expire(&self, mut messages: Vec<MessageIndex>) -> Vec<MessageIndex> {
        let Some(trash) = self.mailboxes.trash.as_deref() else {
            return Vec::new();
        };
        // What lies in the Trash is as far as it goes.
        let is_trash = |folder: u8| {
            let source = self.mailboxes.sources.get(usize::from(folder));
            source.is_some_and(|it| it.id == trash)
        };
        messages.retain(|message| {
            let mut folders = self.messages.kept_as(*message).into_iter();
            !folders.any(|(folder, _)| is_trash(folder))
        });
        if messages.is_empty() {
            return messages;
        }
        let leaving = Leaving::Trash(trash);
        match self.remove(&messages, leaving).await {
            Ok(left) => {
                if !left.is_empty() {
                    tracing::warn!(left = left.len(), "not all expired messages were moved");
                }
                messages.retain(|message| !left.contains(message));
                messages
            }
            Err(error) => {
                tracing::warn!(%error, "expired messages were not moved");
                Vec::new()
            }
        }
    }
}

/// Marks messages as read; what goes wrong is logged.
pub(super) async fn mark_read(api: &Api, messages: &Messages, retrieved: &[MessageIndex]) {
    let known = retrieved.iter().filter_map(|it| messages.get(*it));
    let ids: Vec<&str> = known.map(|email| email.id).collect();
    let limits = api.limits();
    let patch = Keyword::Seen.as_str().len() + 32;
    for batch in batches(&ids, limits.objects_in_set, limits.request - 1024, patch) {
        if let Err(error) = mark_batch(api, &batch).await {
            tracing::warn!(%error, "messages were not marked as read");
            return;
        }
    }
}

async fn mark_batch(api: &Api, ids: &[&str]) -> Result<(), UpstreamError> {
    let pointer = format!("keywords/{}", Keyword::Seen.as_str());
    let update: Map<String, Value> = ids
        .iter()
        .map(|id| ((*id).to_owned(), json!({ &pointer: true })))
        .collect();
    let call = Calls::default()
        .push("Email/set", json!({ "update": update }))
        .for_account(api.account());
    let answer: SetAnswer = api.call(&call).await?.get(0)?;
    let refused = answer.not_updated.count;
    if refused > 0 {
        tracing::warn!(refused, "messages were not marked as read");
    }
    Ok(())
}

/// The store's failure is a matter of ours, and may pass.
pub(super) fn unusable(error: StoreError) -> UpstreamError {
    UpstreamError::temporary(Reason::quoting(
        "the store cannot be used",
        &error.to_string(),
    ))
}
