//! Folders: found by name, by role, in another's account, several at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use popgate::maildrop::{Policy, SeenPolicy, Window};
use popgate::upstream::UpstreamError;
use serde_json::{Value, json};

use crate::seam::Seam;
use crate::support::ScriptedJmap;
use crate::support::TempStore;
use crate::support::scripted_jmap::{API, Account, Builder, INBOX, Mailbox, SHARED, TRASH};
use crate::{plain, slices};

const JUNK: &str = "mb-junk";
const OLD: &str = "mb/old";

/// M1 and M2 in the inbox, M3 in Junk, M4 in `Other/Old`.
fn builder() -> Builder {
    ScriptedJmap::builder()
        .messages(&slices(&plain(2)))
        .account(|it| {
            it.mailboxes.extend([
                Mailbox::new(JUNK, "Spam").with_role("junk"),
                Mailbox::new(OLD, "Old").below("mb-other"),
            ]);
            it.deliver_to(JUNK, &plain(3)[2]);
            it.deliver_to(OLD, &plain(4)[3]);
        })
}

fn of(folders: &[&str], delete: &str) -> Policy {
    Policy {
        folders: folders.iter().map(|it| it.parse().unwrap()).collect(),
        delete: delete.parse().unwrap(),
        ..Policy::default()
    }
}

#[test]
fn a_folder_by_its_name_or_role() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    for (name, folder, id) in [
        ("inbox", "INBOX", "G1"),
        ("Inbox", "INBOX", "G1"),
        ("Junk", "jmap:acc:mb-junk", "G3"),
        ("Spam", "jmap:acc:mb-junk", "G3"),
        ("Other/Old", "jmap:acc:mb/old", "G4"),
    ] {
        let open = seam.open(&of(&[name], "trash"));
        assert_eq!(open.folders, [folder], "{name}");
        assert_eq!(open.unique_ids()[0], id, "{name}");
        let (key, _) = open.kept_as(0).unwrap();
        assert_eq!(
            (key.account.as_str(), key.folder.as_str()),
            ("alice", folder)
        );
    }
    for name in ["Old", "other", "Other/old", "Other/Old/x", "sent"] {
        let said = seam.misconfigured(&of(&[name], "trash"));
        assert_eq!(said, format!("there is no folder: {name}"));
    }
    // Deletion there touches nothing else.
    seam.delete(&of(&["Other/Old"], "trash"), &[0]).unwrap();
    assert_eq!(server.ids(TRASH), ["M4"]);
    assert_eq!(server.ids(INBOX), ["M1", "M2"]);
}

#[test]
fn a_folder_that_may_not_be_read() {
    let server = builder()
        .account(|it| it.mailboxes[3].rights = json!({ "mayReadItems": false }))
        .start();
    let seam = Seam::new(&server.url(), None);
    let said = seam.misconfigured(&of(&["Junk"], "refuse"));
    assert_eq!(said, "this folder may not be read: Junk");
    seam.open(&of(&["INBOX"], "refuse"));
}

#[test]
fn a_later_login_takes_one_request() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    for folder in ["INBOX", "Other/Old"] {
        let policy = of(&[folder], "trash");
        seam.open(&policy);
        server.forget();
        seam.open(&policy);
        assert_eq!(server.requests().len(), 1, "{folder}");
    }
}

