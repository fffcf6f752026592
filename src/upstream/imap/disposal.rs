//! What becomes of marked messages: the delete policy, as far as this upstream
//! can carry it out. What it cannot do is refused at login, not at QUIT. Pure.

use super::fetch::{Flags, HIDDEN};
use super::login::Capabilities;
use super::mailbox::Selected;
use crate::maildrop::{DeletePolicy, Policy, SeenPolicy};
use crate::upstream::{Reason, UpstreamError};

/// How messages leave the maildrop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Disposal {
    /// `UID MOVE` to this mailbox (RFC 6851).
    Move(String),
    /// `UID COPY` to this mailbox, then as for `Expunge`.
    CopyThenExpunge(String),
    /// `UID STORE +FLAGS (\Deleted)`, then `UID EXPUNGE` (RFC 4315).
    Expunge,
    /// They stay, and get this flag.
    Mark(Mark),
    /// They stay, and popgate's store knows not to show them again.
    Store,
    /// Not at all.
    Never,
}

/// A flag that messages get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// `\Seen`
    Seen,
    /// [`HIDDEN`]
    Hidden,
}

impl Mark {
    pub fn name(self) -> &'static str {
        match self {
            Self::Seen => "\\Seen",
            Self::Hidden => HIDDEN,
        }
    }

    pub fn is_in(self, flags: Flags) -> bool {
        match self {
            Self::Seen => flags.seen,
            Self::Hidden => flags.hidden,
        }
    }
}

/// A mailbox, and what the choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    pub capabilities: &'a Capabilities,
    pub policy: &'a Policy,
    /// The mailbox.
    pub name: &'a str,
    pub selected: &'a Selected,
    /// What the user may do there (RFC 4314), where it was asked.
    pub rights: Option<&'a str>,
    pub has_store: bool,
    /// The mailbox is another user's, or everybody's.
    pub is_shared: bool,
    /// Messages of this mailbox are hidden by the store already.
    pub hides_by_store: bool,
}

/// What is done in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub disposal: Disposal,
    /// What becomes of messages that have expired; `None`: nothing.
    pub expiry: Option<Disposal>,
    /// Whether any of it writes to the mailbox.
    pub writes: bool,
}

/// Whether a mailbox has to be opened for writing before more is known.
pub(super) fn may_write(policy: &Policy, hides_by_store: bool, is_shared: bool) -> bool {
    let by_store = policy.delete == DeletePolicy::Hide
        && (hides_by_store || is_shared)
        && policy.seen == SeenPolicy::Never
        && policy.expire_after.is_none();
    policy.writes() && !by_store
}

