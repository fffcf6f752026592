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
    is_shared: bool,
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
            is_shared: false,
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
            is_shared: self.is_shared,
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
    shared.is_shared = true;
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
    assert!(may_write(&Policy::default(), false, false));
    assert!(!may_write(&policy(DeletePolicy::Refuse), false, false));
    assert!(may_write(&policy(DeletePolicy::Hide), false, false));
    assert!(!may_write(&policy(DeletePolicy::Hide), true, false));
    assert!(!may_write(&policy(DeletePolicy::Hide), false, true));
    let marks = Policy {
        seen: SeenPolicy::OnRetr,
        ..policy(DeletePolicy::Hide)
    };
    assert!(may_write(&marks, true, false));
}
