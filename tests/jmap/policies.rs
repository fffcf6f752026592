//! What deletion, reading and time do to the mail, policy by policy.

use std::time::Duration;

use popgate::maildrop::{DeletePolicy, Outcome, Policy, SeenPolicy, UniqueId};
use popgate::store::{Frozen, Learned, Store};
use popgate::upstream::UpstreamError;
use serde_json::json;

use crate::seam::Seam;
use crate::support::ScriptedJmap;
use crate::support::TempStore;
use crate::support::scripted_jmap::{Account, Answer, Builder, INBOX, Mailbox, Reply, TRASH};
use crate::{plain, slices};

const ARCHIVE: &str = "mb-archive";
const OLD: &str = "mb-old";
const HIDDEN: &str = "$pop3deleted";

/// Three messages, an Archive and `Other/Old`.
fn builder() -> Builder {
    ScriptedJmap::builder()
        .messages(&slices(&plain(3)))
        .account(|it| {
            let archive = Mailbox::new(ARCHIVE, "Ablage").with_role("archive");
            let old = Mailbox::new(OLD, "Old").below("mb-other");
            it.mailboxes.extend([archive, old]);
        })
}

pub fn policy(delete: &str) -> Policy {
    Policy {
        delete: delete.parse().unwrap(),
        ..Policy::default()
    }
}

fn removed(messages: &[usize]) -> Outcome {
    Outcome {
        removed: messages.to_vec(),
        ..Outcome::default()
    }
}

/// The Emails with a keyword.
fn with_keyword(account: &Account, keyword: &str) -> Vec<String> {
    let emails = account.emails.iter();
    emails
        .filter(|email| email.keywords.contains(keyword))
        .map(|email| email.id.clone())
        .collect()
}

#[test]
fn each_policy_does_what_it_says() {
    for (delete, inbox, elsewhere) in [
        ("trash", &["M2"][..], Some(TRASH)),
        ("archive", &["M2"], Some(ARCHIVE)),
        ("move:Other/Old", &["M2"], Some(OLD)),
        ("move:Other", &["M2"], Some("mb-other")),
        ("expunge", &["M2"], None),
        ("seen", &["M1", "M2", "M3"], None),
        ("hide", &["M1", "M2", "M3"], None),
    ] {
        let server = builder().start();
        let seam = Seam::new(&server.url(), None);
        let outcome = seam.delete(&policy(delete), &[0, 2]).unwrap();
        assert_eq!(outcome, removed(&[0, 2]), "{delete}");
        assert_eq!(server.ids(INBOX), inbox, "{delete}");
        if let Some(mailbox) = elsewhere {
            assert_eq!(server.ids(mailbox), ["M1", "M3"], "{delete}");
        }
        let marked: &[&str] = match delete {
            "seen" | "hide" => &["M1", "M3"],
            _ => &[],
        };
        let keyword = if delete == "seen" { "$seen" } else { HIDDEN };
        assert_eq!(with_keyword(&server.account(), keyword), marked, "{delete}");
        for set in server.calls("Email/set") {
            assert!(set["ifInState"].is_string());
            assert_eq!(set["destroy"].is_array(), delete == "expunge", "{delete}");
        }
        let shown: &[&str] = match delete {
            "seen" => &["G1", "G2", "G3"],
            _ => &["G2"],
        };
        assert_eq!(seam.listed(&policy(delete)), shown, "{delete}");
    }
}

