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
pub(super) fn may_write(policy: &Policy, hides_by_store: bool) -> bool {
    let by_store = policy.delete == DeletePolicy::Hide
        && (hides_by_store || policy.shared.is_some())
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
            && self.policy.shared.is_none()
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn capabilities(names: &str) -> Capabilities {
        let names: Vec<String> = names.split(' ').map(str::to_owned).collect();
        Capabilities::new(&names)
    }

    struct Case {
        capabilities: Capabilities,
        policy: Policy,
        selected: Selected,
        rights: Option<&'static str>,
        has_store: bool,
        hides_by_store: bool,
    }

    impl Case {
        fn of(delete: DeletePolicy) -> Self {
            Self {
                capabilities: capabilities("UIDPLUS MOVE"),
                policy: Policy {
                    delete,
                    ..Policy::default()
                },
                selected: Selected::with_permanent_flags(&["\\Seen", "\\Deleted", "\\*"]),
                rights: None,
                has_store: false,
                hides_by_store: false,
            }
        }

        fn decide(&self, target: Option<&str>) -> Result<Decision, UpstreamError> {
            Circumstances {
                capabilities: &self.capabilities,
                policy: &self.policy,
                name: "INBOX",
                selected: &self.selected,
                rights: self.rights,
                has_store: self.has_store,
                hides_by_store: self.hides_by_store,
            }
            .decide(target, Some("Trash"))
        }

        fn disposal(&self, target: Option<&str>) -> Disposal {
            self.decide(target).unwrap().disposal
        }

        #[track_caller]
        fn refused(&self, target: Option<&str>, words: &str) {
            match self.decide(target) {
                Err(UpstreamError::Misconfigured(reason)) => {
                    assert!(reason.as_str().contains(words), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn moved() -> Disposal {
        Disposal::Move("Trash".to_owned())
    }

    #[test]
    fn each_policy_where_all_is_there() {
        for (policy, target, expected) in [
            (DeletePolicy::TrashIfThere, Some("Trash"), moved()),
            (DeletePolicy::TrashIfThere, None, Disposal::Expunge),
            (DeletePolicy::Trash, Some("Trash"), moved()),
            (DeletePolicy::Archive, Some("Trash"), moved()),
            (
                DeletePolicy::Move("Old".parse().unwrap()),
                Some("Trash"),
                moved(),
            ),
            (DeletePolicy::Expunge, None, Disposal::Expunge),
            (DeletePolicy::Seen, None, Disposal::Mark(Mark::Seen)),
            (DeletePolicy::Hide, None, Disposal::Mark(Mark::Hidden)),
            (DeletePolicy::Refuse, None, Disposal::Never),
        ] {
            let decided = Case::of(policy.clone()).decide(target).unwrap();
            assert_eq!(decided.disposal, expected, "{policy}");
            assert_eq!(decided.writes, policy.writes(), "{policy}");
        }
    }

    #[test]
    fn what_has_no_target_is_refused() {
        Case::of(DeletePolicy::Trash).refused(None, "no Trash");
        Case::of(DeletePolicy::Archive).refused(None, "no Archive");
        Case::of(DeletePolicy::Move("Old".parse().unwrap())).refused(None, "Old");
    }

    #[test]
    fn messages_are_not_moved_to_where_they_are() {
        for policy in [DeletePolicy::Trash, DeletePolicy::Archive] {
            Case::of(policy).refused(Some("INBOX"), "where they are");
        }
        let there = Case::of(DeletePolicy::TrashIfThere);
        assert_eq!(there.disposal(Some("INBOX")), Disposal::Expunge);
    }

    #[test]
    fn fewer_extensions_do_less() {
        let mut case = Case::of(DeletePolicy::Trash);
        case.capabilities = capabilities("UIDPLUS");
        let copied = Disposal::CopyThenExpunge("Trash".to_owned());
        assert_eq!(case.disposal(Some("Trash")), copied);
        case.capabilities = capabilities("IMAP4rev1");
        case.refused(Some("Trash"), "no MOVE, no UIDPLUS");
        case.policy.delete = DeletePolicy::Expunge;
        case.refused(None, "no MOVE, no UIDPLUS");
        case.policy.delete = DeletePolicy::Seen;
        assert_eq!(case.disposal(None), Disposal::Mark(Mark::Seen));
    }

    #[test]
    fn hidden_by_keyword_else_by_the_store_else_not() {
        let mut case = Case::of(DeletePolicy::Hide);
        case.has_store = true;
        assert_eq!(case.disposal(None), Disposal::Mark(Mark::Hidden));
        case.hides_by_store = true;
        assert_eq!(case.disposal(None), Disposal::Store);
        case.hides_by_store = false;
        case.selected = Selected::with_permanent_flags(&["\\Seen", HIDDEN]);
        assert_eq!(case.disposal(None), Disposal::Mark(Mark::Hidden));
        case.selected = Selected::with_permanent_flags(&["\\Seen"]);
        let decided = case.decide(None).unwrap();
        assert_eq!((decided.disposal, decided.writes), (Disposal::Store, false));
        case.has_store = false;
        case.refused(None, "--state");
        let mut shared = Case::of(DeletePolicy::Hide);
        shared.policy.shared = Some("bob".to_owned());
        shared.refused(None, "--state");
        shared.has_store = true;
        assert_eq!(shared.disposal(None), Disposal::Store);
    }

    #[test]
    fn who_writes_needs_a_mailbox_to_write_to() {
        for policy in [DeletePolicy::Expunge, DeletePolicy::Seen] {
            let mut case = Case::of(policy);
            case.selected.read_only = true;
            case.refused(None, "read-only");
        }
        let mut marks = Case::of(DeletePolicy::Refuse);
        marks.selected.read_only = true;
        assert_eq!(marks.disposal(None), Disposal::Never);
        marks.policy.seen = SeenPolicy::OnQuit;
        marks.refused(None, "read-only");
    }

    #[test]
    fn rights_that_are_missing() {
        for (policy, rights, missing) in [
            (DeletePolicy::Expunge, "lrswe", "(t)"),
            (DeletePolicy::Expunge, "lrswt", "(e)"),
            (DeletePolicy::Seen, "lrwte", "(s)"),
            (DeletePolicy::Hide, "lrste", "(w)"),
        ] {
            let mut case = Case::of(policy);
            case.rights = Some(rights);
            case.refused(None, missing);
            // RFC 2086.
            case.rights = Some("lrswd");
            assert!(case.decide(None).is_ok());
        }
        let mut looks = Case::of(DeletePolicy::Refuse);
        looks.rights = Some("lr");
        assert!(looks.decide(None).is_ok());
    }

    #[test]
    fn what_expires_needs_a_store_and_a_trash() {
        let mut case = Case::of(DeletePolicy::Refuse);
        case.policy.expire_after = Some(Duration::from_secs(1));
        case.refused(None, "--state");
        case.has_store = true;
        let decided = case.decide(None).unwrap();
        assert_eq!((decided.expiry, decided.writes), (Some(moved()), true));
    }

    #[test]
    fn only_who_writes_opens_to_write() {
        let policy = |delete| Policy {
            delete,
            ..Policy::default()
        };
        assert!(may_write(&Policy::default(), false));
        assert!(!may_write(&policy(DeletePolicy::Refuse), false));
        assert!(may_write(&policy(DeletePolicy::Hide), false));
        assert!(!may_write(&policy(DeletePolicy::Hide), true));
        let marks = Policy {
            seen: SeenPolicy::OnRetr,
            ..policy(DeletePolicy::Hide)
        };
        assert!(may_write(&marks, true));
    }
}
