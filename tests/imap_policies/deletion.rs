//! What becomes of deleted messages, by policy.

use super::*;

const HIDDEN: &str = "$POP3Deleted";

#[test]
fn seen_marks_and_leaves_everything_where_it_is() {
    for (rig, _) in Rig::all() {
        rig.deliver("INBOX", 1..=5);
        let (mut session, maildrop) = rig.open(&policy(DeletePolicy::Seen));
        delete(&mut session, &[0, 3]);
        let held = rig.held("INBOX");
        assert_eq!(numbers(&held), [1, 2, 3, 4, 5]);
        assert_eq!(with_flag(&held, "\\Seen"), [1, 4]);
        assert_eq!(with_flag(&held, "\\Deleted"), [0; 0]);
        let (_, again) = rig.open(&policy(DeletePolicy::Seen));
        assert_eq!(unique_ids(&again), unique_ids(&maildrop));
    }
}

#[test]
fn hidden_messages_stay_for_everybody_else() {
    for (rig, store) in Rig::all() {
        rig.deliver("INBOX", 1..=5);
        let hide = policy(DeletePolicy::Hide);
        let (mut session, maildrop) = rig.open(&hide);
        let ids = unique_ids(&maildrop);
        delete(&mut session, &[1, 4]);
        let held = rig.held("INBOX");
        assert_eq!(numbers(&held), [1, 2, 3, 4, 5]);
        assert_eq!(with_flag(&held, HIDDEN), [2, 5]);
        assert_eq!(with_flag(&held, "\\Deleted"), [0; 0]);
        let (mut session, rest) = rig.open(&hide);
        assert_eq!(
            unique_ids(&rest),
            [0, 2, 3].map(|at: usize| ids[at].as_str())
        );
        assert_eq!(number(&retrieve(&mut session, 1)), 3);
        delete(&mut session, &[0, 1, 2]);
        assert_eq!(rig.open(&hide).1.len(), 0);
        // It was the keyword, not the store.
        let key = popgate::store::FolderKey {
            account: "alice".to_owned(),
            folder: "INBOX".to_owned(),
        };
        assert!(run(store.folder(&key)).unwrap().hidden.is_empty());
    }
}

#[test]
fn archived_messages_lie_in_the_archive() {
    for (rig, _) in Rig::all() {
        rig.deliver("INBOX", 1..=4);
        let archive = policy(DeletePolicy::Archive);
        if matches!(rig.server, Server::Dovecot(_)) {
            rig.refused(&archive, "no Archive");
        }
        rig.create("Archive");
        let (mut session, _) = rig.open(&archive);
        delete(&mut session, &[0, 2]);
        assert_eq!(numbers(&rig.held("INBOX")), [2, 4]);
        assert_eq!(numbers(&rig.held("Archive")), [1, 3]);
    }
}

#[test]
fn moved_messages_lie_in_the_folder_that_was_named() {
    for (rig, _) in Rig::all() {
        rig.deliver("INBOX", 1..=4);
        let moves = policy(DeletePolicy::Move(folder("Old/Gelöscht")));
        rig.refused(&moves, "Old/Gelöscht");
        rig.create("Old");
        rig.create("Old/Gel&APY-scht");
        let (mut session, _) = rig.open(&moves);
        delete(&mut session, &[1, 2]);
        assert_eq!(numbers(&rig.held("INBOX")), [1, 4]);
        assert_eq!(numbers(&rig.held("Old/Gel&APY-scht")), [2, 3]);
        // The other way round.
        let back = Policy {
            delete: DeletePolicy::Move(FolderName::inbox()),
            ..folders(&["Old/Gelöscht"])
        };
        let (mut session, _) = rig.open(&back);
        delete(&mut session, &[0]);
        assert_eq!(numbers(&rig.held("INBOX")), [1, 4, 2]);
        assert_eq!(numbers(&rig.held("Old/Gel&APY-scht")), [3]);
    }
}

#[test]
fn messages_are_not_moved_to_where_they_are() {
    let Some(rig) = Rig::dovecot(None) else {
        return;
    };
    rig.deliver("Trash", 1..=3);
    let trash = |delete| Policy {
        delete,
        ..folders(&["INBOX", "Trash"])
    };
    rig.refused(&trash(DeletePolicy::Trash), "where they are");
    rig.refused(
        &trash(DeletePolicy::Move(folder("Trash"))),
        "where they are",
    );
    // What is in the Trash leaves for good.
    rig.deliver("INBOX", 4..=5);
    let (mut session, maildrop) = rig.open(&trash(DeletePolicy::TrashIfThere));
    assert_eq!(maildrop.len(), 5);
    delete(&mut session, &[0, 2, 3]);
    assert_eq!(numbers(&rig.held("INBOX")), [5]);
    assert_eq!(numbers(&rig.held("Trash")), [3, 4]);
}

