use std::time::Duration;

use super::*;
use crate::maildrop::{FolderName, Window};

const NOW: i64 = 1_800_000_000;

/// A folder's name, what is kept of it, and its messages: UID and age in seconds.
type Folder<'a> = (&'a str, &'a Kept, &'a [(u32, i64)]);

fn assemble(policy: &Policy, folders: &[Folder<'_>]) -> (Vec<String>, Vec<u32>) {
    let mut assembly = Assembly::new(policy, "%u".parse().unwrap(), NOW, 0);
    let mut row = 0;
    for (name, kept, messages) in folders {
        assembly.folder(name, kept);
        for (uid, age) in *messages {
            let candidate = Candidate {
                row,
                octets: 100,
                is_hidden: false,
                received: Some(NOW - age),
                key: &uid.to_be_bytes(),
                known: Ingredients {
                    uid: Some(*uid),
                    email_id: Some(if uid % 2 == 0 { "even" } else { "odd" }),
                    ..Ingredients::default()
                },
            };
            assembly.message(&candidate).unwrap();
            row += 1;
        }
    }
    let assembled = assembly.finish().unwrap();
    let ids = assembled.maildrop.iter();
    let ids = ids.map(|message| message.unique_id.to_owned()).collect();
    (ids, assembled.rows)
}

fn inbox(policy: &Policy, kept: &Kept, messages: &[(u32, i64)]) -> (Vec<String>, Vec<u32>) {
    assemble(policy, &[("INBOX", kept, messages)])
}

fn key(uid: u32) -> Box<[u8]> {
    Box::new(uid.to_be_bytes())
}

fn frozen(ids: &[(u32, u32, &str)]) -> Kept {
    let mut kept = Kept::default();
    for (uid, rank, id) in ids {
        let unique_id = UniqueId::new((*id).to_owned()).unwrap();
        kept.frozen.insert(key(*uid), (*rank, unique_id));
    }
    kept
}

#[test]
fn what_is_hidden_is_left_out() {
    let mut kept = Kept::default();
    kept.hidden.insert(key(7));
    let (ids, rows) = inbox(&Policy::default(), &kept, &[(4, 0), (7, 0), (9, 0)]);
    assert_eq!(ids, ["4", "9"]);
    assert_eq!(rows, [0, 2]);
}

/// A message that is there and not shown keeps its unique id: no other one gets
/// it, and none of the others is renamed.
#[test]
fn what_is_left_out_leaves_no_unique_id_free() {
    let by_email = |window| Policy {
        unique_ids: Some("%{emailid}".parse().unwrap()),
        window,
        ..Policy::default()
    };
    let listed = [(1, 90), (2, 80), (3, 70), (5, 0)];
    let all = by_email(Window::default());
    let (ids, _) = inbox(&all, &Kept::default(), &listed);
    assert_eq!(ids, ["odd", "even", "odd-2", "odd-3"]);
    let mut kept = Kept::default();
    kept.hidden.insert(key(1));
    let (ids, rows) = inbox(&all, &kept, &listed);
    assert_eq!(ids, ["even", "odd-2", "odd-3"]);
    assert_eq!(rows, [1, 2, 3]);
    let lately = by_email(Window {
        max_age: Some(Duration::from_secs(75)),
        max_messages: None,
    });
    let (ids, rows) = inbox(&lately, &Kept::default(), &listed);
    assert_eq!(ids, ["odd-2", "odd-3"]);
    assert_eq!(rows, [2, 3]);
    let (ids, _) = inbox(&lately, &kept, &listed[..2]);
    assert_eq!(ids, [""; 0]);
    // An id that is frozen is not free either.
    let mut kept = frozen(&[(1, 0, "5")]);
    kept.hidden.insert(key(1));
    let (ids, rows) = inbox(&Policy::default(), &kept, &listed);
    assert_eq!(ids, ["2", "3", "5-2"]);
    assert_eq!(rows, [1, 2, 3]);
}

#[test]
fn what_arrived_too_long_ago_is_left_out() {
    let policy = Policy {
        window: Window {
            max_age: Some(Duration::from_secs(60)),
            max_messages: None,
        },
        ..Policy::default()
    };
    let listed = [(4, 61), (7, 60), (9, 500), (10, 0)];
    let (ids, rows) = inbox(&policy, &Kept::default(), &listed);
    assert_eq!(ids, ["7", "10"]);
    assert_eq!(rows, [1, 3]);
}

#[test]
fn only_the_last_messages_are_shown() {
    let policy = |most| Policy {
        window: Window {
            max_age: None,
            max_messages: Some(most),
        },
        ..Policy::default()
    };
    let listed = [(4, 0), (7, 50), (9, 0)];
    let shown = |most| inbox(&policy(most), &Kept::default(), &listed).1;
    assert_eq!(shown(2), [1, 2]);
    assert_eq!(shown(3), [0, 1, 2]);
    assert!(shown(0).is_empty());
}

#[test]
fn the_last_messages_of_several_folders_are_those_that_arrived_last() {
    let policy = Policy {
        folders: vec![FolderName::inbox(), "Junk".parse().unwrap()],
        window: Window {
            max_age: None,
            max_messages: Some(3),
        },
        ..Policy::default()
    };
    let kept = Kept::default();
    let folders: [Folder<'_>; 2] = [
        ("INBOX", &kept, &[(1, 50), (2, 10)]),
        ("Junk", &kept, &[(1, 40), (2, 20), (3, 60)]),
    ];
    assert_eq!(assemble(&policy, &folders).1, [1, 2, 3]);
}

#[test]
fn folders_that_are_joined_share_no_unique_id() {
    let names = ["INBOX", "Junk", "Work"];
    let policy = |folders: &[&str]| Policy {
        folders: folders.iter().map(|it| it.parse().unwrap()).collect(),
        ..Policy::default()
    };
    let kept = Kept::default();
    let listed: &[(u32, i64)] = &[(1, 0), (2, 0)];
    let (ids, _) = assemble(&policy(&names), &names.map(|name| (name, &kept, listed)));
    assert_eq!(ids[..2], ["1", "2"]);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 6);
    // The ids of a folder do not depend on the others.
    let fewer = ["Work", "INBOX"];
    let (others, _) = assemble(&policy(&fewer), &fewer.map(|name| (name, &kept, listed)));
    assert_eq!(others[..2], ids[4..]);
    assert_eq!(others[2..], ids[..2]);
    // Alone, it needs no mark.
    let (alone, _) = assemble(&policy(&["Junk"]), &[("Junk", &kept, listed)]);
    assert_eq!(alone, ["1", "2"]);
}