#[test]
fn what_lies_elsewhere_too() {
    for (delete, expected) in [
        ("trash", &["mb-other"][..]),
        ("archive", &[ARCHIVE, "mb-other"]),
        ("move:Other", &["mb-other"]),
        ("expunge", &["mb-other"]),
        ("hide", &[INBOX, "mb-other"]),
    ] {
        let server = builder()
            .account(|it| {
                it.emails[0].mailboxes.insert("mb-other".to_owned());
            })
            .start();
        let seam = Seam::new(&server.url(), None);
        seam.delete(&policy(delete), &[0]).unwrap();
        let account = server.account();
        let mailboxes: Vec<&str> = account.emails[0].mailboxes.iter().map(|it| &**it).collect();
        assert_eq!(mailboxes, expected, "{delete}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_at_the_login() {
    let shared = |change: fn(&mut Account)| builder().account(change).start();
    for (delete, server, reason) in [
        (
            "move:Nowhere",
            builder().start(),
            "no folder to move deleted messages to: Nowhere",
        ),
        ("move:INBOX", builder().start(), "where they are"),
        (
            "archive",
            shared(|it| it.mailboxes.retain(|mailbox| mailbox.id != ARCHIVE)),
            "no Archive",
        ),
        (
            "archive",
            shared(|it| it.mailboxes[3].rights = json!({ "mayAddItems": false })),
            "may be added",
        ),
        (
            "archive",
            shared(|it| it.mailboxes[0].rights = json!({ "mayRemoveItems": false })),
            "may be removed",
        ),
        (
            "seen",
            shared(|it| it.mailboxes[0].rights = json!({ "maySetSeen": false })),
            "marked as read",
        ),
        (
            "hide",
            shared(|it| it.mailboxes[0].rights = json!({ "maySetKeywords": false })),
            "--state",
        ),
        ("hide", shared(|it| it.read_only = true), "--state"),
        ("seen", shared(|it| it.read_only = true), "read-only"),
    ] {
        let seam = Seam::new(&server.url(), None);
        let said = seam.misconfigured(&policy(delete));
        assert!(said.contains(reason), "{delete}: {said}");
    }
    // What only looks needs no rights.
    let server = shared(|it| {
        it.mailboxes[0].rights = json!({
            "mayReadItems": true, "mayAddItems": false, "mayRemoveItems": false,
            "maySetSeen": false, "maySetKeywords": false,
        });
    });
    let seam = Seam::new(&server.url(), None);
    assert_eq!(seam.listed(&policy("refuse")).len(), 3);
    let update = seam.open(&policy("refuse")).quit(&[0]);
    assert!(matches!(update, Err(UpstreamError::Misconfigured(_))));
    assert!(server.calls("Email/set").is_empty());
}

#[test]
fn hidden_in_the_store_where_there_are_no_keywords() {
    for change in [
        (|it: &mut Account| it.mailboxes[0].rights = json!({ "maySetKeywords": false }))
            as fn(&mut Account),
        |it| it.read_only = true,
    ] {
        let server = builder().account(change).start();
        let store = TempStore::new();
        let seam = Seam::new(&server.url(), Some(store.clone()));
        let outcome = seam.delete(&policy("hide"), &[0]).unwrap();
        assert_eq!(outcome, removed(&[0]));
        assert_eq!(seam.listed(&policy("hide")), ["G2", "G3"]);
        assert!(server.calls("Email/set").is_empty());
        // Whatever the policy is later, and whoever asks the server.
        let other = Seam::new(&server.url(), Some(store.clone()));
        assert_eq!(other.listed(&policy("refuse")), ["G2", "G3"]);
        server.account().read_only = false;
        server.account().mailboxes[0].rights = json!(null);
        // Begun with the store, it goes on with the store.
        other.delete(&policy("hide"), &[0]).unwrap();
        assert!(with_keyword(&server.account(), HIDDEN).is_empty());
        assert_eq!(other.listed(&policy("hide")), ["G3"]);
    }
}

#[test]
fn copies_keep_their_numbers_whatever_is_hidden() {
    let server = builder()
        .account(|it| {
            for email in &mut it.emails {
                email.blob = "G1".to_owned();
            }
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    assert_eq!(seam.listed(&policy("hide")), ["G1", "G1.2", "G1.3"]);
    seam.delete(&policy("hide"), &[1]).unwrap();
    assert_eq!(seam.listed(&policy("hide")), ["G1", "G1.3"]);
    seam.delete(&policy("hide"), &[0]).unwrap();
    assert_eq!(seam.listed(&policy("hide")), ["G1.3"]);
    // Keywords are asked for where they matter only.
    let gets = server.calls("Email/get");
    assert_eq!(gets[1]["properties"].as_array().unwrap().len(), 5);
    server.forget();
    assert_eq!(seam.listed(&policy("trash")).len(), 3);
    let properties = &server.calls("Email/get")[1]["properties"];
    assert_eq!(*properties, json!(["id", "blobId", "size", "receivedAt"]));
}

#[test]
fn an_id_that_was_replaced_is_followed() {
    for delete in ["seen", "hide", "archive"] {
        let server = builder().start();
        let seam = Seam::new(&server.url(), None);
        let open = seam.open(&policy(delete));
        server
            .account()
            .change(|emails| emails[0].id = "A-one".to_owned());
        assert_eq!(open.quit(&[0]).unwrap(), removed(&[0]));
        let account = server.account();
        let email = &account.emails[0];
        let done = match delete {
            "seen" => email.keywords.contains("$seen"),
            "hide" => email.keywords.contains(HIDDEN),
            _ => email.is_in(ARCHIVE) && !email.is_in(INBOX),
        };
        assert!(done, "{delete}: {email:?}");
    }
}

#[test]
fn read_when_it_was_delivered() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let policy = Policy {
        seen: SeenPolicy::OnRetr,
        ..policy("trash")
    };
    let mut open = seam.open(&policy);
    open.retrieve(1);
    open.retrieve(1);
    assert_eq!(with_keyword(&server.account(), "$seen"), ["M2"]);
    assert_eq!(server.calls("Email/set").len(), 1);
    open.reset();
    // Not by TOP or without delivery; and not under `never`.
    let mut open = seam.open(&Policy {
        seen: SeenPolicy::Never,
        ..policy
    });
    open.retrieve(0);
    open.quit(&[]).unwrap();
    assert_eq!(with_keyword(&server.account(), "$seen"), ["M2"]);
}

#[test]
fn read_at_quit() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let policy = Policy {
        seen: SeenPolicy::OnQuit,
        ..policy("trash")
    };
    let mut open = seam.open(&policy);
    open.retrieve(0);
    open.reset();
    assert!(with_keyword(&server.account(), "$seen").is_empty());
    let mut open = seam.open(&policy);
    open.retrieve(0);
    open.retrieve(2);
    assert!(server.calls("Email/set").is_empty());
    assert_eq!(open.quit(&[0]).unwrap(), removed(&[0]));
    assert_eq!(with_keyword(&server.account(), "$seen"), ["M1", "M3"]);
    assert_eq!(server.ids(TRASH), ["M1"]);
    // Both at once, then the removal.
    assert_eq!(server.calls("Email/set").len(), 2);
}

#[test]
fn what_is_not_marked_as_read_is_nobodys_failure() {
    for seen in [SeenPolicy::OnRetr, SeenPolicy::OnQuit] {
        let server = builder()
            .on_method("Email/set", |arguments, _| {
                let patch = arguments["update"].to_string();
                let answer = json!({ "notUpdated": { "M1": { "type": "forbidden" } } });
                patch
                    .contains("$seen")
                    .then_some(("Email/set".to_owned(), answer))
            })
            .start();
        let seam = Seam::new(&server.url(), None);
        let mut open = seam.open(&Policy {
            seen,
            ..policy("expunge")
        });
        open.retrieve(0);
        assert_eq!(open.quit(&[1]).unwrap(), removed(&[1]));
        assert_eq!(server.ids(INBOX), ["M1", "M3"]);
    }
}

/// Keeps that the inbox's message with this key was retrieved days ago.
fn retrieved(store: &Store, seam: &Seam, message: usize, days: i64) {
    retrieved_of(store, seam, &policy("refuse"), message, days);
}

fn retrieved_of(store: &Store, seam: &Seam, policy: &Policy, message: usize, days: i64) {
    let open = seam.open(policy);
    let (folder, message) = open.kept_as(message).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let learned = Learned {
        message,
        octets: None,
        retrieved: Some(i64::try_from(now).unwrap() - days * 86_400),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(store.learn(&folder, vec![learned]))
        .unwrap();
}

fn expiring(delete: &str) -> Policy {
    Policy {
        expire_after: Some(Duration::from_secs(30 * 86_400)),
        ..policy(delete)
    }
}

#[test]
fn what_was_retrieved_long_ago_is_moved_to_the_trash() {
    for delete in ["trash", "seen", "hide", "expunge"] {
        let server = builder().start();
        let store = TempStore::new();
        let seam = Seam::new(&server.url(), Some(store.clone()));
        retrieved(&store, &seam, 0, 31);
        retrieved(&store, &seam, 1, 29);
        retrieved(&store, &seam, 2, 31);
        // What is deleted goes as deleted things go.
        let outcome = seam.delete(&expiring(delete), &[2]).unwrap();
        assert_eq!((outcome.removed, outcome.expired), (vec![2], vec![0]));
        let trash: &[&str] = if delete == "trash" {
            &["M1", "M3"]
        } else {
            &["M1"]
        };
        assert_eq!(server.ids(TRASH), trash, "{delete}");
        assert!(server.ids(INBOX).contains(&"M2".to_owned()));
    }
}

#[test]
fn retrieval_is_remembered_and_nothing_else_expires() {
    let server = builder().start();
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    let policy = expiring("trash");
    let mut open = seam.open(&policy);
    open.retrieve(1);
    let (folder, key) = open.kept_as(1).unwrap();
    assert_eq!(
        (folder.account.as_str(), folder.folder.as_str()),
        ("alice", "INBOX")
    );
    // Lost without QUIT: it was retrieved all the same.
    open.reset();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = runtime.block_on(store.folder(&folder)).unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let since = i64::try_from(now).unwrap() - kept.retrieved[&key];
    assert!((0..600).contains(&since), "{since}");
    assert_eq!(kept.retrieved.len(), 1);
    assert_eq!(seam.delete(&policy, &[]).unwrap(), Outcome::default());
    assert_eq!(server.ids(INBOX).len(), 3);
}

#[test]
fn expiry_needs_a_store_and_a_trash() {
    let server = builder()
        .account(|it| it.mailboxes.retain(|mailbox| mailbox.id != TRASH))
        .start();
    let without = Seam::new(&server.url(), None);
    assert!(
        without
            .misconfigured(&expiring("expunge"))
            .contains("--state")
    );
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    for delete in ["seen", "hide", "archive", "expunge"] {
        assert!(seam.misconfigured(&expiring(delete)).contains("no Trash"));
    }
}

#[test]
fn what_expires_in_the_trash_stays_there() {
    let server = builder()
        .account(|it| {
            it.email("M1").mailboxes = [TRASH.to_owned()].into();
        })
        .start();
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    let policy = Policy {
        folders: vec!["INBOX".parse().unwrap(), "trash".parse().unwrap()],
        ..expiring("expunge")
    };
    for message in 0..3 {
        retrieved_of(&store, &seam, &policy, message, 31);
    }
    assert_eq!(seam.delete(&policy, &[0]).unwrap().expired, [1]);
    assert_eq!(server.ids(TRASH), ["M1", "M3"]);
    assert!(server.ids(INBOX).is_empty());
}

#[test]
fn an_expiry_that_fails_is_no_failure_of_the_deletion() {
    let server = builder()
        .on_method("Email/set", |arguments, _| {
            let failed = ("error".to_owned(), json!({ "type": "serverFail" }));
            arguments["update"]["M1"].is_object().then_some(failed)
        })
        .start();
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    retrieved(&store, &seam, 0, 31);
    let outcome = seam.delete(&expiring("trash"), &[1]).unwrap();
    assert_eq!(outcome, removed(&[1]));
    assert_eq!(server.ids(INBOX), ["M1", "M3"]);
}

#[test]
fn true_sizes_are_kept() {
    let server = builder()
        .account(|it| it.emails[0].octets = b"a: b\n\nbare\n".to_vec())
        .start();
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    let mut open = seam.open(&policy("trash"));
    assert_eq!(open.maildrop.get(0).unwrap().octets, 11);
    open.retrieve_as(0, 14);
    open.quit(&[]).unwrap();
    let other = Seam::new(&server.url(), Some(store.clone()));
    let open = other.open(&policy("trash"));
    assert_eq!(open.maildrop.get(0).unwrap().octets, 14);
}

#[test]
fn frozen_ids_survive_ids_that_are_replaced() {
    let server = builder().start();
    let store = TempStore::new();
    let seam = Seam::new(&server.url(), Some(store.clone()));
    let (folder, _) = seam.open(&policy("refuse")).kept_as(0).unwrap();
    let frozen = [("G3", "UID3-7"), ("G1", "UID1-7")];
    let frozen = (0..).zip(frozen).map(|(rank, (key, id))| Frozen {
        message: key.as_bytes().into(),
        rank,
        unique_id: UniqueId::new(id.to_owned()).unwrap(),
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(store.freeze(&folder, frozen.collect::<Vec<_>>()))
        .unwrap();
    server.account().change(|emails| {
        for email in emails {
            email.id = format!("New-{}", email.id);
        }
    });
    let mut open = seam.open(&policy("expunge"));
    assert_eq!(open.unique_ids(), ["UID3-7", "UID1-7", "G2"]);
    assert_eq!(open.retrieve(0), plain(3)[2]);
    assert_eq!(&*open.kept_as(2).unwrap().1, b"G2");
    assert_eq!(open.quit(&[0]).unwrap(), removed(&[0]));
    assert_eq!(server.ids(INBOX), ["New-M1", "New-M2"]);
    assert_eq!(seam.listed(&policy("expunge")), ["UID1-7", "G2"]);
}

/// What a policy has done to a message, and whether that is what it should do.
fn is_done(server: &ScriptedJmap, delete: &str, id: &str) -> bool {
    let account = server.account();
    let Some(email) = account.emails.iter().find(|email| email.id == id) else {
        assert_eq!(delete, "expunge");
        return true;
    };
    match delete {
        "seen" => email.keywords.contains("$seen"),
        "hide" => email.keywords.contains(HIDDEN),
        "archive" => email.is_in(ARCHIVE) && !email.is_in(INBOX),
        "trash" => email.is_in(TRASH) && !email.is_in(INBOX),
        _ => false,
    }
}

#[test]
fn the_answer_agrees_with_the_mailbox_wherever_it_breaks() {
    type Broken = fn() -> Answer;
    let faults: [(&str, Broken); 4] = [
        ("lost", || Answer::Reset),
        ("done, and lost", || Answer::DoThenReset),
        ("500", || Answer::Send(Reply::status(500))),
        ("429", || {
            Answer::Send(Reply::status(429).header("Retry-After", "60"))
        }),
    ];
    for delete in ["trash", "archive", "expunge", "seen", "hide"] {
        for (name, fault) in faults {
            for forever in [false, true] {
                for step in 0..4 {
                    use std::sync::atomic::{AtomicUsize, Ordering};
                    let asked = AtomicUsize::new(0);
                    // 0: both mailboxes; 1: the listing.
                    let server = builder()
                        .on_request(move |request, _| {
                            if !request.path.starts_with(crate::support::scripted_jmap::API) {
                                return Answer::Usual;
                            }
                            let at = asked.fetch_add(1, Ordering::SeqCst);
                            let due = step + 2;
                            if at == due || (forever && at > due) {
                                fault()
                            } else {
                                Answer::Usual
                            }
                        })
                        .start();
                    let case = format!("{delete} {name} {step} {forever}");
                    let seam = Seam::new(&server.url(), None);
                    let outcome = seam.delete(&policy(delete), &[0, 2]);
                    match outcome {
                        Ok(outcome) => {
                            for message in &outcome.removed {
                                let id = format!("M{}", message + 1);
                                assert!(is_done(&server, delete, &id), "{case}: {id}");
                            }
                            if !forever && name != "429" {
                                assert_eq!(outcome, removed(&[0, 2]), "{case}");
                            }
                        }
                        Err(_) => assert!(forever || step < 3, "{case}"),
                    }
                    let account = server.account();
                    assert!(
                        account
                            .emails
                            .iter()
                            .any(|it| it.id == "M2" && it.keywords.is_empty() && it.is_in(INBOX))
                    );
                }
            }
        }
    }
}

#[test]
fn success_is_looked_at() {
    for delete in ["archive", "seen", "hide"] {
        let server = builder()
            .on_method("Email/set", |_, _| {
                let answer = json!({ "updated": { "M1": null } });
                Some(("Email/set".to_owned(), answer))
            })
            .start();
        let seam = Seam::new(&server.url(), None);
        let outcome = seam.delete(&policy(delete), &[0]).unwrap();
        assert_eq!((outcome.removed, outcome.remaining), (vec![], vec![0]));
    }
}

#[test]
fn keywords_that_make_no_sense() {
    for keywords in [json!(7), json!(["$seen"]), json!({ "$seen": "yes" })] {
        let lie = keywords.clone();
        let server = builder()
            .on_answer("Email/get", move |arguments, answer| {
                if arguments["properties"].to_string().contains("keywords") {
                    answer["list"][0]["keywords"] = lie.clone();
                }
            })
            .start();
        let seam = Seam::new(&server.url(), None);
        let listed = seam.try_open(&policy("hide")).map(|_| ());
        assert!(
            matches!(listed, Err(UpstreamError::Protocol(_))),
            "{keywords}: {listed:?}"
        );
        let outcome = seam.delete(&policy("seen"), &[0]);
        assert!(matches!(outcome, Err(UpstreamError::Protocol(_))));
        assert!(server.calls("Email/set").is_empty());
    }
    // A server that has none of them says so by silence.
    let server = builder()
        .on_answer("Email/get", |_, answer| {
            for email in answer["list"].as_array_mut().unwrap() {
                email.as_object_mut().unwrap().remove("keywords");
            }
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    let outcome = seam.delete(&policy("hide"), &[0]).unwrap();
    assert_eq!(outcome.remaining, [0]);
}

#[test]
fn what_the_trash_shows_is_destroyed_only_without_a_policy() {
    let server = builder()
        .account(|it| {
            it.deliver_to(TRASH, &plain(1)[0]);
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    let of_trash = |delete: DeletePolicy| Policy {
        folders: vec!["trash".parse().unwrap()],
        delete,
        ..Policy::default()
    };
    let said = seam.misconfigured(&of_trash(DeletePolicy::Trash));
    assert!(said.contains("where they are"), "{said}");
    seam.delete(&of_trash(DeletePolicy::TrashIfThere), &[0])
        .unwrap();
    assert_eq!(server.account().emails.len(), 3);
}