#[test]
fn many_mailboxes_come_in_pages() {
    let server = builder()
        .account(|it| {
            for number in 0..500 {
                let parent = if number % 2 == 0 { "mb-other" } else { JUNK };
                let mailbox = Mailbox::new(&format!("mb{number}"), &format!("Old{number}"));
                it.mailboxes.push(mailbox.below(parent));
            }
            it.mailboxes
                .push(Mailbox::new("mb-last", "a/b").below("mb498"));
            it.deliver_to("mb-last", &plain(5)[4]);
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    let open = seam.open(&of(&["Other/Old498/a/b"], "trash"));
    assert_eq!(open.unique_ids(), ["G5"]);
    // 506 of them, 100 at a time.
    assert_eq!(server.calls("Mailbox/query").len(), 6);
}

/// The refusal of a login to a folder, where the answers are changed.
fn with_answers(
    method: &'static str,
    change: impl Fn(&Value, &mut Value) + Send + Sync + 'static,
) -> Result<Vec<String>, UpstreamError> {
    let server = builder().on_answer(method, change).start();
    let seam = Seam::new(&server.url(), None);
    let opened = seam.try_open(&of(&["Other/Old"], "trash"));
    let asked = server.count(API);
    assert!(asked < 30, "{asked} requests");
    opened.map(|open| open.unique_ids())
}

#[test]
fn lists_of_mailboxes_that_lie() {
    let query = |change: fn(&Value, &mut Value)| with_answers("Mailbox/query", change);
    let get = |change: fn(&Value, &mut Value)| with_answers("Mailbox/get", change);
    // Without a total, the end is an empty page.
    let untold = query(|_, it| it["total"] = Value::Null);
    assert_eq!(untold.unwrap(), ["G4"]);
    for (name, outcome) in [
        ("more are claimed", query(|_, it| it["total"] = json!(9))),
        (
            "the same page for ever",
            query(|_, it| {
                it["total"] = json!(9000);
                it["position"] = Value::Null;
                it["ids"] = json!([INBOX]);
            }),
        ),
        ("another page", query(|_, it| it["position"] = json!(7))),
        ("not whole", get(|_, it| it["list"] = json!([]))),
        (
            "not asked for",
            get(|_, it| it["list"][0]["id"] = json!("mb-x")),
        ),
        (
            "twice",
            get(|_, it| it["list"][0]["id"] = it["list"][1]["id"].clone()),
        ),
        (
            "a long id",
            get(|_, it| it["list"][0]["id"] = json!("x".repeat(256))),
        ),
        ("no id", get(|_, it| it["list"][0]["id"] = Value::Null)),
        ("a number", get(|_, it| it["list"][0]["name"] = json!(7))),
    ] {
        assert!(
            matches!(
                outcome,
                Err(UpstreamError::Protocol(_) | UpstreamError::Temporary { .. })
            ),
            "{name}: {outcome:?}"
        );
    }
    let states = AtomicUsize::new(0);
    let outcome = with_answers("Mailbox/query", move |_, it| {
        it["queryState"] = json!(states.fetch_add(1, Ordering::SeqCst).to_string());
        it["total"] = Value::Null;
    });
    assert!(matches!(outcome, Err(UpstreamError::Temporary { .. })));
    // Whoever has so many, has them for another purpose.
    let many = query(|_, it| it["total"] = json!(1_000_000));
    assert!(matches!(many, Err(UpstreamError::Misconfigured(_))));
    // Parents in a circle, and names of any length.
    let circle = get(|_, it| {
        for mailbox in it["list"].as_array_mut().unwrap() {
            mailbox["parentId"] = mailbox["id"].clone();
            mailbox["name"] = json!("Other");
        }
    });
    assert!(matches!(circle, Err(UpstreamError::NoFolder(_))));
    let long = get(|_, it| it["list"][0]["name"] = json!("x".repeat(100_000)));
    assert_eq!(long.unwrap(), ["G4"]);
}

#[test]
fn folders_that_are_joined() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let names = ["Junk", "INBOX", "Other/Old", "Spam", "inbox"];
    let policy = of(&names, "trash");
    let mut open = seam.open(&policy);
    assert_eq!(
        open.folders,
        ["jmap:acc:mb-junk", "INBOX", "jmap:acc:mb/old"]
    );
    let ids = open.unique_ids();
    assert_eq!(ids[1..3], ["G1", "G2"]);
    assert!(ids[0].starts_with("G3.f") && ids[3].starts_with("G4.f"));
    for (index, number) in [(0, 3), (1, 1), (2, 2), (3, 4)] {
        assert_eq!(open.retrieve(index), plain(number)[number - 1]);
    }
    let key = open.kept_as(3).unwrap();
    assert_eq!(key.0.folder, "jmap:acc:mb/old");
    assert_eq!(&*key.1, b"G4");
    assert_eq!(open.quit(&[0, 2]).unwrap().removed, [0, 2]);
    assert_eq!(server.ids(TRASH), ["M2", "M3"]);
    assert_eq!(server.ids(INBOX), ["M1"]);
    assert_eq!(server.ids(OLD), ["M4"]);
    // A folder that is named twice is one, with the ids it has alone.
    assert_eq!(seam.listed(&of(&["Other/Old"], "trash")), ["G4"]);
    assert_eq!(seam.listed(&of(&["inbox", "Inbox"], "trash")), ["G1"]);
}

#[test]
fn a_message_in_two_of_the_folders_is_one_and_leaves_both() {
    for (delete, left) in [
        ("trash", &[TRASH][..]),
        ("expunge", &[]),
        ("move:Other", &["mb-other"]),
    ] {
        let server = builder()
            .account(|it| {
                it.email("M2").mailboxes.insert(JUNK.to_owned());
            })
            .start();
        let seam = Seam::new(&server.url(), None);
        let open = seam.open(&of(&["INBOX", "Junk"], delete));
        assert_eq!(open.unique_ids().len(), 3);
        assert_eq!(open.quit(&[1]).unwrap().removed, [1]);
        let account = server.account();
        let email = account.emails.iter().find(|email| email.id == "M2");
        let mailboxes = email.map(|it| it.mailboxes.iter().map(|it| &**it).collect::<Vec<_>>());
        assert_eq!(mailboxes.unwrap_or_default(), left, "{delete}");
    }
}

#[test]
fn what_came_into_another_of_the_folders_meanwhile_stays_there() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let open = seam.open(&of(&["INBOX", "Junk"], "expunge"));
    server.account().change(|emails| {
        // One was moved, one was copied.
        emails[0].mailboxes = [JUNK.to_owned()].into();
        emails[1].mailboxes.insert(JUNK.to_owned());
    });
    assert_eq!(open.quit(&[0, 1]).unwrap().removed, [0, 1]);
    assert!(server.ids(INBOX).is_empty());
    assert_eq!(server.ids(JUNK), ["M1", "M2", "M3"]);
}

