//! The listing: whole and in order, or an error.

use serde_json::{Value, json};

use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{API, Builder, INBOX, SESSION};
use crate::{IMPATIENT, alice, code, configured, front, login, plain, slices};

/// The requests to the API so far, by the methods in each.
fn requests(server: &ScriptedJmap) -> Vec<Vec<String>> {
    let requests = server.requests();
    let to_api = requests.iter().filter(|it| it.path == API);
    to_api
        .map(|request| request.calls().into_iter().map(|(name, _)| name).collect())
        .collect()
}

#[test]
fn a_small_mailbox_takes_one_request() {
    let mail = plain(50);
    let server = ScriptedJmap::with_messages(&slices(&mail));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.sizes(), mail.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(server.count(SESSION), 1);
    assert_eq!(
        requests(&server),
        [
            &[
                "Mailbox/query",
                "Mailbox/get",
                "Mailbox/query",
                "Mailbox/get"
            ][..],
            &["Email/get", "Email/query", "Email/get"],
        ]
    );
}

#[test]
fn the_servers_limits_are_obeyed() {
    let mail = plain(30);
    let expected: Vec<String> = (1..=30).map(|number| format!("G{number}")).collect();
    for (get, query, calls, concurrent, size) in [
        (100, usize::MAX, 16, 4, 1_000_000),
        (30, usize::MAX, 16, 4, 1_000_000),
        (29, usize::MAX, 4, 4, 1_000_000),
        (7, usize::MAX, 3, 1, 1_000_000),
        (7, 10, 2, 0, 5_000),
        (1, 3, 2, 2, 5_000),
        (100, 1, 16, 4, 1_000_000),
        (0, 100, 16, 4, 1_000_000),
    ] {
        let server = ScriptedJmap::builder()
            .messages(&slices(&mail))
            .account(|it| {
                // What says 0 can take one; the server holds popgate to it.
                it.max_objects_in_get = get;
                it.query_limit = query;
                it.max_calls_in_request = calls;
                it.max_concurrent_requests = concurrent;
                it.max_size_request = size;
                if get == 0 {
                    it.patch.push((
                        "/capabilities/urn:ietf:params:jmap:core/maxObjectsInGet".to_owned(),
                        json!(0),
                    ));
                    it.max_objects_in_get = 1;
                }
            })
            .start();
        let gateway = front(&server, &[]);
        let mut pop3 = alice(&gateway);
        assert_eq!(pop3.unique_ids(), expected, "{get} {query} {calls}");
        for arguments in server.calls("Email/get") {
            let ids = arguments["ids"].as_array().map_or(0, Vec::len);
            assert!(ids <= get.max(1), "{ids} ids, where {get} are allowed");
        }
        if query > 30 {
            // Ids are never asked for page by page where the server would not
            // have it so.
            let pages = 30_usize.div_ceil(get.max(1));
            assert_eq!(server.calls("Email/query").len(), 1, "{get}");
            let gets = server.calls("Email/get");
            let for_state = |it: &&Value| it["ids"].as_array().is_some_and(Vec::is_empty);
            let gets = gets.len() - gets.iter().filter(for_state).count();
            assert!(gets == pages, "{gets} for {pages} pages");
        }
    }
}

#[test]
fn equal_times_of_arrival_are_told_apart_by_id() {
    let mail = plain(12);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .account(|it| {
            for email in &mut it.emails {
                email.received_at = "2026-01-02T00:00:00Z".to_owned();
            }
            it.emails[3].received_at = "2026-01-01T23:59:59Z".to_owned();
        })
        .start();
    let gateway = front(&server, &[]);
    let first = alice(&gateway).unique_ids();
    assert_eq!(first[..3], ["G4", "G1", "G10"]);
    server.account().emails.reverse();
    assert_eq!(alice(&gateway).unique_ids(), first);
}

