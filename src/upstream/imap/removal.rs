//! The update at QUIT: exactly the marked messages leave, and the answer says
//! what is true afterwards (`docs/decisions/0003-the-update-at-quit.md`).

use std::collections::HashSet;

use super::command::Command;
use super::connection::Event;
use super::mailbox::{self, Removal};
use super::session::ImapSession;
use super::status::{Kind, Status};
use super::uid_set::UidSet;
use crate::upstream::UpstreamError;

impl ImapSession {
    /// Removes messages by ascending UID as the policy says. Returns those that
    /// are still there, as verified; an error means that none is known to be
    /// gone.
    pub(super) async fn remove(&mut self, uids: Vec<u32>) -> Result<Vec<u32>, UpstreamError> {
        let mut progress = Progress {
            asked: uids.clone(),
            left: uids,
            copied: HashSet::new(),
            verified: false,
        };
        let mut result = self.attempt(&mut progress).await;
        let again = match &result {
            // All said OK, and yet something is left (Dovecot 2.3 may do so
            // beside another client's change).
            Ok(Answer::Accepted) => !progress.left.is_empty(),
            Ok(Answer::Refused) => false,
            // What the server did before the connection broke is not known:
            // look, on a new one, and carry on.
            Err(_) => !self.is_usable(),
        };
        if again {
            result = match self.look(&mut progress).await {
                Ok(()) if progress.left.is_empty() => Ok(Answer::Accepted),
                Ok(()) => self.attempt(&mut progress).await,
                Err(error) => Err(error),
            };
        }
        self.settle(&progress).await;
        match result {
            Err(error) if !progress.verified => Err(error),
            _ => Ok(progress.left),
        }
    }

    /// One try at removing what is left, verified at its end.
    async fn attempt(&mut self, progress: &mut Progress) -> Result<Answer, UpstreamError> {
        self.same_mailbox().await?;
        let mut answer = Answer::Accepted;
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(&progress.left, most) {
            answer = self.remove_set(&set, progress).await?;
            if answer == Answer::Refused {
                break;
            }
        }
        self.look(progress).await?;
        Ok(answer)
    }

    /// Selects the mailbox again: its UIDVALIDITY must be the session's, or the
    /// UIDs may name other messages by now.
    async fn same_mailbox(&mut self) -> Result<(), UpstreamError> {
        let session_validity = self.mailbox.uid_validity;
        let connection = self.ready().await?;
        let selected = mailbox::select(connection, true).await?;
        if selected.uid_validity != session_validity {
            return Err(UpstreamError::temporary(
                "UIDVALIDITY changed: nothing is deleted",
            ));
        }
        Ok(())
    }

    async fn remove_set(
        &mut self,
        set: &UidSet,
        progress: &mut Progress,
    ) -> Result<Answer, UpstreamError> {
        match self.mailbox.removal.clone() {
            Removal::Never => Err(UpstreamError::Misconfigured(
                "the delete policy refuses deletion".into(),
            )),
            Removal::Move(trash) => self.obey(to_mailbox("UID MOVE", set, &trash)?).await,
            Removal::CopyThenExpunge(trash) => {
                // A copy that was confirmed is not made twice.
                let missing: Vec<u32> = progress
                    .left
                    .iter()
                    .copied()
                    .filter(|uid| set.contains(*uid) && !progress.copied.contains(uid))
                    .collect();
                for part in UidSet::cut(&missing, None) {
                    let copy = to_mailbox("UID COPY", &part, &trash)?;
                    if self.obey(copy).await? == Answer::Refused {
                        return Ok(Answer::Refused);
                    }
                    let copied = missing.iter().filter(|uid| part.contains(**uid));
                    progress.copied.extend(copied);
                }
                self.expunge(set, progress).await
            }
            Removal::Expunge => self.expunge(set, progress).await,
        }
    }

    /// `\Deleted`, then UID EXPUNGE of exactly these. The second is sent only
    /// when the first has been answered.
    async fn expunge(
        &mut self,
        set: &UidSet,
        progress: &Progress,
    ) -> Result<Answer, UpstreamError> {
        let marked: Vec<u32> = progress
            .left
            .iter()
            .copied()
            .filter(|uid| set.contains(*uid))
            .collect();
        self.shared
            .add_unfinished(self.account(), self.mailbox.uid_validity, &marked);
        let store = Command::new("UID STORE")
            .set(set)
            .word("+FLAGS.SILENT (\\Deleted)");
        if self.obey(store).await? == Answer::Refused {
            return Ok(Answer::Refused);
        }
        self.obey(Command::new("UID EXPUNGE").set(set)).await
    }

