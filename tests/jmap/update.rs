//! The update at QUIT: exactly what was deleted leaves, and the answer is true.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{Answer, Builder, INBOX, Reply, TRASH};
use crate::{NO_REST, alice, configured, front, plain, slices};

fn with(count: usize) -> Builder {
    ScriptedJmap::builder().messages(&slices(&plain(count)))
}

/// Deletes these messages and quits; the answer to QUIT.
fn delete(server: &ScriptedJmap, policy: &str, numbers: &[usize]) -> String {
    let gateway = front(server, &["--delete", policy]);
    let mut pop3 = alice(&gateway);
    for number in numbers {
        pop3.expect_ok(&format!("DELE {number}"));
    }
    pop3.quit()
}

fn assert_left(reply: &str, count: usize) {
    let expected = format!("-ERR [SYS/TEMP] {count} messages not removed");
    assert_eq!(reply, expected);
}

#[test]
fn moved_to_the_trash() {
    let server = with(3).start();
    assert!(delete(&server, "trash", &[1, 3]).starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["M2"]);
    assert_eq!(server.ids(TRASH), ["M1", "M3"]);
}

#[test]
fn destroyed() {
    let server = with(3).start();
    assert!(delete(&server, "expunge", &[1, 3]).starts_with("+OK"));
    assert_eq!(server.account().emails.len(), 1);
    let sets = server.calls("Email/set");
    assert_eq!(sets.len(), 1);
    assert!(sets[0]["ifInState"].is_string());
}

#[test]
fn what_is_in_other_mailboxes_loses_only_the_inbox() {
    for policy in ["trash", "expunge"] {
        let server = with(2)
            .account(|it| {
                it.emails[0].mailboxes.insert("mb-other".to_owned());
            })
            .start();
        assert!(delete(&server, policy, &[1]).starts_with("+OK"));
        assert_eq!(server.ids(INBOX), ["M2"]);
        assert_eq!(server.ids("mb-other"), ["M1"], "{policy}");
        assert!(server.ids(TRASH).is_empty());
    }
}

#[test]
fn ids_of_mailboxes_are_escaped_in_patches() {
    let server = with(1)
        .account(|it| {
            it.mailboxes[0].id = "in/box~".to_owned();
            it.emails[0].mailboxes = ["in/box~".to_owned()].into();
        })
        .on_method("Email/set", |arguments, account| {
            let patch = &arguments["update"]["M1"];
            assert_eq!(patch["mailboxIds/in~1box~0"], Value::Null);
            assert!(
                patch
                    .as_object()
                    .unwrap()
                    .contains_key("mailboxIds/in~1box~0")
            );
            account.emails.clear();
            Some(("Email/set".to_owned(), json!({ "updated": { "M1": null } })))
        })
        .start();
    assert!(delete(&server, "trash", &[1]).starts_with("+OK"));
}

#[test]
fn nothing_is_written_without_quit_or_without_dele() {
    let server = with(3).start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("DELE 1");
    pop3.reset();
    let mut pop3 = loop {
        // The one before may still hold the lock.
        let mut pop3 = gateway.pop3();
        pop3.expect_ok("USER alice");
        if pop3.command("PASS pw-alice").starts_with("+OK") {
            break pop3;
        }
    };
    pop3.expect_ok("DELE 1");
    pop3.expect_ok("RSET");
    server.forget();
    assert!(pop3.quit().starts_with("+OK"));
    assert!(server.requests().is_empty());
    assert_eq!(server.ids(INBOX).len(), 3);
    let gateway = front(&server, &["--delete", "refuse"]);
    alice(&gateway).expect_err("DELE 1");
}

#[test]
fn a_change_by_another_client_is_looked_at_first() {
    let mismatches = AtomicUsize::new(0);
    let server = with(3)
        .on_method("Email/set", move |_, account| {
            if mismatches.fetch_add(1, Ordering::SeqCst) < 3 {
                account.state += 1;
            }
            None
        })
        .start();
    assert!(delete(&server, "expunge", &[2]).starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["M1", "M3"]);
    // One that never ends.
    let server = with(3)
        .on_method("Email/set", |_, account| {
            account.state += 1;
            None
        })
        .start();
    assert_left(&delete(&server, "expunge", &[2]), 1);
    assert_eq!(server.ids(INBOX).len(), 3);
}