#[test]
fn a_mailbox_that_changes_meanwhile_is_listed_as_it_is_in_the_end() {
    let mail = plain(30);
    // Between two requests, one message comes and one goes.
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .account(|it| it.max_objects_in_get = 10)
        .on_method("Email/get", |_, account| {
            if account.emails[0].id == "M1" {
                account.change(|emails| {
                    emails.remove(0);
                    emails.remove(14);
                });
                account.deliver(b"Subject: new\r\n\r\n");
            }
            None
        })
        .start();
    let gateway = front(&server, &[]);
    let unique_ids = alice(&gateway).unique_ids();
    assert_eq!(unique_ids.len(), 29);
    assert!(!unique_ids.contains(&"G1".to_owned()), "{unique_ids:?}");
    assert_eq!(unique_ids[28], "G31");
}

#[test]
fn a_message_that_goes_between_query_and_get_is_not_missed() {
    let mail = plain(30);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .account(|it| it.max_objects_in_get = 10)
        .on_method("Email/get", |_, account| {
            // Behind every query one more of the last is gone.
            if account.emails.len() > 27 {
                account.change(|emails| {
                    emails.pop();
                });
            }
            None
        })
        .start();
    let gateway = front(&server, &[]);
    let unique_ids = alice(&gateway).unique_ids();
    let expected: Vec<String> = (1..=27).map(|number| format!("G{number}")).collect();
    assert_eq!(unique_ids, expected);
}

#[test]
fn a_mailbox_that_never_holds_still() {
    let mail = plain(30);
    let server = ScriptedJmap::builder()
        .messages(&slices(&mail))
        .account(|it| {
            it.max_objects_in_get = 10;
            it.query_limit = 10;
        })
        .on_method("Email/query", |_, account| {
            account.state += 1;
            None
        })
        .start();
    let gateway = front(&server, &[]);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), "[SYS/TEMP");
    assert!(server.calls("Email/query").len() < 20);
}

fn refused(name: &str, builder: Builder) {
    let server = builder.messages(&slices(&plain(10))).start();
    let gateway = configured(&server, IMPATIENT);
    let reply = login(&gateway, "alice", "pw-alice");
    assert_eq!(code(&reply), "[SYS/TEMP", "{name}: {reply}");
}

#[test]
fn queries_that_lie() {
    let query = |pages: bool, change: fn(&Value, &mut Value)| {
        let builder = ScriptedJmap::builder().account(|it| {
            if pages {
                it.max_objects_in_get = 3;
                it.query_limit = 3;
            }
        });
        builder.on_answer("Email/query", change)
    };
    for pages in [false, true] {
        refused(
            "more than there are",
            query(pages, |_, it| it["total"] = json!(2)),
        );
        refused(
            "fewer than there are",
            query(pages, |_, it| it["total"] = json!(12)),
        );
        refused(
            "each page is the first",
            query(pages, |_, it| {
                it["ids"] = json!(["M1", "M2", "M3"]);
                it["total"] = json!(10);
            }),
        );
        refused(
            "one twice",
            query(pages, |_, it| {
                it["ids"][1] = it["ids"][0].clone();
            }),
        );
        refused("no ids", query(pages, |_, it| it["ids"] = json!(null)));
        refused("numbers", query(pages, |_, it| it["ids"][0] = json!(7)));
        refused("a list", query(pages, |_, it| it["ids"][0] = json!([])));
        refused(
            "an empty one",
            query(pages, |_, it| it["ids"][0] = json!("")),
        );
        refused(
            "one too long",
            query(pages, |_, it| it["ids"][0] = json!("x".repeat(256))),
        );
        refused(
            "a strange one",
            query(pages, |_, it| it["ids"][0] = json!("M99")),
        );
        refused("total", query(pages, |_, it| it["total"] = json!(-1)));
        refused("total", query(pages, |_, it| it["total"] = json!("10")));
    }
    refused(
        "position",
        query(true, |arguments, it| {
            if arguments["position"] != 0 {
                it["position"] = json!(0);
            }
        }),
    );
    // One id at a time, for ever.
    refused(
        "endless",
        query(true, |arguments, it| {
            let position = arguments["position"].as_u64().unwrap();
            it["ids"] = json!([format!("X{position}")]);
            it["total"] = json!(null);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }),
    );
}

#[test]
fn a_server_that_does_not_count() {
    let builder = ScriptedJmap::builder().account(|it| {
        it.max_objects_in_get = 4;
        it.query_limit = 4;
    });
    let server = builder
        .on_answer("Email/query", |_, it| {
            it.as_object_mut().unwrap().remove("total");
            it.as_object_mut().unwrap().remove("position");
        })
        .messages(&slices(&plain(10)))
        .start();
    let gateway = front(&server, &[]);
    assert_eq!(alice(&gateway).unique_ids().len(), 10);
}

