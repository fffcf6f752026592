//! The update at QUIT, folder by folder: what was retrieved is marked as read,
//! what was deleted leaves, what has expired goes to the Trash.

use std::collections::{BTreeMap, HashSet};

use super::command::Command;
use super::disposal::{Disposal, Mark};
use super::removal::Job;
use super::session::ImapSession;
use super::uid_set::UidSet;
use crate::maildrop::{MessageIndex, Outcome, SeenPolicy, Update};
use crate::upstream::{UpstreamError, calendar};

/// Messages of one folder, by ascending UID.
type Batch = BTreeMap<u32, MessageIndex>;

impl ImapSession {
    /// Carries out an update. The outcome is that of the deletions; an error
    /// means that none is known to have come about.
    pub(super) async fn carry_out(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        let deletions = self.batches(update.delete().iter().copied())?;
        self.shared.pauses.check(self.account())?;
        self.mark_all_as_read(update).await;
        let mut outcome = self.delete(deletions).await?;
        outcome.expired = self.expire(update).await;
        Ok(outcome)
    }

    /// Messages by folder.
    fn batches(
        &self,
        messages: impl Iterator<Item = MessageIndex>,
    ) -> Result<BTreeMap<usize, Batch>, UpstreamError> {
        let mut batches: BTreeMap<usize, Batch> = BTreeMap::new();
        for message in messages {
            let (folder, uid) = self.place(message)?;
            batches.entry(folder).or_default().insert(uid, message);
        }
        Ok(batches)
    }

    async fn delete(
        &mut self,
        deletions: BTreeMap<usize, Batch>,
    ) -> Result<Outcome, UpstreamError> {
        let mut outcome = Outcome::default();
        let mut failed = None;
        let mut any_known = deletions.is_empty();
        for (place, batch) in deletions {
            // A folder's own trouble is not that of the others; an upstream that
            // has gone is.
            let is_hopeless = failed.is_some() && !self.is_usable();
            let left = match self
                .folders
                .get(place)
                .map(|folder| folder.disposal.clone())
            {
                Some(disposal) if !is_hopeless => {
                    let uids = batch.keys().copied().collect();
                    self.remove(Job::new(place, disposal, uids)).await
                }
                _ => {
                    outcome.remaining.extend(batch.values());
                    continue;
                }
            };
            match left {
                Ok(left) => {
                    any_known = true;
                    let left: HashSet<u32> = left.into_iter().collect();
                    for (uid, message) in &batch {
                        match left.contains(uid) {
                            true => outcome.remaining.push(*message),
                            false => outcome.removed.push(*message),
                        }
                    }
                }
                Err(error) => {
                    self.heed(&error);
                    tracing::warn!(upstream = %self.config.name, reason = %error, "a folder's messages are not removed");
                    outcome.remaining.extend(batch.values());
                    failed.get_or_insert(match error {
                        // That is said of a message.
                        UpstreamError::Gone => UpstreamError::temporary("a folder is gone"),
                        other => other,
                    });
                }
            }
        }
        match failed {
            Some(error) if !any_known => return Err(error),
            _ => {}
        }
        outcome.removed.sort_unstable();
        outcome.remaining.sort_unstable();
        Ok(outcome)
    }

    /// Moves to the Trash what was retrieved long enough ago. Returns what has
    /// left; what goes wrong is logged, and tried again at the next session.
    async fn expire(&mut self, update: &Update) -> Vec<MessageIndex> {
        let Some(after) = self.policy.expire_after else {
            return Vec::new();
        };
        let oldest = calendar::before(calendar::now(), after);
        let due = update.expired(&self.messages.retrieved, oldest);
        let mut expired = Vec::new();
        for (place, batch) in self.batches(due.into_iter()).unwrap_or_default() {
            let expiry = self.folders.get(place).and_then(|it| it.expiry.clone());
            let Some(expiry) = expiry else { continue };
            let uids = batch.keys().copied().collect();
            match self.remove(Job::new(place, expiry, uids)).await {
                Ok(left) => {
                    let left: HashSet<u32> = left.into_iter().collect();
                    let gone = batch.iter().filter(|(uid, _)| !left.contains(uid));
                    expired.extend(gone.map(|(_, message)| *message));
                }
                Err(error) => {
                    self.heed(&error);
                    tracing::warn!(upstream = %self.config.name, reason = %error, "messages that have expired stay");
                    if !self.is_usable() {
                        break;
                    }
                }
            }
        }
        expired.sort_unstable();
        expired
    }

    /// Marks as read what is still to be marked, before anything leaves: what is
    /// moved takes the mark along.
    async fn mark_all_as_read(&mut self, update: &Update) {
        let mut messages = self.take_unread();
        if self.policy.seen == SeenPolicy::OnQuit {
            messages.extend(update.retrieved());
        }
        for (folder, batch) in self.batches(messages.into_iter()).unwrap_or_default() {
            // Opened anew, as for a removal: it must still be the same.
            self.selected = None;
            let uids: Vec<u32> = batch.keys().copied().collect();
            if !self.mark_as_read(folder, &uids).await && !self.is_usable() {
                return;
            }
        }
    }

    /// Marks messages by ascending UID as read. Whether that was done; a failure
    /// is logged, and no matter of the client's.
    pub(super) async fn mark_as_read(&mut self, folder: usize, uids: &[u32]) -> bool {
        let marked = self.try_mark_as_read(folder, uids).await;
        if let Err(error) = &marked {
            self.heed(error);
            tracing::warn!(upstream = %self.config.name, reason = %error, "messages are not marked as read");
        }
        marked.is_ok()
    }

    async fn try_mark_as_read(&mut self, folder: usize, uids: &[u32]) -> Result<(), UpstreamError> {
        self.shared.pauses.check(self.account())?;
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(uids, most) {
            let connection = self.ready(folder).await?;
            let store = Command::new("UID STORE")
                .set(&set)
                .flag("+FLAGS.SILENT", Mark::Seen.name());
            let stored = connection.run(store, |_| Ok(())).await?;
            stored.ok_or_error("marking as read")?;
        }
        Ok(())
    }
}

impl Disposal {
    /// Whether messages are still in the mailbox afterwards.
    pub(super) fn leaves_messages(&self) -> bool {
        matches!(self, Self::Mark(_) | Self::Store | Self::Never)
    }
}
