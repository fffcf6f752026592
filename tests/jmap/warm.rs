//! Maildrops that are opened by what has changed since the last login: whatever
//! a server says, they are what a whole listing shows.

use serde_json::{Value, json};

use crate::policies::policy;
use crate::seam::Seam;
use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{API, Builder, INBOX, TRASH};
use crate::{plain, slices};
use popgate::maildrop::Policy;
use popgate::metrics::Opening;

/// The methods of the requests to the API so far.
fn methods(server: &ScriptedJmap) -> Vec<Vec<String>> {
    let requests = server.requests();
    let to_api = requests.iter().filter(|it| it.path == API);
    let names = |calls: Vec<(String, Value)>| calls.into_iter().map(|(name, _)| name).collect();
    to_api.map(|request| names(request.calls())).collect()
}

/// Whether a whole listing was asked for.
fn was_listed(server: &ScriptedJmap) -> bool {
    let is_listing = |it: &Value| it["limit"] != 1;
    server.calls("Email/query").iter().any(is_listing)
}

/// What a login shows, which is what one without any memory shows.
#[track_caller]
fn assert_same(server: &ScriptedJmap, seam: &Seam, policy: &Policy) -> Vec<String> {
    let shown = seam.open(policy);
    let fresh = Seam::new(&server.url(), None);
    let expected = fresh.open(policy);
    assert_eq!(shown.unique_ids(), expected.unique_ids());
    assert_eq!(shown.sizes(), expected.sizes());
    shown.unique_ids()
}

/// What becomes of an answer.
type Lie = fn(&mut Value);

fn builder() -> Builder {
    ScriptedJmap::builder().messages(&slices(&plain(12)))
}

#[test]
fn what_comes_goes_and_moves() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let policy = policy("trash");
    assert_same(&server, &seam, &policy);
    let changes: [fn(&ScriptedJmap); 7] = [
        |_| {},
        |server| {
            server.account().deliver(b"Subject: new\r\n\r\n");
        },
        |server| {
            server.account().change(|emails| {
                emails.remove(2);
            });
        },
        |server| {
            server.account().change(|emails| {
                emails[4].mailboxes = [TRASH.to_owned()].into();
                emails[5].mailboxes.insert("mb-other".to_owned());
                emails[6].keywords.insert("$seen".to_owned());
            });
        },
        |server| {
            server
                .account()
                .deliver_to("mb-other", b"Subject: elsewhere\r\n\r\n");
        },
        |server| {
            server.account().change(|emails| {
                for email in emails.iter_mut().filter(|it| !it.is_in(INBOX)) {
                    email.mailboxes.insert(INBOX.to_owned());
                }
                emails.remove(0);
            });
        },
        |server| server.account().change(Vec::clear),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        change(&server);
        server.forget();
        seam.open(&policy);
        assert_eq!(server.requests().len(), 1, "change {at}");
        assert_same(&server, &seam, &policy);
    }
    assert_eq!(seam.openings(Opening::Listed), 1);
    assert_eq!(seam.openings(Opening::Refreshed), 14);
}

#[test]
fn many_changes_come_in_several_answers() {
    let server = builder().account(|it| it.most_changes = 5).start();
    let seam = Seam::new(&server.url(), None);
    let policy = policy("trash");
    assert_same(&server, &seam, &policy);
    server.account().change(|emails| {
        emails.drain(..6);
    });
    for number in 0..8 {
        server
            .account()
            .deliver(format!("Subject: {number}\r\n\r\n").as_bytes());
    }
    server.forget();
    seam.open(&policy);
    assert!(!was_listed(&server));
    assert_eq!(server.calls("Email/changes").len(), 3);
    assert_eq!(assert_same(&server, &seam, &policy).len(), 14);
    // Too many of them: the mailbox is listed.
    for number in 0..60 {
        server
            .account()
            .deliver(format!("Subject: {number}\r\n\r\n").as_bytes());
    }
    server.forget();
    seam.open(&policy);
    assert!(was_listed(&server));
    assert!(server.calls("Email/changes").len() < 10);
    assert_eq!(assert_same(&server, &seam, &policy).len(), 74);
}