#[test]
fn hidden_in_each_of_the_folders() {
    let server = builder()
        .account(|it| {
            for mailbox in &mut it.mailboxes {
                mailbox.rights = json!({ "maySetKeywords": false });
            }
            it.email("M2").mailboxes.insert(JUNK.to_owned());
        })
        .start();
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    let policy = of(&["INBOX", "Junk"], "hide");
    seam.delete(&policy, &[1]).unwrap();
    assert_eq!(seam.listed(&policy)[0], "G1");
    assert_eq!(seam.listed(&policy).len(), 2);
    // Nor from the one alone, nor when it has left the other.
    assert_eq!(seam.listed(&of(&["Junk"], "hide")), ["G3"]);
    server.account().email("M2").mailboxes.remove(INBOX);
    assert_eq!(seam.listed(&policy).len(), 2);
}

#[test]
fn a_target_among_the_folders() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    for delete in ["trash", "move:Trash", "move:INBOX"] {
        let said = seam.misconfigured(&of(&["INBOX", "Trash"], delete));
        assert!(said.contains("where they are"), "{delete}: {said}");
    }
    let unset = Policy {
        delete: popgate::maildrop::DeletePolicy::TrashIfThere,
        ..of(&["INBOX", "Trash"], "refuse")
    };
    seam.delete(&unset, &[0]).unwrap();
    assert_eq!(server.ids(TRASH), ["M1"]);
    assert_eq!(seam.delete(&unset, &[1]).unwrap().removed, [1]);
    assert!(server.ids(TRASH).is_empty());
    assert!(server.account().emails.iter().all(|it| it.id != "M1"));
}