#[test]
fn what_another_client_filed_meanwhile_is_not_destroyed() {
    let filed = AtomicBool::new(false);
    let server = with(2)
        .on_method("Email/set", move |_, account| {
            // Between the look and the set, it was put elsewhere as well.
            if !filed.swap(true, Ordering::SeqCst) {
                account.change(|emails| {
                    emails[0].mailboxes.insert("mb-other".to_owned());
                });
            }
            None
        })
        .start();
    assert!(delete(&server, "expunge", &[1]).starts_with("+OK"));
    assert_eq!(server.ids("mb-other"), ["M1"]);
    assert_eq!(server.ids(INBOX), ["M2"]);
}

#[test]
fn the_answer_for_each_message_is_believed() {
    for (policy, failures) in [("trash", "notUpdated"), ("expunge", "notDestroyed")] {
        for kind in ["forbidden", "overQuota", "\u{1b}[2J"] {
            let server = with(3)
                .on_method("Email/set", move |_, account| {
                    account.change(|emails| {
                        emails.remove(0);
                    });
                    let answer = json!({
                        "updated": { "M1": null }, "destroyed": ["M1"],
                        failures: { "M3": { "type": kind, "description": "s3cret" } },
                    });
                    Some(("Email/set".to_owned(), answer))
                })
                .start();
            assert_left(&delete(&server, policy, &[1, 3]), 1);
            // A refusal is not asked about again.
            assert_eq!(server.calls("Email/set").len(), 1);
        }
    }
}

#[test]
fn success_is_looked_at() {
    let server = with(3)
        .on_method("Email/set", |_, _| {
            let answer = json!({ "updated": { "M1": null }, "destroyed": ["M1"] });
            Some(("Email/set".to_owned(), answer))
        })
        .start();
    for policy in ["trash", "expunge"] {
        assert_left(&delete(&server, policy, &[1]), 1);
    }
}

#[test]
fn methods_that_fail_and_answers_that_make_no_sense() {
    for answer in [
        ("error", json!({ "type": "forbidden" })),
        ("error", json!({ "type": "serverFail" })),
        ("error", json!({})),
        ("Email/set", json!(null)),
        ("Email/set", json!({ "notUpdated": [] })),
        ("Email/set", json!({ "notDestroyed": { "M1": 7 } })),
        ("Email/get", json!({})),
    ] {
        let name = answer.1.to_string();
        let server = with(2)
            .on_method("Email/set", move |_, _| {
                Some((answer.0.to_owned(), answer.1.clone()))
            })
            .start();
        let reply = delete(&server, "expunge", &[1]);
        assert!(
            reply.starts_with("-ERR [SYS/TEMP] 1 messages"),
            "{name}: {reply}"
        );
        assert_eq!(server.ids(INBOX).len(), 2);
    }
}

#[test]
fn large_updates_go_in_batches() {
    for (get, set, size) in [
        (100, 7, 1_000_000),
        (5, 100, 1_000_000),
        (100, 100, 5000),
        (1, 1, 5000),
    ] {
        for policy in ["trash", "expunge"] {
            let server = with(50)
                .account(|it| {
                    it.max_objects_in_get = get;
                    it.max_objects_in_set = set;
                    it.max_size_request = size;
                })
                .start();
            let numbers: Vec<usize> = (1..=49).collect();
            let reply = delete(&server, policy, &numbers);
            assert!(reply.starts_with("+OK"), "{policy} {get} {set}: {reply}");
            assert_eq!(server.ids(INBOX), ["M50"]);
        }
    }
}

#[test]
fn an_answer_that_is_lost() {
    for policy in ["trash", "expunge"] {
        // Done, or not done, when the connection was reset: the truth counts.
        for done in [true, false] {
            let lost = AtomicBool::new(false);
            let server = with(3)
                .on_request(move |request, _| {
                    if !request.has_call("Email/set") || lost.swap(true, Ordering::SeqCst) {
                        Answer::Usual
                    } else if done {
                        Answer::DoThenReset
                    } else {
                        Answer::Reset
                    }
                })
                .start();
            let reply = delete(&server, policy, &[1, 2]);
            assert!(reply.starts_with("+OK"), "{policy} {done}: {reply}");
            assert_eq!(server.ids(INBOX), ["M3"]);
            if policy == "trash" {
                assert_eq!(server.ids(TRASH), ["M1", "M2"]);
            }
        }
    }
}

#[test]
fn a_server_that_is_lost() {
    // It takes no update at all.
    let server = with(3)
        .on_request(|request, _| {
            if request.has_call("Email/set") {
                Answer::Reset
            } else {
                Answer::Usual
            }
        })
        .start();
    assert_left(&delete(&server, "expunge", &[1, 2]), 2);
    assert_eq!(server.ids(INBOX).len(), 3);
    // It does, and cannot be asked any more.
    let gone = AtomicBool::new(false);
    let server = with(3)
        .on_request(move |request, _| {
            if gone.load(Ordering::SeqCst) {
                Answer::Reset
            } else if request.has_call("Email/set") {
                gone.store(true, Ordering::SeqCst);
                Answer::DoThenReset
            } else {
                Answer::Usual
            }
        })
        .start();
    assert_left(&delete(&server, "expunge", &[1, 2]), 2);
}