impl Circumstances<'_> {
    /// `target` is where the delete policy moves messages, `trash` where expired
    /// ones go.
    pub fn decide(
        &self,
        target: Option<&str>,
        trash: Option<&str>,
    ) -> Result<Decision, UpstreamError> {
        let disposal = self.disposal(target)?;
        let expiry = self.expiry(trash)?;
        let writes = !matches!(disposal, Disposal::Store | Disposal::Never)
            || self.policy.seen != SeenPolicy::Never
            || self.policy.expire_after.is_some();
        if writes && self.selected.read_only {
            return refused("the mailbox is read-only, and the policies need to write");
        }
        self.check_rights(&disposal, expiry.as_ref())?;
        Ok(Decision {
            disposal,
            expiry,
            writes,
        })
    }

    fn disposal(&self, target: Option<&str>) -> Result<Disposal, UpstreamError> {
        match (&self.policy.delete, target) {
            (DeletePolicy::Refuse, _) => Ok(Disposal::Never),
            (DeletePolicy::Expunge | DeletePolicy::TrashIfThere, None) => self.expunge(),
            (DeletePolicy::Expunge, Some(_)) => self.expunge(),
            (DeletePolicy::TrashIfThere, Some(trash)) if trash == self.name => self.expunge(),
            (DeletePolicy::Seen, _) => match self.selected.keeps("\\Seen").unwrap_or(true) {
                true => Ok(Disposal::Mark(Mark::Seen)),
                false => refused("delete = \"seen\", but the upstream does not keep \\Seen"),
            },
            (DeletePolicy::Hide, _) => self.hide(),
            (DeletePolicy::Trash, None) => {
                refused("delete = \"trash\", but the upstream shows no Trash")
            }
            (DeletePolicy::Archive, None) => {
                refused("delete = \"archive\", but the upstream shows no Archive")
            }
            (DeletePolicy::Move(folder), None) => {
                let what = "delete = \"move:…\", but the upstream shows no such folder";
                let reason = Reason::quoting(what, folder.as_str());
                Err(UpstreamError::Misconfigured(reason))
            }
            (_, Some(target)) if target == self.name => {
                let what = "delete would move messages to where they are";
                let reason = Reason::quoting(what, self.name);
                Err(UpstreamError::Misconfigured(reason))
            }
            (_, Some(target)) => self.move_to(target),
        }
    }

    fn expiry(&self, trash: Option<&str>) -> Result<Option<Disposal>, UpstreamError> {
        match (self.policy.expire_after, trash) {
            (None, _) => Ok(None),
            (Some(_), _) if !self.has_store => {
                refused("expire_after needs a place to keep what was retrieved when (--state)")
            }
            (Some(_), None) => refused("expire_after, but the upstream shows no Trash"),
            // They are where they would go.
            (Some(_), Some(trash)) if trash == self.name => Ok(None),
            (Some(_), Some(trash)) => self.move_to(trash).map(Some),
        }
    }

    fn move_to(&self, target: &str) -> Result<Disposal, UpstreamError> {
        if self.capabilities.has("MOVE") {
            Ok(Disposal::Move(target.to_owned()))
        } else if self.capabilities.has("UIDPLUS") {
            Ok(Disposal::CopyThenExpunge(target.to_owned()))
        } else {
            refused(NO_REMOVAL)
        }
    }

    fn expunge(&self) -> Result<Disposal, UpstreamError> {
        match self.capabilities.has("UIDPLUS") {
            true => Ok(Disposal::Expunge),
            false => refused(NO_REMOVAL),
        }
    }

    /// By a keyword, which other clients of the mailbox can see; or by the
    /// store. Where the store has begun it goes on. Keywords of a shared mailbox
    /// are those of all its users.
    fn hide(&self) -> Result<Disposal, UpstreamError> {
        let keeps_keyword = !self.selected.read_only
            && !self.is_shared
            && self.selected.keeps(HIDDEN).unwrap_or(false);
        if keeps_keyword && !self.hides_by_store {
            Ok(Disposal::Mark(Mark::Hidden))
        } else if self.has_store {
            Ok(Disposal::Store)
        } else {
            refused(
                "delete = \"hide\" needs permanent keywords upstream (of a mailbox that is \
                 not shared), or a place to keep what is hidden (--state)",
            )
        }
    }

    /// The rights that RFC 4314 §4 asks for; `d` is what RFC 2086 had in place
    /// of `t` and `e`.
    fn check_rights(
        &self,
        disposal: &Disposal,
        expiry: Option<&Disposal>,
    ) -> Result<(), UpstreamError> {
        let Some(rights) = self.rights else {
            return Ok(());
        };
        let removes = |it: &Disposal| {
            matches!(
                it,
                Disposal::Move(_) | Disposal::CopyThenExpunge(_) | Disposal::Expunge
            )
        };
        let removes = removes(disposal) || expiry.is_some_and(removes);
        let sees = *disposal == Disposal::Mark(Mark::Seen) || self.policy.seen != SeenPolicy::Never;
        let hides = *disposal == Disposal::Mark(Mark::Hidden);
        let has = |letters: &str| rights.contains(|c| letters.contains(c));
        let missing = [
            (removes, "td", "to delete messages (t)"),
            (removes, "ed", "to expunge messages (e)"),
            (sees, "s", "to mark messages as read (s)"),
            (hides, "w", "to set keywords (w)"),
        ]
        .into_iter()
        .find(|(needed, letters, _)| *needed && !has(letters));
        match missing {
            None => Ok(()),
            Some((_, _, right)) => {
                let what = format!("the policies need the right {right} on the folder");
                let reason = Reason::quoting(&what, self.name);
                Err(UpstreamError::Misconfigured(reason))
            }
        }
    }
}

const NO_REMOVAL: &str = "the upstream can neither move messages nor remove chosen ones \
     (no MOVE, no UIDPLUS): only delete = \"refuse\", \"seen\" and \"hide\" are possible";

fn refused<T>(reason: &str) -> Result<T, UpstreamError> {
    Err(UpstreamError::Misconfigured(reason.into()))
}

#[cfg(test)]
mod tests;
