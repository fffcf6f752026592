//! Connections that rest between sessions.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{API, Answer};
use crate::{NO_REST, alice, code, configured, front, login, plain, slices};

#[test]
fn a_later_login_comes_over_the_connection_of_the_one_before() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = front(&server, &[]);
    for _ in 0..5 {
        let mut pop3 = alice(&gateway);
        assert_eq!(pop3.retrieve(1), plain(1)[0]);
        pop3.quit();
        gateway.wait_for_log("session ended");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn without_rest_each_session_has_its_own() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = configured(&server, NO_REST);
    for _ in 0..3 {
        alice(&gateway).quit();
    }
    assert_eq!(server.connections(), 3);
    server.wait_until_closed();
}

#[test]
fn no_connection_is_of_two_credentials() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = front(&server, &[]);
    for round in 0..3 {
        for user in ["alice", "bob", "carol"] {
            let mut pop3 = gateway.pop3();
            pop3.login(user, &format!("pw-{user}"));
            assert_eq!(pop3.retrieve(1), plain(1)[0], "{round}");
            pop3.quit();
        }
        // A wrong password is judged by the server, over a connection of its own.
        assert_eq!(
            code(&login(&gateway, "alice", &format!("wrong{round}"))),
            "[AUTH"
        );
    }
    let mut shown: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for request in server.requests() {
        let credentials = request.header("authorization").unwrap().to_owned();
        shown
            .entry(request.connection)
            .or_default()
            .insert(credentials);
    }
    assert!(shown.values().all(|it| it.len() == 1), "{shown:?}");
    // Three users, and each wrong password.
    assert_eq!(shown.len(), 6);
}

#[test]
fn each_request_is_judged_anew() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(3)))
        .on_request(|_, account| {
            if account.username == "revoked" {
                Answer::Send(crate::support::scripted_jmap::Reply::status(401))
            } else {
                Answer::Usual
            }
        })
        .start();
    let gateway = front(&server, &[]);
    alice(&gateway).quit();
    server.account().username = "revoked".to_owned();
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), "[AUTH");
}

#[test]
fn a_connection_that_died_at_rest_is_replaced() {
    for hang in [false, true] {
        let server = ScriptedJmap::builder()
            .messages(&slices(&plain(3)))
            .on_request(move |request, account| {
                let is_old = request.path == API && request.connection == 0;
                match account.username.as_str() {
                    "dead" if is_old && hang => Answer::Hang,
                    "dead" if is_old => Answer::Reset,
                    _ => Answer::Usual,
                }
            })
            .start();
        let gateway = front(&server, &[]);
        alice(&gateway).quit();
        server.account().username = "dead".to_owned();
        let mut pop3 = alice(&gateway);
        assert_eq!(pop3.retrieve(2), plain(2)[1]);
        pop3.quit();
        assert_eq!(server.connections(), 2, "{hang}");
    }
}
