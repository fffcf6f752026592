//! What a server that fails at the login is to the client.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{
    API, Answer, Builder, CORE, End, Framing, INBOX, MAIL, Reply, SESSION, TRASH,
};
use crate::{IMPATIENT, alice, changed, code, configured, front, instead, login};

const AUTH: &str = "[AUTH";
const TEMPORARY: &str = "[SYS/TEMP";
const PERMANENT: &str = "[SYS/PERM";

fn refused(name: &str, builder: Builder, expected: &str) {
    let server = builder.start();
    let gateway = configured(&server, IMPATIENT);
    let reply = login(&gateway, "alice", "pw-alice");
    assert_eq!(
        code(&reply),
        expected,
        "{name}: {reply}\n{}",
        gateway.logs()
    );
    let logs = gateway.logs();
    assert!(
        !logs.contains("pw-alice") && !logs.contains(&basic()),
        "{logs}"
    );
}

/// How alice's password looks on the wire.
fn basic() -> String {
    STANDARD.encode("alice:pw-alice")
}

#[test]
fn statuses() {
    for path in [SESSION, API] {
        for (status, expected) in [
            (401, AUTH),
            (403, PERMANENT),
            (400, TEMPORARY),
            (405, TEMPORARY),
            (418, TEMPORARY),
            (429, TEMPORARY),
            (500, TEMPORARY),
            (502, TEMPORARY),
            (503, TEMPORARY),
            (599, TEMPORARY),
        ] {
            let builder = ScriptedJmap::builder();
            let builder = builder.on_request(instead(path, move || Reply::status(status)));
            refused(&format!("{path} {status}"), builder, expected);
        }
    }
    for (path, expected) in [(SESSION, PERMANENT), (API, TEMPORARY)] {
        let builder = ScriptedJmap::builder();
        let builder = builder.on_request(instead(path, || Reply::status(404)));
        refused(&format!("{path} 404"), builder, expected);
    }
}

#[test]
fn problems_of_a_request() {
    for (kind, expected) in [
        ("limit", TEMPORARY),
        ("notRequest", TEMPORARY),
        ("unknownCapability", PERMANENT),
        ("\u{1b}[2J\r\n", TEMPORARY),
    ] {
        let problem = move || {
            let mut reply = Reply::json(&json!({
                "type": format!("urn:ietf:params:jmap:error:{kind}"), "limit": "maxCallsInRequest",
            }));
            reply.status = 400;
            reply
        };
        let builder = ScriptedJmap::builder().on_request(instead(API, problem));
        refused(kind, builder, expected);
    }
}

#[test]
fn bodies_that_break_off_or_never_end() {
    for path in [SESSION, API] {
        for place in 0..4 {
            for (end, framing) in [
                (End::Cut as fn(usize) -> End, Framing::Length),
                (End::Cut, Framing::Chunked(10)),
                (End::Cut, Framing::Close),
                (End::Reset, Framing::Length),
                (End::Reset, Framing::Chunked(10)),
            ] {
                let change = move |reply: Reply| {
                    let octets = reply.body.len();
                    let at = [0, 1, octets / 2, octets - 1][place];
                    reply.framed(framing).ending(end(at))
                };
                let builder = ScriptedJmap::builder().on_request(changed(path, change));
                let name = format!("{path} {:?} {framing:?}", end(place));
                refused(&name, builder, TEMPORARY);
            }
        }
        let stuck = |reply: Reply| reply.ending(End::Hang(10));
        let builder = ScriptedJmap::builder().on_request(changed(path, stuck));
        refused("stuck", builder, TEMPORARY);
        for framing in [
            Framing::Close,
            Framing::Chunked(5000),
            Framing::Claimed(u64::MAX),
        ] {
            let endless = move || {
                Reply::of("[".repeat(5000))
                    .framed(framing)
                    .ending(End::Endless)
            };
            let builder = ScriptedJmap::builder().on_request(instead(path, endless));
            refused(&format!("endless {framing:?}"), builder, TEMPORARY);
        }
        let drip = || {
            let drip = End::Drip(1, Duration::from_millis(100));
            Reply::of(" ".repeat(5000)).ending(drip)
        };
        refused(
            "drip",
            ScriptedJmap::builder().on_request(instead(path, drip)),
            TEMPORARY,
        );
    }
    // The body of an error, too.
    let endless = || {
        let mut reply = Reply::of("{\"type\":\"")
            .framed(Framing::Chunked(9))
            .ending(End::Endless);
        reply.status = 400;
        reply
    };
    refused(
        "400",
        ScriptedJmap::builder().on_request(instead(API, endless)),
        TEMPORARY,
    );
}

