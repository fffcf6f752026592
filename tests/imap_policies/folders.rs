//! Other folders than INBOX, and several at once.

use super::*;
use crate::support::scripted_imap::Mailbox;

fn names(upstream: &Imap, policy: &Policy) -> Vec<String> {
    let credentials = Credentials::password("alice", "pw-alice").unwrap();
    let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
    run(async {
        let policy = Arc::new(policy.clone());
        let mut session = upstream.login(credentials, nobody, policy).await?;
        let names = session.folders().await;
        session.close().await;
        names
    })
    .unwrap()
}

#[test]
fn the_inbox_costs_no_command() {
    let server = ScriptedImap::builder().start();
    let gateway = scripted(&server, None);
    assert_eq!(names(&gateway, &folders(&["inbox", "INBOX"])), ["INBOX"]);
    assert_eq!(server.commands_starting("LIST").len(), 0);
}

#[test]
fn folders_by_name_and_by_use() {
    for (rig, _) in Rig::all() {
        rig.create("Work");
        rig.create("Work/M&APY-bel");
        let found = |asked: &[&str]| names(&rig.upstream, &folders(asked));
        let mailbox = |name: &str| rig.mailbox(name);
        assert_eq!(found(&["Work/Möbel"]), [mailbox("Work/M&APY-bel")]);
        assert_eq!(found(&["trash"]), [mailbox("Trash")]);
        // The same, however it was asked for.
        assert_eq!(
            found(&["Trash", "trash", "INBOX", "Inbox"]),
            [mailbox("Trash"), "INBOX".to_owned()]
        );
        for missing in ["Nowhere", "Work/Nothing", "wor", "Work/M?bel"] {
            rig.refused(&folders(&[missing]), missing);
        }
    }
}

#[test]
fn several_folders_are_one_maildrop() {
    for (rig, _) in Rig::all() {
        rig.create("Junk");
        rig.deliver("INBOX", 1..=3);
        rig.deliver("Junk", 4..=6);
        let alone = unique_ids(&rig.open(&Policy::default()).1);
        let joined = folders(&["INBOX", "Junk"]);
        let (mut session, maildrop) = rig.open(&joined);
        let ids = unique_ids(&maildrop);
        assert_eq!(ids.len(), 6);
        // Who adds a folder downloads nothing again.
        assert_eq!(ids[..3], alone);
        for message in [0, 5, 1, 4, 2, 3] {
            let octets = retrieve(&mut session, message);
            assert_eq!(octets, messages::plain(message + 1, 300));
        }
        delete(&mut session, &[0, 4, 5]);
        assert_eq!(numbers(&rig.held("INBOX")), [2, 3]);
        assert_eq!(numbers(&rig.held("Junk")), [4]);
        assert_eq!(numbers(&rig.held("Trash")), [1, 5, 6]);
        let (_, rest) = rig.open(&joined);
        assert_eq!(
            unique_ids(&rest),
            [1, 2, 3].map(|at: usize| ids[at].as_str())
        );
        let (_, reversed) = rig.open(&folders(&["Junk", "INBOX"]));
        assert_eq!(
            unique_ids(&reversed),
            [3, 1, 2].map(|at: usize| ids[at].as_str())
        );
    }
}

#[test]
fn hidden_in_each_folder() {
    for (rig, _) in Rig::all() {
        rig.create("Junk");
        rig.deliver("INBOX", 1..=2);
        rig.deliver("Junk", 3..=4);
        let joined = Policy {
            delete: DeletePolicy::Hide,
            ..folders(&["INBOX", "Junk"])
        };
        let (mut session, _) = rig.open(&joined);
        delete(&mut session, &[1, 2]);
        let (mut session, rest) = rig.open(&joined);
        assert_eq!(rest.len(), 2);
        assert_eq!(number(&retrieve(&mut session, 1)), 4);
        assert_eq!(number(&retrieve(&mut session, 0)), 1);
    }
}