#[test]
fn a_batch_that_fails_and_those_before_it() {
    let sets = AtomicUsize::new(0);
    let server = with(9)
        .account(|it| it.max_objects_in_set = 3)
        .on_request(move |request, _| {
            if request.has_call("Email/set") && sets.fetch_add(1, Ordering::SeqCst) > 0 {
                Answer::Send(Reply::status(503).header("Retry-After", "60"))
            } else {
                Answer::Usual
            }
        })
        .start();
    let numbers: Vec<usize> = (1..=9).collect();
    assert_left(&delete(&server, "expunge", &numbers), 6);
    assert_eq!(server.ids(INBOX).len(), 6);
    // Throttled, it is asked for nothing more.
    assert_eq!(server.calls("Email/set").len(), 2);
}

#[test]
fn nothing_goes_on_behind_a_refusal() {
    let server = with(3).failing("Email/set", "serverFail").start();
    let gateway = configured(&server, NO_REST);
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("DELE 1");
    assert_left(&pop3.quit(), 1);
    server.wait_until_closed();
    server.forget();
    // Another session sees what the client was told.
    assert_eq!(alice(&gateway).unique_ids().len(), 3);
    assert!(server.calls("Email/set").is_empty());
}

#[test]
fn an_id_that_was_replaced_is_followed() {
    let server = with(3).start();
    let gateway = front(&server, &["--delete", "expunge"]);
    let mut pop3 = alice(&gateway);
    server.account().change(|emails| {
        emails[0].id = "A-one".to_owned();
        emails[2].id = "A-three".to_owned();
    });
    // The octets are found all the same.
    assert_eq!(pop3.retrieve(1), plain(1)[0]);
    pop3.expect_ok("DELE 1");
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["M2", "A-three"]);
}

#[test]
fn an_id_that_names_another_message_is_left_alone() {
    for policy in ["trash", "expunge"] {
        let server = with(3).start();
        let gateway = front(&server, &["--delete", policy]);
        let mut pop3 = alice(&gateway);
        server.account().change(|emails| {
            emails[0].blob = "Gother".to_owned();
            emails[0].octets = b"a: b\r\n\r\nanother\r\n".to_vec();
        });
        pop3.expect_ok("DELE 1");
        // The message itself is gone.
        assert!(pop3.quit().starts_with("+OK"));
        assert_eq!(server.ids(INBOX), ["M1", "M2", "M3"], "{policy}");
        assert!(server.calls("Email/set").is_empty());
    }
}

#[test]
fn a_new_copy_of_a_message_that_is_gone_is_left_alone() {
    let server = with(3).start();
    let gateway = front(&server, &["--delete", "expunge"]);
    let mut pop3 = alice(&gateway);
    server.account().change(|emails| {
        // Another client removed it, and somebody sent it again.
        emails[0].id = "A-new".to_owned();
        emails[0].received_at = "2026-01-05T00:00:00Z".to_owned();
    });
    pop3.expect_ok("DELE 1");
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["A-new", "M2", "M3"]);
}

#[test]
fn a_kept_copy_is_not_taken_for_one_that_is_gone() {
    let server = with(3)
        .account(|it| {
            it.emails[1].blob = "G1".to_owned();
            it.emails[1].octets = plain(1)[0].clone();
            it.emails[1].received_at = it.emails[0].received_at.clone();
        })
        .start();
    let gateway = front(&server, &["--delete", "expunge"]);
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.unique_ids(), ["G1", "G1.2", "G3"]);
    server.account().change(|emails| {
        emails.remove(0);
    });
    pop3.expect_ok("DELE 1");
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["M2", "M3"]);
}

#[test]
fn what_others_removed_or_moved_counts_as_gone() {
    let server = with(4).start();
    let gateway = front(&server, &["--delete", "expunge"]);
    let mut pop3 = alice(&gateway);
    server.account().change(|emails| {
        emails[1].mailboxes = ["mb-other".to_owned()].into();
        emails.remove(0);
    });
    for number in 1..=3 {
        pop3.expect_ok(&format!("DELE {number}"));
    }
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["M4"]);
    assert_eq!(server.ids("mb-other"), ["M2"]);
}
