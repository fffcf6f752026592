//! Each policy against Cyrus, and what its IMAP shows afterwards.

use std::time::Duration;

use popgate::maildrop::{Outcome, Policy, SeenPolicy, Window};
use popgate::store::Learned;

use crate::seam::Seam;
use crate::support::TempStore;
use crate::support::{Action, Cyrus, Direction, Fault, FaultProxy, Place, Stored};
use crate::{fill, octets, plain};

fn policy(delete: &str) -> Policy {
    of(&["INBOX"], delete)
}

fn of(folders: &[&str], delete: &str) -> Policy {
    Policy {
        folders: folders.iter().map(|it| it.parse().unwrap()).collect(),
        delete: delete.parse().unwrap(),
        ..Policy::default()
    }
}

/// Which messages of a mailbox have a flag.
fn flagged(cyrus: &Cyrus, mailbox: &str, flag: &str) -> Vec<bool> {
    let has = |stored: Stored| stored.flags.iter().any(|it| it.eq_ignore_ascii_case(flag));
    let stored = cyrus.mailbox("alice", mailbox);
    stored.into_iter().map(has).collect()
}

fn clear(cyrus: &Cyrus) {
    let mut imap = cyrus.imap("alice");
    for mailbox in ["INBOX", "Trash", "Archive", "Junk", "Work/Old"] {
        if !imap.dump(mailbox).is_empty() {
            imap.expunge(mailbox, "1:*");
        }
    }
}

/// Cyrus with `Work/Old`.
fn start() -> Option<Cyrus> {
    let cyrus = Cyrus::start()?;
    let mut imap = cyrus.imap("alice");
    imap.ok("CREATE Work");
    imap.ok("CREATE Work/Old");
    Some(cyrus)
}

fn removed(messages: &[usize]) -> Outcome {
    Outcome {
        removed: messages.to_vec(),
        ..Outcome::default()
    }
}

#[test]
fn each_policy_does_what_it_says() {
    let Some(cyrus) = start() else { return };
    let seam = Seam::new(&cyrus.jmap_url(), None);
    for (delete, leaves, target) in [
        ("trash", true, Some("Trash")),
        ("archive", true, Some("Archive")),
        ("move:Work/Old", true, Some("Work/Old")),
        ("expunge", true, None),
        ("seen", false, None),
        ("hide", false, None),
    ] {
        clear(&cyrus);
        fill(&cyrus, 0, &plain(1..=4));
        let outcome = seam.delete(&policy(delete), &[0, 2]).unwrap();
        assert_eq!(outcome, removed(&[0, 2]), "{delete}");
        let gone = [plain(1..=1), plain(3..=3)].concat();
        let kept = [plain(2..=2), plain(4..=4)].concat();
        let inbox = if leaves { kept } else { plain(1..=4) };
        assert_eq!(octets(&cyrus, "INBOX"), inbox, "{delete}");
        for mailbox in ["Trash", "Archive", "Work/Old"] {
            let mut found = octets(&cyrus, mailbox);
            found.sort();
            if target == Some(mailbox) {
                assert_eq!(found, gone, "{delete}");
            } else {
                assert!(found.is_empty(), "{delete}: {mailbox}");
            }
        }
        let marks = [true, false, true, false];
        match delete {
            "seen" => assert_eq!(flagged(&cyrus, "INBOX", "\\Seen"), marks),
            "hide" => assert_eq!(flagged(&cyrus, "INBOX", "$POP3Deleted"), marks),
            _ => {}
        }
        let shown = seam.listed(&policy(delete)).len();
        assert_eq!(shown, if delete == "seen" { 4 } else { 2 }, "{delete}");
    }
}

#[test]
fn what_another_login_by_imap_has_hidden_is_hidden() {
    let Some(cyrus) = start() else { return };
    fill(&cyrus, 0, &plain(1..=3));
    let seam = Seam::new(&cyrus.jmap_url(), None);
    let all = seam.listed(&policy("hide"));
    let mut imap = cyrus.imap("alice");
    imap.add_flags("INBOX", "2", "$POP3Deleted");
    assert_eq!(seam.listed(&policy("hide")), [&*all[0], &*all[2]]);
    assert_eq!(seam.listed(&policy("trash")), all);
}