/// Servers that say this of changes: the listing is what it is all the same.
#[track_caller]
fn is_seen_through(name: &str, builder: Builder) {
    let server = builder.start();
    let seam = Seam::new(&server.url(), None);
    let policy = policy("trash");
    assert_same(&server, &seam, &policy);
    for _ in 0..2 {
        server.account().change(|emails| {
            emails.remove(3);
            emails[4].mailboxes = [TRASH.to_owned()].into();
        });
        server.account().deliver(b"Subject: new\r\n\r\n");
        server.account().deliver(b"Subject: another\r\n\r\n");
        server.account().deliver(b"Subject: a third\r\n\r\n");
        assert_same(&server, &seam, &policy);
        assert!(was_listed(&server), "{name}");
        server.forget();
    }
}

#[test]
fn changes_that_lie() {
    for kind in [
        "cannotCalculateChanges",
        "unknownMethod",
        "serverFail",
        "invalidArguments",
        "tooManyChanges",
    ] {
        is_seen_through(kind, builder().failing("Email/changes", kind));
    }
    let changed =
        |change: Lie| builder().on_answer("Email/changes", move |_, answer| change(answer));
    let lies: [(&str, Lie); 15] = [
        ("nothing new", |it| it["created"] = json!([])),
        ("nothing gone", |it| it["destroyed"] = json!([])),
        ("nothing moved", |it| it["updated"] = json!([])),
        ("one too few", |it| {
            it["created"].as_array_mut().unwrap().pop();
        }),
        ("one that never was", |it| it["created"][0] = json!("X1")),
        ("no ids", |it| it["created"] = json!([""])),
        ("numbers", |it| it["updated"] = json!([7])),
        ("no list", |it| it["destroyed"] = json!({})),
        ("another old state", |it| it["oldState"] = json!("x")),
        ("no old state", |it| it["oldState"] = json!(null)),
        ("no new state", |it| it["newState"] = json!(null)),
        ("no end", |it| it["hasMoreChanges"] = json!(true)),
        ("no end, and none known", |it| {
            it["hasMoreChanges"] = json!(true);
            it["newState"] = it["oldState"].clone();
        }),
        ("no word of more", |it| it["hasMoreChanges"] = json!(null)),
        ("nothing at all", |it| *it = json!({})),
    ];
    for (name, lie) in lies {
        is_seen_through(name, changed(lie));
    }
}

#[test]
fn changed_emails_that_are_none() {
    let lies: [(&str, Lie); 7] = [
        ("not there", |it| it["list"] = json!([])),
        ("another", |it| it["list"][0]["id"] = json!("M77")),
        ("twice", |it| {
            let first = it["list"][0].clone();
            it["list"].as_array_mut().unwrap().push(first);
        }),
        ("nowhere", |it| it["list"][0]["mailboxIds"] = json!(null)),
        ("no blob", |it| it["list"][0]["blobId"] = json!("")),
        ("no size", |it| it["list"][0]["size"] = json!("large")),
        ("not found", |it| {
            it["notFound"] = json!([it["list"][0]["id"]]);
            it["list"].as_array_mut().unwrap().remove(0);
        }),
    ];
    for (name, lie) in lies {
        // Only where Emails are asked for with their mailboxes.
        let lying = builder().on_answer("Email/get", move |arguments, answer| {
            let properties = arguments["properties"].as_array().unwrap();
            let is_warm = properties.iter().any(|it| it == "mailboxIds") && properties.len() > 3;
            if is_warm && answer["list"].as_array().is_some_and(|it| !it.is_empty()) {
                lie(answer);
            }
        });
        is_seen_through(name, lying);
    }
}

