//! The removal of messages from one folder: exactly the marked ones leave, and
//! the answer says what is true afterwards
//! (`docs/decisions/0003-the-update-at-quit.md`).

use std::collections::HashSet;

use super::command::Command;
use super::connection::{Event, uid_validity};
use super::disposal::Disposal;
use super::session::{ImapSession, message_key, unkept};
use super::status::{Kind, Status};
use super::uid_set::UidSet;
use crate::store::MessageKey;
use crate::upstream::UpstreamError;

/// Messages that leave the maildrop, and how.
pub(super) struct Job {
    folder: usize,
    disposal: Disposal,
    /// What it is about, ascending.
    asked: Vec<u32>,
    /// Of these, not known to be gone.
    left: Vec<u32>,
    /// Copies that were confirmed.
    copied: HashSet<u32>,
    /// `left` is what was found in the mailbox, not only what was asked for.
    verified: bool,
}

impl Job {
    /// `uids` are ascending.
    pub fn new(folder: usize, disposal: Disposal, uids: Vec<u32>) -> Self {
        Self {
            folder,
            disposal,
            asked: uids.clone(),
            left: uids,
            copied: HashSet::new(),
            verified: false,
        }
    }
}

impl ImapSession {
    /// Removes messages as the job says. Returns those that are still there, as
    /// verified; an error means that none is known to be gone.
    pub(super) async fn remove(&mut self, mut job: Job) -> Result<Vec<u32>, UpstreamError> {
        if job.disposal == Disposal::Store {
            self.hide(&job).await?;
            return Ok(Vec::new());
        }
        self.announce_change(job.folder);
        let mut result = self.attempt(&mut job).await;
        let again = match &result {
            // All said OK, and yet something is left (Dovecot 2.3 may do so
            // beside another client's change).
            Ok(Answer::Accepted) => !job.left.is_empty(),
            Ok(Answer::Refused) => false,
            // What the server did before the connection broke is not known:
            // look, on a new one, and carry on.
            Err(_) => !self.is_usable(),
        };
        if again {
            result = match self.look(&mut job).await {
                Ok(()) if job.left.is_empty() => Ok(Answer::Accepted),
                Ok(()) => self.attempt(&mut job).await,
                Err(error) => Err(error),
            };
        }
        self.settle(&job).await;
        self.announce_change(job.folder);
        match result {
            Err(error) if !job.verified => Err(error),
            _ => Ok(job.left),
        }
    }

    /// No connection vouches for what it knew of the folder before.
    fn announce_change(&self, folder: usize) {
        if let Some(folder) = self.folders.get(folder) {
            self.shared.change(&folder.key);
        }
    }

    /// One try at removing what is left, verified at its end.
    async fn attempt(&mut self, job: &mut Job) -> Result<Answer, UpstreamError> {
        self.select(job.folder).await?;
        let mut answer = Answer::Accepted;
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(&job.left, most) {
            answer = self.remove_set(&set, job).await?;
            if answer == Answer::Refused {
                break;
            }
        }
        self.look(job).await?;
        Ok(answer)
    }

    async fn remove_set(&mut self, set: &UidSet, job: &mut Job) -> Result<Answer, UpstreamError> {
        match job.disposal.clone() {
            Disposal::Never | Disposal::Store => Err(UpstreamError::Misconfigured(
                "the delete policy refuses deletion".into(),
            )),
            Disposal::Move(target) => {
                let command = Command::new("UID MOVE").set(set).mailbox(&target)?;
                self.obey(job.folder, command).await
            }
            Disposal::CopyThenExpunge(target) => {
                // A copy that was confirmed is not made twice.
                let missing: Vec<u32> = job
                    .left
                    .iter()
                    .copied()
                    .filter(|uid| set.contains(*uid) && !job.copied.contains(uid))
                    .collect();
                for part in UidSet::cut(&missing, None) {
                    let copy = Command::new("UID COPY").set(&part).mailbox(&target)?;
                    if self.obey(job.folder, copy).await? == Answer::Refused {
                        return Ok(Answer::Refused);
                    }
                    let copied = missing.iter().filter(|uid| part.contains(**uid));
                    job.copied.extend(copied);
                }
                self.expunge(set, job).await
            }
            Disposal::Expunge => self.expunge(set, job).await,
            Disposal::Mark(mark) => {
                let store = Command::new("UID STORE")
                    .set(set)
                    .flag("+FLAGS.SILENT", mark.name());
                self.obey(job.folder, store).await
            }
        }
    }

    /// `\Deleted`, then UID EXPUNGE of exactly these. The second is sent only
    /// when the first has been answered.
    async fn expunge(&mut self, set: &UidSet, job: &Job) -> Result<Answer, UpstreamError> {
        let marked: Vec<u32> = job
            .left
            .iter()
            .copied()
            .filter(|uid| set.contains(*uid))
            .collect();
        if let Some(folder) = self.folders.get(job.folder) {
            self.shared
                .add_unfinished(&folder.key, folder.uid_validity, &marked);
        }
        let store = Command::new("UID STORE")
            .set(set)
            .word("+FLAGS.SILENT (\\Deleted)");
        if self.obey(job.folder, store).await? == Answer::Refused {
            return Ok(Answer::Refused);
        }
        let expunge = Command::new("UID EXPUNGE").set(set);
        self.obey(job.folder, expunge).await
    }