#[test]
fn marked_as_read() {
    let Some(cyrus) = start() else { return };
    for seen in [SeenPolicy::Never, SeenPolicy::OnRetr, SeenPolicy::OnQuit] {
        clear(&cyrus);
        fill(&cyrus, 0, &plain(1..=3));
        let seam = Seam::new(&cyrus.jmap_url(), None);
        let policy = Policy {
            seen,
            ..policy("trash")
        };
        let mut open = seam.open(&policy);
        open.retrieve(0);
        open.reset();
        let at_once = seen == SeenPolicy::OnRetr;
        let before = flagged(&cyrus, "INBOX", "\\Seen");
        assert_eq!(before, [at_once, false, false], "{seen}");
        let mut open = seam.open(&policy);
        assert_eq!(open.retrieve(0), plain(1..=1)[0]);
        assert_eq!(open.retrieve(1), plain(2..=2)[0]);
        let before = flagged(&cyrus, "INBOX", "\\Seen");
        assert_eq!(before, [at_once, at_once, false], "{seen}");
        open.quit(&[0]).unwrap();
        let ever = seen != SeenPolicy::Never;
        assert_eq!(flagged(&cyrus, "INBOX", "\\Seen"), [ever, false]);
        assert_eq!(flagged(&cyrus, "Trash", "\\Seen"), [ever], "{seen}");
    }
}