#[test]
fn a_folder_that_is_deleted_during_the_session() {
    for (rig, _) in Rig::all() {
        rig.create("Attic");
        rig.deliver("INBOX", 1..=3);
        rig.deliver("Attic", 4..=5);
        let (mut session, maildrop) = rig.open(&folders(&["INBOX", "Attic"]));
        assert_eq!(maildrop.len(), 5);
        assert_eq!(number(&retrieve(&mut session, 0)), 1);
        let attic = rig.mailbox("Attic");
        rig.client().ok(&format!("DELETE \"{attic}\""));
        let gone = run(try_retrieve(&mut session, 4));
        assert!(matches!(gone, Err(UpstreamError::Gone)), "{gone:?}");
        assert_eq!(number(&retrieve(&mut session, 1)), 2);
        let update = Update::new(vec![0, 3, 4]);
        let outcome = run(session.update(&update)).unwrap();
        assert_eq!((outcome.removed, outcome.remaining), (vec![0], vec![3, 4]));
        assert_eq!(numbers(&rig.held("INBOX")), [2, 3]);
    }
}

#[test]
fn one_folder_that_cannot_be_listed_is_no_maildrop() {
    let server = ScriptedImap::builder()
        .messages(&[messages::plain(1, 300)])
        .world(|world| {
            let trash = world.mailbox("Trash").unwrap();
            trash.append(messages::plain(2, 300));
        })
        .on("UID FETCH 1:*", |command, _| match command.nth {
            0 => support::Answer::Usual,
            _ => support::Answer::send(command.ok("nothing")),
        })
        .start();
    let gateway = scripted(&server, None);
    let joined = Policy {
        delete: DeletePolicy::Refuse,
        ..folders(&["INBOX", "Trash"])
    };
    let error = run(try_open(&gateway, &joined)).err().unwrap();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
}

#[test]
fn who_only_looks_examines_each_folder() {
    let server = ScriptedImap::builder().start();
    let gateway = scripted(&server, None);
    let joined = Policy {
        delete: DeletePolicy::Refuse,
        ..folders(&["INBOX", "Trash"])
    };
    run(try_open(&gateway, &joined)).unwrap();
    assert_eq!(server.commands_starting("EXAMINE").len(), 2);
    assert_eq!(server.commands_starting("SELECT").len(), 0);
}

/// What Dovecot needs so that alice finds bob's mail below `shared/bob`.
const SHARING: &str = r#"
mail_plugins = $mail_plugins acl
protocol imap {
  mail_plugins = $mail_plugins imap_acl
}
plugin {
  acl = vfile
}
namespace shared {
  type = shared
  separator = /
  prefix = shared/%%u/
  location = maildir:%%h/Maildir
  subscriptions = no
  list = children
}
"#;

#[test]
fn a_mailbox_that_another_user_shares_at_dovecot() {
    let Some(dovecot) = Dovecot::with(&[("EXTRA", SHARING)]) else {
        return;
    };
    let store = TempStore::new();
    shared(Rig::new(Server::Dovecot(dovecot), Some(store.clone())));
}

#[test]
fn a_mailbox_that_another_user_shares_at_cyrus() {
    let Some(cyrus) = Cyrus::start() else {
        return;
    };
    let store = TempStore::new();
    shared(Rig::new(Server::Cyrus(cyrus), Some(store.clone())));
}

fn shared(rig: Rig) {
    let of_bob = |folder: &str, delete| Policy {
        shared: Some("bob".to_owned()),
        delete,
        ..folders(&[folder])
    };
    let mut bob = rig.server.get().imap("bob");
    rig.refused(&of_bob("INBOX", DeletePolicy::Refuse), "no such folder");
    bob.ok("CREATE Work");
    for mailbox in ["INBOX", "Work"] {
        bob.ok(&format!("SETACL {mailbox} alice lrs"));
        for number in 1..=3 {
            bob.append(mailbox, &messages::plain(number, 300));
        }
    }
    for folder in ["INBOX", "Work"] {
        let (mut session, maildrop) = rig.open(&of_bob(folder, DeletePolicy::Refuse));
        assert_eq!(maildrop.len(), 3);
        assert_eq!(number(&retrieve(&mut session, 1)), 2);
        run(session.close());
        // What she may not do shows at login.
        rig.refused(&of_bob(folder, DeletePolicy::Expunge), "right");
        // Hidden from her alone.
        let hide = of_bob(folder, DeletePolicy::Hide);
        let (mut session, _) = rig.open(&hide);
        delete(&mut session, &[1]);
        assert_eq!(rig.open(&hide).1.len(), 2);
        assert_eq!(bob.dump(folder).len(), 3);
        assert_eq!(with_flag(&bob.dump(folder), "$POP3Deleted"), [0; 0]);
        let (mut session, _) = rig.open(&of_bob(folder, DeletePolicy::Seen));
        delete(&mut session, &[0]);
        // With the store in place, message 2 is not shown: 0 is message 1.
        assert_eq!(bob.dump(folder).len(), 3);
        bob.ok(&format!("SETACL {folder} alice lrste"));
        let (mut session, _) = rig.open(&of_bob(folder, DeletePolicy::Expunge));
        delete(&mut session, &[0]);
        assert_eq!(numbers(&bob.dump(folder)), [2, 3]);
    }
    for user in ["b/ob", "*", "nobody"] {
        let nobody = Policy {
            shared: Some(user.to_owned()),
            ..folders(&["INBOX"])
        };
        assert!(run(try_open(&rig.upstream, &nobody)).is_err());
    }
}