#[test]
fn an_endless_answer_takes_little_memory() {
    let ids = || {
        let start = "{\"methodResponses\":[[\"Email/query\",{\"ids\":[";
        let body = format!("{start}{}", "\"a\",".repeat(4_000_000));
        Reply::of(body)
            .framed(Framing::Chunked(60_000))
            .ending(End::Endless)
    };
    let server = ScriptedJmap::builder()
        .on_request(instead(API, ids))
        .start();
    let gateway = front(&server, &[]);
    for _ in 0..3 {
        assert_eq!(code(&login(&gateway, "alice", "pw-alice")), TEMPORARY);
    }
    let peak = gateway.peak_rss_kib();
    assert!(peak < 100 * 1024, "{peak} KiB");
}

#[test]
fn bodies_that_are_not_jmap() {
    for path in [SESSION, API] {
        for body in [
            String::new(),
            "null".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            "<html>It works!</html>".to_owned(),
            "[".repeat(5000),
            "{\"a\":".repeat(5000),
            format!("{{\"capabilities\":{}", "[".repeat(5000)),
            format!("{{\"methodResponses\":{}", "[".repeat(5000)),
            format!(
                "{{\"methodResponses\":[[\"Mailbox/query\",{}",
                "[".repeat(5000)
            ),
            "\u{0}\u{ff}".to_owned(),
        ] {
            let name = format!("{path} {}", &body[..body.len().min(50)]);
            let builder = ScriptedJmap::builder();
            let builder = builder.on_request(instead(path, move || Reply::of(body.clone())));
            refused(&name, builder, TEMPORARY);
        }
        let packed = |reply: Reply| reply.header("Content-Encoding", "gzip");
        let builder = ScriptedJmap::builder().on_request(changed(path, packed));
        refused("gzip", builder, TEMPORARY);
    }
}

#[test]
fn session_resources_that_cannot_be_used() {
    let core = format!("/capabilities/{}", CORE.replace('/', "~1"));
    let limit = |name: &str| format!("{core}/{name}");
    for (pointer, value, expected) in [
        ("/capabilities".to_owned(), json!({}), PERMANENT),
        ("/capabilities".to_owned(), json!({ CORE: {} }), PERMANENT),
        ("/capabilities".to_owned(), json!([CORE, MAIL]), TEMPORARY),
        (core.clone(), json!("yes"), TEMPORARY),
        (core.clone(), json!({}), TEMPORARY),
        (limit("maxObjectsInGet"), json!("500"), TEMPORARY),
        (limit("maxObjectsInGet"), json!(-1), TEMPORARY),
        (limit("maxObjectsInGet"), json!(null), TEMPORARY),
        (limit("maxCallsInRequest"), json!(1), PERMANENT),
        (limit("maxCallsInRequest"), json!(0), PERMANENT),
        (limit("maxSizeRequest"), json!(0), PERMANENT),
        ("/accounts".to_owned(), json!({}), PERMANENT),
        ("/accounts".to_owned(), json!([]), TEMPORARY),
        ("/accounts".to_owned(), json!({ "acc": 7 }), TEMPORARY),
        (
            "/accounts/acc/isReadOnly".to_owned(),
            json!("no"),
            TEMPORARY,
        ),
        (
            "/accounts/acc/isReadOnly".to_owned(),
            json!(true),
            PERMANENT,
        ),
        ("/primaryAccounts".to_owned(), json!({ MAIL: 7 }), TEMPORARY),
        ("/apiUrl".to_owned(), json!(null), TEMPORARY),
        ("/apiUrl".to_owned(), json!("http://[::bad"), TEMPORARY),
        ("/downloadUrl".to_owned(), json!("/{blobId"), TEMPORARY),
        ("/downloadUrl".to_owned(), json!("/{+blobId}"), TEMPORARY),
        ("/state".to_owned(), json!(7), TEMPORARY),
        ("/username".to_owned(), json!({}), TEMPORARY),
    ] {
        let name = format!("{pointer} {value}");
        let builder = ScriptedJmap::builder().account(|it| it.patch.push((pointer, value)));
        refused(&name, builder, expected);
    }
}

