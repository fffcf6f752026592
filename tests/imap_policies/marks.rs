//! Messages that are marked as read, and messages that expire.

use std::time::Duration;

use popgate::maildrop::SeenPolicy;
use popgate::store::{FolderKey, Learned};

use super::*;

fn sees(seen: SeenPolicy, delete: DeletePolicy) -> Policy {
    Policy {
        seen,
        ..policy(delete)
    }
}

#[test]
fn at_once_or_at_quit_or_never() {
    for (rig, _) in Rig::all() {
        rig.deliver("INBOX", 1..=4);
        let read = || with_flag(&rig.held("INBOX"), "\\Seen");
        let (mut session, _) = rig.open(&sees(SeenPolicy::Never, DeletePolicy::Expunge));
        retrieve(&mut session, 0);
        quit(session, &[0]);
        assert_eq!(read(), [0; 0]);
        let (mut session, _) = rig.open(&sees(SeenPolicy::OnRetr, DeletePolicy::Refuse));
        retrieve(&mut session, 1);
        assert_eq!(read(), [2]);
        run(session.close());
        let (mut session, _) = rig.open(&sees(SeenPolicy::OnQuit, DeletePolicy::Refuse));
        retrieve(&mut session, 2);
        assert_eq!(read(), [2]);
        quit(session, &[2]);
        assert_eq!(read(), [2, 3]);
        // No QUIT, no mark.
        let (mut session, _) = rig.open(&sees(SeenPolicy::OnQuit, DeletePolicy::Refuse));
        retrieve(&mut session, 3);
        run(session.close());
        assert_eq!(read(), [2, 3]);
    }
}

#[test]
fn what_is_moved_takes_the_mark_along() {
    for (rig, _) in Rig::all() {
        rig.create("Archive");
        rig.deliver("INBOX", 1..=3);
        let (mut session, _) = rig.open(&sees(SeenPolicy::OnQuit, DeletePolicy::Archive));
        retrieve(&mut session, 1);
        let update = Update::with_retrieved(vec![1, 2], vec![1]);
        let outcome = run(session.update(&update)).unwrap();
        assert_eq!(outcome.removed, [1, 2]);
        assert_eq!(with_flag(&rig.held("Archive"), "\\Seen"), [2]);
    }
}

#[test]
fn a_mark_that_fails_is_no_matter_of_the_clients() {
    let all: Vec<Vec<u8>> = (1..=3).map(|it| messages::plain(it, 300)).collect();
    let server = ScriptedImap::builder()
        .messages(&all)
        .on("UID STORE", |command, _| {
            support::Answer::send(command.no("no"))
        })
        .start();
    let gateway = scripted(&server, None);
    let sees = sees(SeenPolicy::OnRetr, DeletePolicy::TrashIfThere);
    let (mut session, _) = run(try_open(&gateway, &sees)).unwrap();
    for message in [0, 1, 2] {
        assert_eq!(number(&retrieve(&mut session, message)), message + 1);
    }
    delete(&mut session, &[1]);
    assert_eq!(server.uids("INBOX"), [1, 3]);
}

#[test]
fn a_mailbox_that_was_replaced_is_not_marked() {
    let all: Vec<Vec<u8>> = (1..=3).map(|it| messages::plain(it, 300)).collect();
    let server = ScriptedImap::builder().messages(&all).start();
    let gateway = scripted(&server, None);
    let sees = sees(SeenPolicy::OnQuit, DeletePolicy::TrashIfThere);
    let (mut session, _) = run(try_open(&gateway, &sees)).unwrap();
    retrieve(&mut session, 0);
    server.world().inbox().uid_validity += 1;
    let update = Update::with_retrieved(vec![1], vec![0]);
    assert!(run(session.update(&update)).is_err());
    assert_eq!(server.commands_starting("UID STORE").len(), 0);
    assert_eq!(server.uids("INBOX"), [1, 2, 3]);
}

fn expires(seconds: u64) -> Policy {
    Policy {
        expire_after: Some(Duration::from_secs(seconds)),
        ..policy(DeletePolicy::Refuse)
    }
}

#[test]
fn what_was_retrieved_long_ago_goes_to_the_trash() {
    const DAY: u64 = 86_400;
    for (rig, store) in Rig::all() {
        rig.deliver("INBOX", 1..=4);
        let (mut session, _) = rig.open(&expires(DAY));
        for message in 0..3 {
            retrieve(&mut session, message);
        }
        let kept: Vec<_> = (0..4).map(|it| session.kept_as(it).unwrap()).collect();
        quit(session, &[0, 1, 2]);
        assert_eq!(numbers(&rig.held("INBOX")), [1, 2, 3, 4]);
        let retrieved = run(store.folder(&kept[0].0)).unwrap().retrieved;
        assert_eq!(retrieved.len(), 3);
        // The first time counts: this one was retrieved before.
        let long_ago = Learned {
            message: kept[3].1.clone(),
            octets: None,
            retrieved: Some(1_000_000_000),
        };
        run(store.learn(&kept[3].0, vec![long_ago])).unwrap();
        let (mut session, _) = rig.open(&expires(DAY));
        retrieve(&mut session, 3);
        let outcome = run(session.update(&Update::new(Vec::new()))).unwrap();
        assert_eq!((outcome.removed, outcome.expired), (vec![], vec![3]));
        run(session.close());
        assert_eq!(numbers(&rig.held("INBOX")), [1, 2, 3]);
        assert_eq!(numbers(&rig.held("Trash")), [4]);
    }
}

#[test]
fn expiry_needs_a_store_and_a_trash() {
    let server = ScriptedImap::builder().start();
    assert_refused(&scripted(&server, None), &expires(1), "--state");
    let server = ScriptedImap::builder()
        .world(|world| world.mailboxes.truncate(1))
        .start();
    assert_refused(
        &scripted(&server, Some(TempStore::new().clone())),
        &expires(1),
        "no Trash",
    );
}

#[test]
fn a_session_that_ends_without_quit_expires_nothing_and_remembers() {
    let all: Vec<Vec<u8>> = (1..=2).map(|it| messages::plain(it, 300)).collect();
    let server = ScriptedImap::builder().messages(&all).start();
    let store = TempStore::new();
    let gateway = scripted(&server, Some(store.clone()));
    let (mut session, _) = run(try_open(&gateway, &expires(0))).unwrap();
    retrieve(&mut session, 0);
    run(session.close());
    assert_eq!(server.uids("INBOX"), [1, 2]);
    let key = FolderKey {
        account: "alice".to_owned(),
        folder: "INBOX".to_owned(),
    };
    assert_eq!(run(store.folder(&key)).unwrap().retrieved.len(), 1);
    // At the next QUIT.
    let (session, _) = run(try_open(&gateway, &expires(0))).unwrap();
    quit(session, &[]);
    assert_eq!(server.uids("INBOX"), [2]);
    assert_eq!(server.uids("Trash"), [1]);
}