#[test]
fn windows() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let last = |folders: &[&str], most| Policy {
        window: Window {
            max_age: None,
            max_messages: Some(most),
        },
        ..of(folders, "trash")
    };
    assert_eq!(seam.listed(&last(&["INBOX"], 1)), ["G2"]);
    assert_eq!(seam.listed(&last(&["Other/Old", "INBOX"], 2)).len(), 2);
    let policy = last(&["Other/Old", "INBOX", "Junk"], 3);
    let mut open = seam.open(&policy);
    assert_eq!(open.unique_ids()[1], "G2");
    assert_eq!(open.retrieve(1), plain(2)[1]);
    assert_eq!(open.retrieve(2), plain(3)[2]);
    open.quit(&[1]).unwrap();
    assert_eq!(server.ids(TRASH), ["M2"]);
    assert_eq!(server.ids(INBOX), ["M1"]);
    // All of it arrived in January.
    let recent = |days: u64| Policy {
        window: Window {
            max_age: Some(Duration::from_secs(days * 86_400)),
            max_messages: None,
        },
        ..of(&["INBOX"], "trash")
    };
    assert!(seam.listed(&recent(1)).is_empty());
    assert_eq!(seam.listed(&recent(100_000)), ["G1"]);
    server.account().email("M1").received_at = "2026-01-02T00:00:00+00:00".to_owned();
    // What never changes of an Email is asked for by who does not know it.
    let seam = Seam::new(&server.url(), None);
    let malformed = seam.try_open(&recent(100_000)).map(|_| ());
    assert!(matches!(malformed, Err(UpstreamError::Protocol(_))));
    assert_eq!(seam.listed(&of(&["INBOX"], "trash")), ["G1"]);
}