#[test]
fn frozen_ids_come_first_in_their_order() {
    let kept = frozen(&[(9, 0, "UID9-1"), (4, 1, "UID4-1")]);
    let (ids, rows) = inbox(
        &Policy::default(),
        &kept,
        &[(3, 0), (4, 0), (7, 0), (9, 0), (10, 0)],
    );
    assert_eq!(ids, ["UID9-1", "UID4-1", "3", "7", "10"]);
    assert_eq!(rows, [3, 1, 0, 2, 4]);
}

#[test]
fn a_new_id_never_is_a_frozen_one() {
    let kept = frozen(&[(9, 0, "3"), (4, 1, "3-2")]);
    let (ids, rows) = inbox(&Policy::default(), &kept, &[(3, 0), (4, 0), (9, 0)]);
    assert_eq!(ids, ["3", "3-2", "3-3"]);
    assert_eq!(rows, [2, 1, 0]);
}

/// Clients remember it: they would take another message for the one they have.
#[test]
fn a_frozen_id_is_nobody_elses_when_its_message_is_gone() {
    let kept = frozen(&[(9, 0, "3"), (4, 1, "3-2"), (5, 2, "7")]);
    let (ids, rows) = inbox(&Policy::default(), &kept, &[(3, 0), (4, 0), (7, 0)]);
    assert_eq!(ids, ["3-2", "3-3", "7-2"]);
    assert_eq!(rows, [1, 0, 2]);
    // Not shown, listed later, or of another folder: all the same.
    let window = Window {
        max_age: Some(Duration::from_secs(60)),
        max_messages: None,
    };
    let policy = Policy {
        window,
        folders: vec![FolderName::inbox(), "Junk".parse().unwrap()],
        ..Policy::default()
    };
    let (ids, _) = assemble(
        &policy,
        &[
            ("INBOX", &Kept::default(), &[(3, 0), (4, 0)]),
            ("Junk", &kept, &[(9, 99)]),
        ],
    );
    assert_eq!(ids, ["3-3", "4"]);
}

#[test]
fn two_folders_that_have_frozen_the_same_id_are_told_apart() {
    let policy = Policy {
        folders: vec![FolderName::inbox(), "Junk".parse().unwrap()],
        ..Policy::default()
    };
    let (one, other) = (frozen(&[(4, 0, "old")]), frozen(&[(4, 1, "old")]));
    let folders: [Folder<'_>; 2] = [("INBOX", &one, &[(4, 0)]), ("Junk", &other, &[(4, 0)])];
    assert_eq!(assemble(&policy, &folders).0, ["old", "old-2"]);
}

#[test]
fn copies_are_renamed_in_the_order_of_arrival() {
    let policy = Policy {
        unique_ids: Some("emailid".parse().unwrap()),
        ..Policy::default()
    };
    let listed = [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)];
    let (ids, _) = inbox(&policy, &Kept::default(), &listed);
    assert_eq!(ids, ["odd", "even", "odd-2", "even-2", "odd-3"]);
}

#[test]
fn true_sizes_are_known_from_before() {
    let mut kept = Kept::default();
    kept.octets.insert(key(4), 103);
    let policy = Policy::default();
    let mut assembly = Assembly::new(&policy, "%u".parse().unwrap(), NOW, 0);
    assembly.folder("INBOX", &kept);
    let candidate = Candidate {
        is_hidden: false,
        row: 0,
        octets: 100,
        received: None,
        key: &4u32.to_be_bytes(),
        known: Ingredients {
            uid: Some(4),
            ..Ingredients::default()
        },
    };
    assembly.message(&candidate).unwrap();
    let assembled = assembly.finish().unwrap();
    assert_eq!(assembled.maildrop.get(0).unwrap().octets, 103);
}

#[test]
fn an_ingredient_that_the_upstream_lacks_is_a_setting_to_change() {
    let policy = Policy {
        unique_ids: Some("gmail".parse().unwrap()),
        ..Policy::default()
    };
    let kept = Kept::default();
    let mut assembly = Assembly::new(&policy, "%u".parse().unwrap(), NOW, 0);
    assembly.folder("INBOX", &kept);
    let candidate = Candidate {
        is_hidden: false,
        row: 0,
        octets: 100,
        received: None,
        key: &[],
        known: Ingredients::default(),
    };
    let error = assembly.message(&candidate).unwrap_err();
    assert!(matches!(error, UpstreamError::Misconfigured(_)));
}