/// What its user names himself is as much another user's: who hides a message
/// there hides it from nobody else.
#[test]
fn hidden_in_a_mailbox_of_another_user_by_its_full_name() {
    let dovecot = || Dovecot::with(&[("SHARING", "1")]).map(Server::Dovecot);
    let cyrus = || Cyrus::start().map(Server::Cyrus);
    let servers = [(dovecot(), "shared/bob"), (cyrus(), "Other Users/bob")];
    for (server, name) in servers {
        let Some(server) = server else { continue };
        let store = TempStore::new();
        let rig = Rig::new(server, Some(store.clone()));
        let mut bob = rig.server.get().imap("bob");
        bob.ok("SETACL INBOX alice lrswte");
        for number in 1..=3 {
            bob.append("INBOX", &messages::plain(number, 300));
        }
        let hide = Policy {
            delete: DeletePolicy::Hide,
            ..folders(&[name])
        };
        let (mut session, _) = rig.open(&hide);
        delete(&mut session, &[1]);
        assert_eq!(rig.open(&hide).1.len(), 2, "{name}");
        let held = bob.dump("INBOX");
        assert_eq!(numbers(&held), [1, 2, 3]);
        assert_eq!(with_flag(&held, "$POP3Deleted"), [0; 0], "{name}");
    }
}

#[test]
fn what_is_deleted_goes_to_ones_own_trash() {
    // bob shares his; whether there is one of ones own is said by its name.
    for (own, expected) in [(Some("Trash"), "Trash"), (None, "nowhere")] {
        let server = ScriptedImap::builder()
            .messages(&[messages::plain(1, 300)])
            .world(|world| {
                world.mailboxes.truncate(1);
                let of_bob = Mailbox::new("Other Users/bob/Trash", Some("\\Trash"));
                world.mailboxes.push(of_bob);
                world
                    .mailboxes
                    .extend(own.map(|name| Mailbox::new(name, None)));
            })
            .on("NAMESPACE", |command, _| {
                let told = "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) NIL";
                support::Answer::send(format!("{told}\r\n{}", command.ok("done")))
            })
            .start();
        let gateway = scripted(&server, None);
        let (mut session, _) = run(try_open(&gateway, &Policy::default())).unwrap();
        delete(&mut session, &[0]);
        assert_eq!(server.uids("INBOX"), [0; 0]);
        assert_eq!(server.uids("Other Users/bob/Trash"), [0; 0], "{expected}");
        if let Some(own) = own {
            assert_eq!(server.uids(own), [1]);
        }
        if own.is_none() {
            assert_refused(&gateway, &policy(DeletePolicy::Trash), "no Trash");
            assert_refused(&gateway, &folders(&["trash"]), "no such folder");
        }
    }
}

#[test]
fn a_folder_that_may_not_be_read_is_refused_for_good() {
    for (text, rights) in [
        ("[NOPERM] no", "lr"),
        ("Permission denied", "lr"),
        ("no", "l"),
    ] {
        let server = ScriptedImap::builder()
            .announcing("ACL")
            .on("MYRIGHTS", move |command, _| {
                support::Answer::send(format!(
                    "* MYRIGHTS Trash {rights}\r\n{}",
                    command.ok("done")
                ))
            })
            .on("SELECT \"Trash\"", move |command, _| {
                support::Answer::send(command.no(text))
            })
            .start();
        let gateway = scripted(&server, None);
        assert_refused(&gateway, &folders(&["Trash"]), "cannot be opened: Trash");
    }
}