    /// Runs a command of the update. NO and BAD are answers, not the end of it:
    /// what they leave behind is looked at.
    async fn obey(&mut self, folder: usize, command: Command) -> Result<Answer, UpstreamError> {
        let connection = self.ready(folder).await?;
        let status = connection.run(command, |_| Ok(())).await?;
        if is_whole(&status) {
            return Ok(Answer::Accepted);
        }
        let reason = status.refusal("update");
        self.heed(&reason);
        tracing::warn!(upstream = %self.config.name, %reason, "the upstream refused a removal");
        Ok(Answer::Refused)
    }

    /// Asks which of the messages are still there, or still without their mark.
    async fn look(&mut self, job: &mut Job) -> Result<(), UpstreamError> {
        let mark = match job.disposal {
            Disposal::Mark(mark) => Some(mark),
            Disposal::Move(_)
            | Disposal::CopyThenExpunge(_)
            | Disposal::Expunge
            | Disposal::Store
            | Disposal::Never => None,
        };
        let session_validity = self.folders.get(job.folder).map(|it| it.uid_validity);
        let mut there = HashSet::new();
        let mut marked = HashSet::new();
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(&job.left, most) {
            let connection = self.ready(job.folder).await?;
            let hear = |event| {
                if uid_validity(&event).is_some_and(|other| Some(other) != session_validity) {
                    return Err(UpstreamError::temporary(
                        "UIDVALIDITY changed at the update",
                    ));
                }
                if let Event::Row(row) = event
                    && let Some(uid) = row.uid.filter(|uid| set.contains(*uid))
                {
                    there.insert(uid);
                    if let (Some(mark), Some(flags)) = (mark, row.flags) {
                        match mark.is_in(flags) {
                            true => marked.insert(uid),
                            false => marked.remove(&uid),
                        };
                    }
                }
                Ok(())
            };
            let items = if mark.is_some() {
                "(UID FLAGS)"
            } else {
                "(UID)"
            };
            let command = Command::new("UID FETCH").set(&set).word(items);
            let status = connection.run(command, hear).await?;
            // Some servers (Cyrus) answer NO to a FETCH where there is nothing.
            if !is_whole(&status) && self.select(job.folder).await?.exists > 0 {
                return Err(UpstreamError::temporary("the update cannot be verified"));
            }
        }
        job.left
            .retain(|uid| there.contains(uid) && !marked.contains(uid));
        job.verified = true;
        Ok(())
    }

    /// Hides messages by the store, for ever when it returns.
    async fn hide(&mut self, job: &Job) -> Result<(), UpstreamError> {
        // Still the mailbox whose messages these are.
        self.select(job.folder).await?;
        let (Some(store), Some(folder)) = (&self.store, self.folders.get(job.folder)) else {
            return Err(UpstreamError::temporary("no store to hide messages by"));
        };
        let keys: Vec<MessageKey> = job
            .asked
            .iter()
            .map(|uid| MessageKey::from(message_key(folder.uid_validity, *uid)))
            .collect();
        store
            .hide(&folder.key, keys.clone())
            .await
            .map_err(unkept)?;
        let kept = store.folder(&folder.key).await.map_err(unkept)?;
        match keys.iter().all(|key| kept.hidden.contains(key)) {
            true => Ok(()),
            false => Err(UpstreamError::temporary(
                "the store has lost what was hidden",
            )),
        }
    }

    /// The client will be told that these are still there: they must not stay
    /// marked, where any client's EXPUNGE would take them. Where the upstream
    /// cannot be reached they are remembered, and shown at the next login.
    async fn settle(&mut self, job: &Job) {
        let Some(folder) = self.folders.get(job.folder) else {
            return;
        };
        let is_left = |uid: &u32| job.left.binary_search(uid).is_ok();
        if !job.disposal.leaves_messages() {
            let gone: Vec<u32> = job
                .asked
                .iter()
                .copied()
                .filter(|uid| !is_left(uid))
                .collect();
            self.shared.settle_unfinished(&folder.key, &gone);
            if job.verified && !gone.is_empty() {
                self.strike(folder, &gone).await;
            }
        }
        let mut marked: Vec<u32> = self
            .shared
            .unfinished(&folder.key, folder.uid_validity)
            .into_iter()
            .filter(is_left)
            .collect();
        marked.sort_unstable();
        if marked.is_empty() {
            return;
        }
        // On a new connection, if need be.
        if self.unmark(job.folder, &marked).await.is_err() {
            tracing::warn!(
                upstream = %self.config.name,
                messages = marked.len(),
                "messages stay marked \\Deleted after an update that failed"
            );
        }
    }

    /// Takes `\Deleted` from messages that an update of ours had marked.
    pub(super) async fn unmark(
        &mut self,
        folder: usize,
        uids: &[u32],
    ) -> Result<(), UpstreamError> {
        // The server tells nothing of what it was asked to do silently.
        self.seen = None;
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(uids, most) {
            let connection = self.ready(folder).await?;
            let command = Command::new("UID STORE")
                .set(&set)
                .word("-FLAGS.SILENT (\\Deleted)");
            connection
                .run(command, |_| Ok(()))
                .await?
                .ok_or_error("unmarking")?;
        }
        self.announce_change(folder);
        if let Some(folder) = self.folders.get(folder) {
            self.shared.settle_unfinished(&folder.key, uids);
        }
        Ok(())
    }
}

/// What the upstream said to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Refused,
}

/// OK to a part of the messages (RFC 9738) is no OK: a verification would take
/// the rest for gone.
fn is_whole(status: &Status) -> bool {
    status.kind == Kind::Ok && !status.is_coded("MESSAGELIMIT")
}