#[test]
fn folders_alone_and_joined() {
    let Some(cyrus) = start() else { return };
    fill(&cyrus, 0, &plain(1..=2));
    let mut imap = cyrus.imap("alice");
    imap.append_at("Junk", "02-Jan-2026 00:00:00 +0000", &plain(3..=3)[0]);
    imap.append_at("Work/Old", "03-Jan-2026 00:00:00 +0000", &plain(4..=4)[0]);
    let seam = Seam::new(&cyrus.jmap_url(), None);
    let mut open = seam.open(&of(&["Work/Old"], "trash"));
    assert_eq!(open.retrieve(0), plain(4..=4)[0]);
    let (name, alone) = (open.folders[0].clone(), open.unique_ids());
    assert!(name.starts_with("jmap:"), "{name}");
    let policy = of(&["junk", "INBOX", "Work/Old"], "trash");
    let (well, told) = seam.diagnose(&policy);
    assert!(well && told.contains("4 messages are shown"), "{told}");
    assert!(told.contains("Work/Old: 1 messages"), "{told}");
    let mut open = seam.open(&policy);
    for (index, number) in [(0, 3), (1, 1), (2, 2), (3, 4)] {
        assert_eq!(open.retrieve(index), plain(number..=number)[0]);
    }
    assert!(open.unique_ids()[3].starts_with(&alone[0]));
    assert_eq!(open.quit(&[0, 3]).unwrap(), removed(&[0, 3]));
    assert!(octets(&cyrus, "Junk").is_empty() && octets(&cyrus, "Work/Old").is_empty());
    assert_eq!(octets(&cyrus, "INBOX"), plain(1..=2));
    assert_eq!(octets(&cyrus, "Trash").len(), 2);
    for missing in ["Old", "Work/New", "work", "nowhere"] {
        let said = seam.misconfigured(&of(&[missing], "trash"));
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn one_email_in_two_of_the_folders() {
    let Some(cyrus) = start() else { return };
    fill(&cyrus, 0, &plain(1..=2));
    let mut imap = cyrus.imap("alice");
    imap.ok("SELECT INBOX");
    imap.ok("UID COPY 2 Archive");
    let seam = Seam::new(&cyrus.jmap_url(), None);
    let policy = of(&["INBOX", "Archive"], "expunge");
    let open = seam.open(&policy);
    assert_eq!(open.unique_ids().len(), 2);
    assert_eq!(open.quit(&[1]).unwrap(), removed(&[1]));
    assert_eq!(octets(&cyrus, "INBOX"), plain(1..=1));
    assert!(octets(&cyrus, "Archive").is_empty());
}

#[test]
fn the_mailbox_of_another_user() {
    let Some(cyrus) = start() else { return };
    let seam = Seam::new(&cyrus.jmap_url(), None);
    let shared = |delete: &str| Policy {
        shared: Some("bob".to_owned()),
        ..policy(delete)
    };
    let mut bob = cyrus.imap("bob");
    bob.append_at("INBOX", "02-Jan-2026 00:00:00 +0000", &plain(7..=7)[0]);
    fill(&cyrus, 0, &plain(1..=1));
    let said = seam.misconfigured(&shared("refuse"));
    assert!(said.contains("bob"), "{said}");
    bob.ok("SETACL INBOX alice lrswited");
    let mut open = seam.open(&shared("refuse"));
    assert_eq!(open.unique_ids().len(), 1);
    assert_eq!(open.retrieve(0), plain(7..=7)[0]);
    // Alice may put nothing into bob's Trash.
    let store = TempStore::new();
    let seam = Seam::new(&cyrus.jmap_url(), Some(store.clone()));
    seam.delete(&shared("hide"), &[0]).unwrap();
    assert!(seam.listed(&shared("hide")).is_empty());
    assert_eq!(bob.dump("INBOX").len(), 1);
    seam.delete(&shared("expunge"), &[]).unwrap();
    assert_eq!(seam.listed(&policy("expunge")).len(), 1);
}

#[test]
fn windows_and_retention() {
    let Some(cyrus) = start() else { return };
    fill(&cyrus, 0, &plain(1..=3));
    let store = TempStore::new();
    let seam = Seam::new(&cyrus.jmap_url(), Some(store.clone()));
    let window = |max_age, max_messages| Policy {
        window: Window {
            max_age,
            max_messages,
        },
        ..policy("trash")
    };
    let all = seam.listed(&policy("trash"));
    assert_eq!(seam.listed(&window(None, Some(2))), all[1..]);
    let day = Duration::from_secs(86_400);
    assert!(seam.listed(&window(Some(day), None)).is_empty());
    assert_eq!(seam.listed(&window(Some(day * 36_500), None)), all);
    let (folder, message) = seam.open(&policy("trash")).kept_as(1).unwrap();
    let learned = Learned {
        message,
        octets: None,
        retrieved: Some(1_000_000_000),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(store.learn(&folder, vec![learned]))
        .unwrap();
    let expiring = Policy {
        expire_after: Some(day),
        ..policy("seen")
    };
    let mut open = seam.open(&expiring);
    open.retrieve(0);
    let outcome = open.quit(&[2]).unwrap();
    assert_eq!((outcome.removed, outcome.expired), (vec![2], vec![1]));
    assert_eq!(octets(&cyrus, "Trash"), plain(2..=2));
    let left = [plain(1..=1), plain(3..=3)].concat();
    assert_eq!(octets(&cyrus, "INBOX"), left);
}

#[test]
fn updates_whose_request_or_answer_is_lost() {
    let Some(cyrus) = start() else { return };
    for delete in ["archive", "seen", "hide"] {
        for (direction, place) in [
            (Direction::ToServer, Place::before("Email/set")),
            (Direction::ToServer, Place::after("ifInState")),
            (Direction::ToClient, Place::before("Email/set")),
            (Direction::ToClient, Place::after("Email/set")),
        ] {
            let name = format!("{delete} {direction:?} {place:?}");
            clear(&cyrus);
            fill(&cyrus, 0, &plain(1..=3));
            let fault = Fault::At(direction, place, Action::Reset);
            let proxy = FaultProxy::to_port_once(cyrus.http_port(), fault);
            let url = format!("http://127.0.0.1:{}/.well-known/jmap", proxy.port());
            let seam = Seam::new(&url, None);
            let outcome = seam.delete(&policy(delete), &[0, 2]).unwrap();
            assert_eq!(outcome, removed(&[0, 2]), "{name}");
            assert_eq!(proxy.acted(), 1, "{name}");
            let marks = [true, false, true];
            match delete {
                "archive" => {
                    assert_eq!(octets(&cyrus, "INBOX"), plain(2..=2), "{name}");
                    assert_eq!(octets(&cyrus, "Archive").len(), 2, "{name}");
                }
                "seen" => assert_eq!(flagged(&cyrus, "INBOX", "\\Seen"), marks, "{name}"),
                _ => assert_eq!(flagged(&cyrus, "INBOX", "$POP3Deleted"), marks, "{name}"),
            }
        }
    }
}
