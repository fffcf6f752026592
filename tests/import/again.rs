//! What becomes of old unique ids that no message has: no other one is given
//! them, and a later import finds them free for the right one.

use super::old_server::{Manner, OldServer};
use super::support::ScriptedImap;
use super::{Uidl, message};

/// Unique ids are the UIDs alone, as old servers had them, too.
fn by_uid(new: &ScriptedImap) -> Uidl {
    let mut uidl = Uidl::new(&new.plain_url());
    let config = uidl.state.path().join("popgate.toml");
    std::fs::write(&config, "unique_ids = \"%u\"\n").unwrap();
    uidl.more = vec!["--config".to_owned(), config.to_str().unwrap().to_owned()];
    uidl
}

#[test]
fn an_old_unique_id_without_a_message_is_not_given_to_another() {
    let all: Vec<Vec<u8>> = (1..=4).map(|n| message(&format!("m{n}"), n * 9)).collect();
    // The copy has the first and the last; what else is there is new.
    let new = ScriptedImap::with_messages(&[&all[0], &message("new", 7), &all[3]]);
    let old: Vec<(Vec<u8>, &str)> = all.iter().cloned().zip(["4", "2", "3", "1"]).collect();
    let old = OldServer::start(&old, Manner::default());
    let uidl = by_uid(&new);
    let report = uidl.imported(&old.url(), &[]);
    assert_eq!(
        (&report["matched"], &report["frozen"]),
        (&2.into(), &2.into())
    );
    // Clients have another message under 2.
    assert_eq!(uidl.served(), ["4", "1", "2-2"]);
    let report = uidl.imported(&old.url(), &[]);
    assert_eq!(report["already_frozen"], 2);
    assert_eq!(report["frozen"], 0);
    // It was copied after all.
    new.world().inbox().append(all[1].clone());
    assert_eq!(uidl.served(), ["4", "1", "2-2", "4-2"]);
    let report = uidl.imported(&old.url(), &[]);
    assert_eq!(report["frozen"], 1);
    assert_eq!(report["frozen_otherwise"], 0);
    assert_eq!(uidl.served(), ["4", "2", "1", "2-2"]);
    // It is still the one that clients know when it is gone.
    new.world().inbox().remove(4);
    assert_eq!(uidl.served(), ["4", "1", "2-2"]);
}

#[test]
fn when_uidvalidity_changed_it_can_be_imported_again() {
    let all: Vec<Vec<u8>> = (1..=3).map(|n| message(&format!("m{n}"), n * 9)).collect();
    let texts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let new = ScriptedImap::with_messages(&texts);
    let ids = ["old-1", "old-2", "old-3"];
    let old: Vec<(Vec<u8>, &str)> = all.iter().cloned().zip(ids).collect();
    let old = OldServer::start(&old, Manner::default());
    let uidl = by_uid(&new);
    assert_eq!(uidl.imported(&old.url(), &[])["frozen"], 3);
    new.world().inbox().uid_validity += 1;
    let run = uidl.run(&["export", "--user", "alice"], "");
    assert!(run.err.contains("UIDVALIDITY CHANGED"), "{}", run.err);
    assert_eq!(uidl.served(), ["1", "2", "3"]);
    let report = uidl.imported(&old.url(), &[]);
    assert_eq!(report["frozen"], 3);
    assert_eq!(report["frozen_otherwise"], 0);
    assert_eq!(uidl.served(), ids);
    let run = uidl.run(&["export", "--user", "alice"], "");
    assert!(!run.err.contains("UIDVALIDITY"), "{}", run.err);
}
