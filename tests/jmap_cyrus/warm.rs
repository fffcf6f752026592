//! Cyrus's changes between two logins, by its other clients: what a login shows
//! is what a whole listing shows.

use popgate::maildrop::Policy;
use popgate::metrics::Opening;

use crate::seam::Seam;
use crate::support::{Cyrus, ImapClient, TempStore};
use crate::{fill, plain};

/// Compares with a login that remembers nothing. Returns whether the mailbox was
/// listed for it.
#[track_caller]
fn is_listed_anew(cyrus: &Cyrus, seam: &Seam, policy: &Policy, what: &str) -> bool {
    let before = seam.openings(Opening::Listed);
    let shown = seam.open(policy);
    let fresh = Seam::new(&cyrus.jmap_url(), None);
    let expected = fresh.open(policy);
    assert_eq!(shown.unique_ids(), expected.unique_ids(), "{what}");
    assert_eq!(shown.sizes(), expected.sizes(), "{what}");
    seam.openings(Opening::Listed) > before
}

/// What another client does.
type Change<'a> = &'a dyn Fn(&mut ImapClient);

#[test]
fn what_other_clients_do_between_logins() {
    let Some(cyrus) = Cyrus::start() else { return };
    fill(&cyrus, 0, &plain(1..=30));
    let seam = Seam::new(&cyrus.jmap_url(), None);
    let policies = ["trash", "hide"].map(|delete| Policy {
        delete: delete.parse().unwrap(),
        ..Policy::default()
    });
    let copy = plain(9..=9).remove(0);
    let changes: [(&str, Change<'_>); 12] = [
        ("nothing", &|_| {}),
        ("new mail", &|_| fill(&cyrus, 40, &plain(40..=42))),
        ("mail that is older than the rest", &|imap| {
            imap.append_at("INBOX", "01-Dec-2025 00:00:00 +0000", &plain(50..=50)[0]);
        }),
        ("removal", &|imap| imap.expunge("INBOX", "2:3,30")),
        ("mail elsewhere", &|imap| {
            imap.append("Archive", &plain(60..=60)[0])
        }),
        ("moved out", &|imap| {
            imap.ok("SELECT INBOX");
            imap.ok("UID MOVE 5:6 Archive");
        }),
        ("moved in", &|imap| {
            imap.ok("SELECT Archive");
            imap.ok("UID MOVE 1:* INBOX");
        }),
        ("copied out and in", &|imap| {
            imap.ok("SELECT INBOX");
            imap.ok("UID COPY 7:8 Archive");
            imap.expunge("INBOX", "7");
        }),
        ("flags", &|imap| {
            imap.add_flags("INBOX", "1:20", "\\Seen \\Flagged $pop3deleted");
            imap.ok("UID STORE 9:12 -FLAGS ($pop3deleted)");
        }),
        ("marked as deleted", &|imap| {
            imap.add_flags("INBOX", "10:11", "\\Deleted")
        }),
        ("marked no longer", &|imap| {
            imap.ok("SELECT INBOX");
            imap.ok("UID STORE 10 -FLAGS (\\Deleted)");
        }),
        ("a second copy", &|imap| imap.append("INBOX", &copy)),
    ];
    for policy in &policies {
        seam.open(policy);
    }
    for (what, change) in changes {
        for policy in &policies {
            // Each policy has a memory of its own.
            seam.open(policy);
            change(&mut cyrus.imap("alice"));
            let listed = is_listed_anew(&cyrus, &seam, policy, what);
            assert!(!listed, "{what}: {:?}", policy.delete);
        }
    }
    // What this session does itself.
    let [trash, hide] = &policies;
    seam.delete(trash, &[0, 3]).unwrap();
    assert!(is_listed_anew(&cyrus, &seam, hide, "another policy"));
    seam.delete(hide, &[1, 2]).unwrap();
    assert!(!is_listed_anew(&cyrus, &seam, hide, "hidden"));
    // What another session does behind this one's login.
    let late = seam.login(hide);
    seam.delete(hide, &[0]).unwrap();
    let shown = late.open().unique_ids();
    assert_eq!(shown, seam.listed(hide));
    cyrus.imap("alice").expunge("INBOX", "1:*");
    assert!(!is_listed_anew(&cyrus, &seam, hide, "nothing is left"));
}

#[test]
fn several_folders_and_a_store() {
    let Some(cyrus) = Cyrus::start() else { return };
    fill(&cyrus, 0, &plain(1..=10));
    let mut imap = cyrus.imap("alice");
    imap.ok("CREATE Work");
    imap.append("Work", &plain(20..=20)[0]);
    imap.ok("SELECT INBOX");
    imap.ok("UID COPY 3 Work");
    let policy = Policy {
        folders: ["Work", "INBOX"].map(|it| it.parse().unwrap()).into(),
        ..Policy::default()
    };
    let store = TempStore::new();
    let seam = Seam::new(&cyrus.jmap_url(), Some(store.clone()));
    assert!(is_listed_anew(&cyrus, &seam, &policy, "the first time"));
    imap.ok("UID MOVE 1:2 Work");
    imap.ok("UID MOVE 3 Trash");
    imap.append("INBOX", &plain(21..=21)[0]);
    assert!(!is_listed_anew(&cyrus, &seam, &policy, "moved"));
    // Another process, which has what is in the store.
    imap.ok("UID MOVE 4 Work");
    let later = Seam::new(&cyrus.jmap_url(), Some(store.clone()));
    assert!(!is_listed_anew(&cyrus, &later, &policy, "from the store"));
    // A mailbox of the same name, but another one.
    imap.delete_mailbox("Work");
    imap.ok("CREATE Work");
    imap.append("Work", &plain(22..=22)[0]);
    is_listed_anew(&cyrus, &seam, &policy, "another mailbox");
}