#[test]
fn methods_that_fail() {
    for (kind, expected) in [
        ("accountNotFound", PERMANENT),
        ("accountNotSupportedByMethod", PERMANENT),
        ("forbidden", PERMANENT),
        ("unknownMethod", PERMANENT),
        ("serverFail", TEMPORARY),
        ("serverUnavailable", TEMPORARY),
        ("invalidArguments", TEMPORARY),
        ("unheardOf", TEMPORARY),
    ] {
        for method in ["Mailbox/query", "Mailbox/get", "Email/query", "Email/get"] {
            let builder = ScriptedJmap::builder().failing(method, kind);
            refused(&format!("{method} {kind}"), builder, expected);
        }
    }
}

#[test]
fn mailboxes_that_cannot_be_used() {
    let without_inbox = ScriptedJmap::builder().account(|it| {
        it.mailboxes.retain(|mailbox| mailbox.id != INBOX);
    });
    refused("no inbox", without_inbox, PERMANENT);
    let rights = |right: &'static str| {
        ScriptedJmap::builder().on_method("Mailbox/get", move |_, _| {
            let mailbox = json!({ "id": INBOX, "role": "inbox", "myRights": { right: false } });
            let answer = json!({ "state": "1", "list": [mailbox], "notFound": [] });
            Some(("Mailbox/get".to_owned(), answer))
        })
    };
    refused("not readable", rights("mayReadItems"), PERMANENT);
    refused("not writable", rights("mayRemoveItems"), PERMANENT);
    for list in [
        json!([{}]),
        json!([{ "id": 1 }]),
        json!({}),
        json!([{ "id": INBOX, "role": 7 }]),
        json!(null),
    ] {
        let builder = ScriptedJmap::builder().on_method("Mailbox/get", {
            let list: Value = list.clone();
            move |_, _| {
                let answer = json!({ "state": "1", "list": list, "notFound": [] });
                Some(("Mailbox/get".to_owned(), answer))
            }
        });
        refused(&list.to_string(), builder, TEMPORARY);
    }
}

#[test]
fn what_the_policy_cannot_do_is_refused_at_the_login() {
    let server = ScriptedJmap::builder()
        .account(|it| it.mailboxes.retain(|mailbox| mailbox.id != TRASH))
        .start();
    for (policy, good) in [("trash", false), ("expunge", true), ("refuse", true)] {
        let gateway = front(&server, &["--delete", policy]);
        let reply = login(&gateway, "alice", "pw-alice");
        if good {
            assert!(reply.starts_with("+OK"), "{policy}: {reply}");
        } else {
            assert_eq!(code(&reply), PERMANENT, "{policy}");
        }
    }
    let server = ScriptedJmap::builder()
        .account(|it| it.read_only = true)
        .start();
    let gateway = front(&server, &["--delete", "refuse"]);
    alice(&gateway);
}