#[test]
fn what_was_hidden_stays_hidden_under_other_policies() {
    for (rig, _) in Rig::all() {
        rig.deliver("INBOX", 1..=4);
        let (mut session, maildrop) = rig.open(&policy(DeletePolicy::Hide));
        let ids = unique_ids(&maildrop);
        delete(&mut session, &[1, 3]);
        for delete_policy in [
            DeletePolicy::TrashIfThere,
            DeletePolicy::Expunge,
            DeletePolicy::Refuse,
        ] {
            let (_, rest) = rig.open(&policy(delete_policy));
            assert_eq!(unique_ids(&rest), [ids[0].as_str(), ids[2].as_str()]);
        }
    }
}

/// A server whose mailboxes keep no keywords.
fn without_keywords() -> ScriptedImap {
    let all: Vec<Vec<u8>> = (1..=5).map(|it| messages::plain(it, 300)).collect();
    ScriptedImap::builder()
        .messages(&all)
        .world(|world| world.keywords = false)
        .start()
}

#[test]
fn without_keywords_the_store_hides() {
    let server = without_keywords();
    let store = TempStore::new();
    let hide = policy(DeletePolicy::Hide);
    let gateway = scripted(&server, Some(store.clone()));
    let (mut session, maildrop) = run(try_open(&gateway, &hide)).unwrap();
    let ids = unique_ids(&maildrop);
    delete(&mut session, &[0, 3]);
    // Nothing was written, and from the next time on nothing could be.
    assert_eq!(server.commands_starting("UID STORE").len(), 0);
    let selects = server.commands_starting("SELECT").len();
    let (_, rest) = run(try_open(&gateway, &hide)).unwrap();
    assert_eq!(
        unique_ids(&rest),
        [1, 2, 4].map(|at: usize| ids[at].as_str())
    );
    assert_eq!(server.commands_starting("SELECT").len(), selects);
    // Not shown under another policy, nor by another gateway with that store.
    let other = scripted(&server, Some(store.clone()));
    let (_, rest) = run(try_open(&other, &policy(DeletePolicy::Refuse))).unwrap();
    assert_eq!(rest.len(), 3);
    // The choice stays what it was.
    server.world().keywords = true;
    let (mut session, _) = run(try_open(&gateway, &hide)).unwrap();
    delete(&mut session, &[0]);
    assert_eq!(server.commands_starting("UID STORE").len(), 0);
    assert_eq!(run(try_open(&gateway, &hide)).unwrap().1.len(), 2);
}

#[test]
fn without_keywords_and_without_a_store_nothing_is_hidden() {
    let server = without_keywords();
    let gateway = scripted(&server, None);
    assert_refused(&gateway, &policy(DeletePolicy::Hide), "--state");
}

#[test]
fn hidden_is_found_without_esearch_and_page_by_page() {
    for (hidden, announced) in [(vec!["ESEARCH"], ""), (vec![], "MESSAGELIMIT=2")] {
        let all: Vec<Vec<u8>> = (1..=5).map(|it| messages::plain(it, 300)).collect();
        let server = ScriptedImap::builder()
            .without(&hidden)
            .announcing(announced)
            .messages(&all)
            .start();
        let gateway = scripted(&server, None);
        let hide = policy(DeletePolicy::Hide);
        let (mut session, _) = run(try_open(&gateway, &hide)).unwrap();
        delete(&mut session, &[0, 1, 4]);
        let (_, rest) = run(try_open(&gateway, &hide)).unwrap();
        assert_eq!(rest.len(), 2);
    }
}

#[test]
fn a_mailbox_that_may_not_be_written_is_refused() {
    let server = ScriptedImap::builder()
        .on("SELECT", |command, _| {
            support::Answer::send(format!(
                "* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n{}",
                command.ok("[READ-ONLY] done")
            ))
        })
        .start();
    let gateway = scripted(&server, None);
    for delete in [
        DeletePolicy::Expunge,
        DeletePolicy::Seen,
        DeletePolicy::TrashIfThere,
    ] {
        assert_refused(&gateway, &policy(delete), "read-only");
    }
}

#[test]
fn a_server_that_says_ok_and_keeps_no_flag() {
    for delete in [DeletePolicy::Seen, DeletePolicy::Hide] {
        let all: Vec<Vec<u8>> = (1..=3).map(|it| messages::plain(it, 300)).collect();
        let server = ScriptedImap::builder()
            .messages(&all)
            .on("UID STORE", |command, _| {
                support::Answer::send(command.ok("done"))
            })
            .start();
        let gateway = scripted(&server, None);
        let (mut session, _) = run(try_open(&gateway, &policy(delete))).unwrap();
        let outcome = run(session.update(&Update::new(vec![0, 2]))).unwrap();
        assert_eq!((outcome.removed, outcome.remaining), (vec![], vec![0, 2]));
        // Once more, and not more.
        assert_eq!(server.commands_starting("UID STORE").len(), 2);
    }
}

#[test]
fn what_others_removed_meanwhile_counts_as_marked() {
    let Some(rig) = Rig::dovecot(None) else {
        return;
    };
    for delete_policy in [DeletePolicy::Seen, DeletePolicy::Hide] {
        rig.deliver("INBOX", 1..=3);
        let (mut session, _) = rig.open(&policy(delete_policy));
        rig.client().expunge("INBOX", "1:*");
        delete(&mut session, &[0, 1, 2]);
        assert!(rig.held("INBOX").is_empty());
    }
}