    /// Runs a command of the update. NO and BAD are answers, not the end of it:
    /// what they leave behind is looked at.
    async fn obey(&mut self, command: Command) -> Result<Answer, UpstreamError> {
        let connection = self.ready().await?;
        let status = connection.run(command, |_| Ok(())).await?;
        if is_whole(&status) {
            return Ok(Answer::Accepted);
        }
        let reason = status.refusal("update");
        self.heed(&reason);
        tracing::warn!(upstream = %self.config.name, %reason, "the upstream refused a removal");
        Ok(Answer::Refused)
    }

    /// Asks which of the messages are still there.
    async fn look(&mut self, progress: &mut Progress) -> Result<(), UpstreamError> {
        let mut there = HashSet::new();
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(&progress.left, most) {
            let connection = self.ready().await?;
            let hear = |event| {
                if let Event::Row(row) = event
                    && let Some(uid) = row.uid.filter(|uid| set.contains(*uid))
                {
                    there.insert(uid);
                }
                Ok(())
            };
            let command = Command::new("UID FETCH").set(&set).word("(UID)");
            let status = connection.run(command, hear).await?;
            if !is_whole(&status) && !self.is_empty().await? {
                return Err(UpstreamError::temporary("the update cannot be verified"));
            }
        }
        progress.left.retain(|uid| there.contains(uid));
        progress.verified = true;
        Ok(())
    }

    /// Whether the mailbox holds nothing at all: some servers (Cyrus) answer NO
    /// to a FETCH there.
    async fn is_empty(&mut self) -> Result<bool, UpstreamError> {
        let session_validity = self.mailbox.uid_validity;
        let connection = self.ready().await?;
        let selected = mailbox::select(connection, true).await?;
        Ok(selected.exists == 0 && selected.uid_validity == session_validity)
    }

    fn is_usable(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.is_usable())
    }

    /// The client will be told that these are still there: they must not stay
    /// marked, where any client's EXPUNGE would take them. Where the upstream
    /// cannot be reached they are remembered, and shown at the next login.
    async fn settle(&mut self, progress: &Progress) {
        let (account, uid_validity) = (self.account(), self.mailbox.uid_validity);
        let is_left = |uid: &u32| progress.left.binary_search(uid).is_ok();
        let gone: Vec<u32> = progress
            .asked
            .iter()
            .copied()
            .filter(|uid| !is_left(uid))
            .collect();
        self.shared.settle_unfinished(account, &gone);
        let mut marked: Vec<u32> = self
            .shared
            .unfinished(account, uid_validity)
            .into_iter()
            .filter(is_left)
            .collect();
        marked.sort_unstable();
        if marked.is_empty() {
            return;
        }
        // On a new connection, if need be.
        if self.unmark(&marked).await.is_err() {
            tracing::warn!(
                upstream = %self.config.name,
                messages = marked.len(),
                "messages stay marked \\Deleted after an update that failed"
            );
        }
    }

    /// Takes `\Deleted` from messages that an update of ours had marked.
    pub(super) async fn unmark(&mut self, uids: &[u32]) -> Result<(), UpstreamError> {
        let most = self.capabilities.message_limit();
        for set in UidSet::cut(uids, most) {
            let connection = self.ready().await?;
            let command = Command::new("UID STORE")
                .set(&set)
                .word("-FLAGS.SILENT (\\Deleted)");
            connection
                .run(command, |_| Ok(()))
                .await?
                .ok_or_error("unmarking")?;
        }
        self.shared.settle_unfinished(self.account(), uids);
        Ok(())
    }
}

/// How far an update has come.
struct Progress {
    /// What the update is about, ascending.
    asked: Vec<u32>,
    /// Of these, not known to be gone.
    left: Vec<u32>,
    /// Copies that were confirmed.
    copied: HashSet<u32>,
    /// `left` is what was found in the mailbox, not only what was asked for.
    verified: bool,
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

fn to_mailbox(
    command: &'static str,
    set: &UidSet,
    mailbox: &str,
) -> Result<Command, UpstreamError> {
    Command::new(command)
        .set(set)
        .string(mailbox.as_bytes())
        .map_err(|_| UpstreamError::protocol("a mailbox name with NUL"))
}