#[test]
fn gets_that_lie() {
    let get =
        |change: fn(&Value, &mut Value)| ScriptedJmap::builder().on_answer("Email/get", change);
    refused(
        "one less",
        get(|_, it| {
            it["list"].as_array_mut().unwrap().pop();
        }),
    );
    refused(
        "cut in silence",
        get(|_, it| {
            it["list"].as_array_mut().unwrap().truncate(3);
        }),
    );
    refused(
        "one twice",
        get(|_, it| it["list"][1] = it["list"][0].clone()),
    );
    refused(
        "a stranger",
        get(|_, it| it["list"][1]["id"] = json!("M99")),
    );
    refused(
        "always gone",
        get(|_, it| {
            let gone = it["list"].as_array_mut().unwrap().pop().unwrap();
            it["notFound"] = json!([gone["id"]]);
        }),
    );
    for (property, value) in [
        ("id", json!(7)),
        ("id", json!(null)),
        ("blobId", json!(7)),
        ("blobId", json!(null)),
        ("blobId", json!("")),
        ("blobId", json!({})),
        ("size", json!(-1)),
        ("size", json!(1.5)),
        ("size", json!("10")),
        ("size", json!(null)),
        ("size", json!(1e300)),
        ("receivedAt", json!(7)),
        ("receivedAt", json!(null)),
    ] {
        let name = format!("{property} {value}");
        let builder = ScriptedJmap::builder();
        let builder = builder.on_answer("Email/get", move |_, it| {
            it["list"][2][property] = value.clone();
        });
        refused(&name, builder);
    }
    refused("no list", get(|_, it| it["list"] = json!({})));
    refused("no state", get(|_, it| it["state"] = json!(null)));
}

#[test]
fn an_empty_mailbox() {
    let server = ScriptedJmap::builder().start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    assert!(pop3.expect_ok("STAT").starts_with("0 0"));
    assert!(pop3.unique_ids().is_empty());
}

#[test]
fn mail_elsewhere_is_not_shown() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(3)))
        .account(|it| {
            it.emails[0].mailboxes = ["mb-other".to_owned()].into();
            it.emails[1].mailboxes.insert("mb-other".to_owned());
        })
        .start();
    let gateway = front(&server, &[]);
    assert_eq!(alice(&gateway).unique_ids(), ["G2", "G3"]);
}

#[test]
fn unique_ids_stay_when_ids_are_replaced() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = front(&server, &[]);
    let before = alice(&gateway).unique_ids();
    server.account().change(|emails| {
        // Threads merged: the same message has another id.
        emails[1].id = "A-merged".to_owned();
    });
    assert_eq!(alice(&gateway).unique_ids(), before);
}

#[test]
fn equal_messages_have_unique_ids_of_their_own() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(4)))
        .account(|it| {
            for at in [0, 2, 3] {
                it.emails[at].blob = "Gsame".to_owned();
                it.emails[at].octets = crate::messages::plain(1, 500);
            }
        })
        .start();
    let gateway = front(&server, &[]);
    let expected = ["Gsame", "G2", "Gsame.2", "Gsame.3"];
    assert_eq!(alice(&gateway).unique_ids(), expected);
    // Deleting one of them leaves the others.
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("DELE 3");
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(server.ids(INBOX), ["M1", "M2", "M4"]);
    assert_eq!(alice(&gateway).unique_ids(), expected[..3]);
}

#[test]
fn long_blob_ids_make_short_unique_ids() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(3)))
        .account(|it| {
            it.emails[0].blob = "x".repeat(255);
            it.emails[1].blob = format!("{}y", "x".repeat(254));
            it.emails[2].blob = "with space/and%2F\u{fc}?#".to_owned();
        })
        .start();
    let gateway = front(&server, &[]);
    let unique_ids = alice(&gateway).unique_ids();
    assert!(unique_ids.iter().all(|id| id.len() <= 70));
    assert_ne!(unique_ids[0], unique_ids[1]);
    assert_eq!(alice(&gateway).unique_ids(), unique_ids);
}