#[test]
fn totals_that_differ() {
    // A mailbox that counts otherwise: a query is believed.
    let server = builder()
        .on_answer("Mailbox/get", |_, it| {
            for mailbox in it["list"].as_array_mut().unwrap() {
                mailbox["totalEmails"] = json!(mailbox["totalEmails"].as_u64().unwrap() + 1);
            }
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    let policy = policy("trash");
    seam.open(&policy);
    server.account().deliver(b"Subject: new\r\n\r\n");
    server.forget();
    seam.open(&policy);
    assert!(!was_listed(&server));
    assert_eq!(server.requests().len(), 2);
    assert_same(&server, &seam, &policy);
    // No number, and no query that counts: it is listed.
    for total in [json!(null), json!("many"), json!(-1)] {
        let server = builder()
            .on_answer("Mailbox/get", move |_, it| {
                for mailbox in it["list"].as_array_mut().unwrap() {
                    mailbox["totalEmails"] = total.clone();
                }
            })
            .on_answer("Email/query", |arguments, it| {
                if arguments["limit"] == 1 {
                    it["total"] = json!(null);
                }
            })
            .start();
        let seam = Seam::new(&server.url(), None);
        assert_same(&server, &seam, &policy);
        server.forget();
        assert_same(&server, &seam, &policy);
        assert!(was_listed(&server));
    }
}

#[test]
fn a_state_that_is_told_of_later_is_asked_about_again() {
    // Between the changes and what they are, one more message goes.
    let server = builder()
        .on_method("Email/get", |arguments, account| {
            let properties = arguments["properties"].as_array().unwrap();
            let is_warm = properties.iter().any(|it| it == "mailboxIds");
            if is_warm && account.emails.len() > 12 {
                account.change(|emails| {
                    emails.remove(1);
                });
            }
            None
        })
        .start();
    let seam = Seam::new(&server.url(), None);
    let policy = policy("refuse");
    seam.open(&policy);
    server.account().deliver(b"Subject: new\r\n\r\n");
    server.forget();
    let shown = seam.listed(&policy);
    assert_eq!(shown.len(), server.ids(INBOX).len());
    assert!(!was_listed(&server));
    assert_eq!(server.calls("Email/changes").len(), 2);
    assert_same(&server, &seam, &policy);
}

#[test]
fn another_inbox_or_account_is_listed() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let policy = policy("trash");
    assert_eq!(assert_same(&server, &seam, &policy).len(), 12);
    // The inbox is another mailbox by now.
    {
        let mut account = server.account();
        account.mailboxes[0].role = None;
        account.mailboxes[2].role = Some("inbox".to_owned());
        account.deliver_to("mb-other", b"Subject: other\r\n\r\n");
    }
    assert_eq!(assert_same(&server, &seam, &policy).len(), 1);
}

#[test]
fn what_hides_is_looked_at_where_it_matters() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let (hide, trash) = (policy("hide"), policy("trash"));
    seam.delete(&hide, &[0, 5]).unwrap();
    server.forget();
    assert_eq!(assert_same(&server, &seam, &hide).len(), 10);
    assert_eq!(assert_same(&server, &seam, &trash).len(), 12);
    assert_eq!(assert_same(&server, &seam, &hide).len(), 10);
    // Another client shows one again.
    server.account().change(|emails| emails[5].keywords.clear());
    server.forget();
    seam.open(&hide);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(assert_same(&server, &seam, &hide).len(), 11);
}

#[test]
fn what_another_session_did_meanwhile_is_seen() {
    let server = builder().start();
    let seam = Seam::new(&server.url(), None);
    let expunge = policy("expunge");
    seam.open(&expunge);
    // Its changes were asked for before the other's update.
    let late = seam.login(&expunge);
    seam.delete(&expunge, &[0, 1]).unwrap();
    let shown = late.open();
    assert_eq!(shown.unique_ids()[0], "G3");
    assert_eq!(shown.unique_ids().len(), 10);
    assert_same(&server, &seam, &expunge);
}

#[test]
fn servers_that_take_few_calls() {
    for calls in [2, 3, 4, 5, 7] {
        let server = builder()
            .account(|it| it.max_calls_in_request = calls)
            .start();
        let seam = Seam::new(&server.url(), None);
        let policy = policy("trash");
        assert_same(&server, &seam, &policy);
        server.account().deliver(b"Subject: new\r\n\r\n");
        assert_eq!(assert_same(&server, &seam, &policy).len(), 13, "{calls}");
        assert!(methods(&server).iter().all(|it| it.len() <= calls));
    }
}