#[test]
fn what_lies_outside_the_window_is_never_taken_for_another() {
    let server = builder()
        .account(|it| {
            // Two copies that arrived at once.
            let first = it.emails[0].clone();
            it.emails[1].blob = first.blob;
            it.emails[1].received_at = first.received_at;
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    let policy = Policy {
        window: Window {
            max_age: None,
            max_messages: Some(1),
        },
        ..of(&["INBOX"], "expunge")
    };
    let open = seam.open(&policy);
    assert_eq!(open.unique_ids(), ["G1.2"]);
    server.account().change(|emails| {
        emails.remove(1);
    });
    assert_eq!(open.quit(&[0]).unwrap().removed, [0]);
    assert_eq!(server.ids(INBOX), ["M1"]);
}

#[test]
fn formats_of_unique_ids() {
    let server = builder()
        .account(|it| it.emails[1].blob = "G1".to_owned())
        .start();
    let seam = Seam::new(&server.url(), None);
    let format = |format: &str| Policy {
        unique_ids: Some(format.parse().unwrap()),
        ..of(&["INBOX"], "trash")
    };
    for (name, ids) in [
        ("jmap", ["G1", "G1.2"]),
        ("emailid", ["M1", "M2"]),
        ("%{emailid}-%{blobid}", ["M1-G1", "M2-G1.2"]),
    ] {
        let open = seam.open(&format(name));
        assert_eq!(open.unique_ids(), ids, "{name}");
        // What the store knows a message by is the same under each format.
        assert_eq!(&*open.kept_as(1).unwrap().1, b"G1.2");
    }
    server.forget();
    for name in ["dovecot", "cyrus-uidonly", "%g", "%f", "gmail"] {
        let said = seam.misconfigured(&format(name));
        assert!(said.contains("\"jmap\" or \"emailid\""), "{name}: {said}");
    }
    assert!(server.requests().is_empty());
}

fn shared(name: &str, change: impl Fn(&mut Account)) -> ScriptedJmap {
    let mut account = Account::new();
    for mailbox in &mut account.mailboxes {
        mailbox.id = format!("b-{}", mailbox.id);
    }
    for number in 7..=8 {
        let octets = crate::support::messages::plain(number, 500);
        let id = account.deliver_to("b-mb-inbox", &octets);
        account.email(&id).id = format!("B{number}");
        account.email(&format!("B{number}")).blob = format!("Gb{number}");
    }
    change(&mut account);
    let name = name.to_owned();
    builder()
        .account(|it| it.shared = Some((name.clone(), Box::new(account.clone()))))
        .start()
}

fn of_bob(delete: &str) -> Policy {
    Policy {
        shared: Some("bob@example.com".to_owned()),
        ..of(&["INBOX"], delete)
    }
}

#[test]
fn the_mailbox_of_another_user() {
    for name in ["bob", "Bob@Example.COM", "bob@example.com"] {
        let server = shared(name, |_| {});
        let seam = Seam::new(&server.url(), None);
        for _ in 0..2 {
            let mut open = seam.open(&of_bob("trash"));
            assert_eq!(open.folders, ["INBOX"]);
            assert_eq!(open.unique_ids(), ["Gb7", "Gb8"]);
            let (key, _) = open.kept_as(0).unwrap();
            assert_eq!(key.folder, format!("jmap:{SHARED}:b-mb-inbox"));
            let expected = crate::support::messages::plain(8, 500);
            assert_eq!(open.retrieve(1), expected);
        }
        // Not to be mistaken for alice's own.
        assert_eq!(
            seam.open(&of(&["INBOX"], "trash")).unique_ids(),
            ["G1", "G2"]
        );
        seam.delete(&of_bob("trash"), &[0]).unwrap();
        let account = server.account();
        let (_, bobs) = account.shared.as_ref().unwrap();
        assert!(bobs.emails[0].is_in("b-mb-trash"));
        assert_eq!(account.emails.len(), 4);
    }
}

#[test]
fn another_user_who_shares_nothing() {
    for name in ["carol", "bob@example.org", "bobby", ""] {
        let server = shared(name, |_| {});
        let seam = Seam::new(&server.url(), None);
        let said = seam.misconfigured(&of_bob("trash"));
        assert!(said.contains("bob@example.com"), "{said}");
        assert!(server.calls("Email/query").is_empty());
    }
}

#[test]
fn a_shared_mailbox_that_may_only_be_read() {
    let server = shared("bob", |it| it.read_only = true);
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    assert!(seam.misconfigured(&of_bob("trash")).contains("read-only"));
    let marks = Policy {
        seen: SeenPolicy::OnQuit,
        ..of_bob("refuse")
    };
    assert!(seam.misconfigured(&marks).contains("read-only"));
    assert_eq!(seam.listed(&of_bob("refuse")).len(), 2);
    seam.delete(&of_bob("hide"), &[0]).unwrap();
    assert_eq!(seam.listed(&of_bob("hide")), ["Gb8"]);
}

#[test]
fn nobody_hides_for_all_who_share_a_mailbox() {
    let server = shared("bob", |it| {
        // What bob has hidden from himself.
        it.emails[0].keywords.insert("$pop3deleted".to_owned());
    });
    let without = Seam::new(&server.url(), None);
    assert!(without.misconfigured(&of_bob("hide")).contains("--state"));
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    assert_eq!(seam.listed(&of_bob("hide")), ["Gb7", "Gb8"]);
    seam.delete(&of_bob("hide"), &[1]).unwrap();
    assert_eq!(seam.listed(&of_bob("hide")), ["Gb7"]);
    assert!(server.calls("Email/set").is_empty());
}

#[test]
fn check_tells_of_folders_and_policies_in_words() {
    let server = shared("bob", |_| {});
    let seam = Seam::new(&server.url(), None);
    for (policy, said) in [
        (
            of(&["INBOX"], "trash"),
            &["moved to the Trash", "INBOX: 2 messages"][..],
        ),
        (
            of(&["Junk", "Other/Old"], "move:Other"),
            &[
                "Junk, Other/Old; ",
                "moved to Other",
                "Junk: 1 messages",
                "2 messages are shown",
            ],
        ),
        (of(&["INBOX"], "seen"), &["marked as read"]),
        (of(&["INBOX"], "hide"), &["not shown to this login"]),
        (
            of_bob("hide"),
            &["hidden of INBOX is kept here", "--state", "id is Gb7"],
        ),
        (of(&["INBOX"], "expunge"), &["gone for good"]),
    ] {
        let (well, told) = seam.diagnose(&policy);
        assert!(well, "{told}");
        for words in said {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
    let uids = Policy {
        unique_ids: Some("dovecot".parse().unwrap()),
        ..of(&["INBOX"], "trash")
    };
    let nobody = Policy {
        shared: Some("carol".to_owned()),
        ..of(&["INBOX"], "trash")
    };
    for (policy, said) in [
        (
            of(&["Nowhere"], "trash"),
            &["no folder: Nowhere", "levels are separated"][..],
        ),
        (
            of(&["INBOX"], "move:Nowhere"),
            &["Nowhere", "levels are separated"],
        ),
        (of(&["INBOX"], "archive"), &["no Archive", "policy"]),
        (uids, &["over JMAP use", "change `unique_ids`"]),
        (nobody, &["carol", "share the mailbox upstream"]),
    ] {
        let (well, told) = seam.diagnose(&policy);
        assert!(!well, "{told}");
        for words in said {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
    assert!(server.calls("Email/set").is_empty());
}