#[test]
fn passwords_and_tokens_as_http_has_them() {
    let server = ScriptedJmap::builder()
        .account(|it| it.username = "alice".to_owned())
        .start();
    let gateway = front(&server, &[]);
    let shown = || {
        let requests = server.requests();
        let shown = requests
            .iter()
            .map(|it| it.header("authorization").unwrap());
        let shown: std::collections::BTreeSet<String> = shown.map(str::to_owned).collect();
        server.forget();
        shown
    };
    alice(&gateway).quit();
    assert!(shown().into_iter().eq([format!("Basic {}", basic())]));

    let xoauth2 =
        |user: &str| STANDARD.encode(format!("user={user}\u{1}auth=Bearer tok-{user}\u{1}\u{1}"));
    let mut pop3 = gateway.pop3();
    pop3.expect_ok(&format!("AUTH XOAUTH2 {}", xoauth2("alice")));
    assert!(shown().into_iter().eq(["Bearer tok-alice".to_owned()]));
    pop3.quit();
    let mut pop3 = gateway.pop3();
    let oauth = STANDARD.encode("n,a=alice,\u{1}auth=Bearer tok-alice\u{1}\u{1}");
    pop3.expect_ok(&format!("AUTH OAUTHBEARER {oauth}"));
    assert!(shown().into_iter().eq(["Bearer tok-alice".to_owned()]));
    pop3.quit();

    // A good token, but not of the user who is named beside it.
    let stolen = STANDARD.encode("user=alice\u{1}auth=Bearer tok-mallory\u{1}\u{1}");
    server.account().username = "mallory".to_owned();
    let mut pop3 = gateway.pop3();
    // The client answers the challenge that tells of the failure.
    assert!(
        pop3.command(&format!("AUTH XOAUTH2 {stolen}"))
            .starts_with("+ ")
    );
    assert_eq!(code(&pop3.command("")), AUTH);

    // JMAP has no login for another user.
    let plain = STANDARD.encode("bob\0alice\0pw-alice");
    let mut pop3 = gateway.pop3();
    server.forget();
    assert_eq!(
        code(&pop3.command(&format!("AUTH PLAIN {plain}"))),
        PERMANENT
    );
    assert!(server.requests().is_empty());
    let logs = gateway.logs();
    assert!(
        !logs.contains("tok-") && !logs.contains("pw-alice"),
        "{logs}"
    );
}

#[test]
fn a_wrong_password() {
    let server = ScriptedJmap::builder().start();
    let gateway = front(&server, &[]);
    assert_eq!(code(&login(&gateway, "alice", "pw-bob")), AUTH);
    // A colon cannot be in a user name (RFC 7617 §2): the server would read
    // another name.
    server.forget();
    assert_eq!(code(&login(&gateway, "alice:pw", "alice")), AUTH);
    assert!(server.requests().is_empty());
}

#[test]
fn the_session_resource_is_asked_for_when_it_changed() {
    let server = ScriptedJmap::builder().start();
    let gateway = front(&server, &[]);
    let asked = || {
        let count = server.count(SESSION);
        server.forget();
        count
    };
    alice(&gateway).quit();
    assert_eq!(asked(), 1);
    alice(&gateway).quit();
    assert_eq!(asked(), 0, "it was known");
    server.account().session_state = "session-2".to_owned();
    alice(&gateway).quit();
    assert_eq!(asked(), 1, "the state of the session changed");
    alice(&gateway).quit();
    assert_eq!(asked(), 0);
    gateway.pop3().login("bob", "pw-bob");
    assert_eq!(asked(), 1, "bob's own");
}

#[test]
fn an_api_that_moved_is_found() {
    let server = ScriptedJmap::builder()
        .on_request(|request, account| {
            if request.path == API && account.session_state == "session-2" {
                Answer::Send(Reply::status(404))
            } else {
                Answer::Usual
            }
        })
        .start();
    let gateway = front(&server, &[]);
    alice(&gateway).quit();
    {
        let mut account = server.account();
        account.session_state = "session-2".to_owned();
        account
            .patch
            .push(("/apiUrl".to_owned(), json!("/jmap/api?moved")));
    }
    server.forget();
    alice(&gateway).quit();
    assert_eq!(server.count(SESSION), 1);
    assert_eq!(server.count("/jmap/api?moved"), 2);
}
