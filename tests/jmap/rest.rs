//! Connections that rest between sessions.

use std::collections::{BTreeMap, BTreeSet};

use crate::policies::policy;
use crate::seam::Seam;
use crate::support::ScriptedJmap;
use crate::support::scripted_jmap::{Answer, Reply};
use crate::{NO_REST, alice, code, configured, front, login, plain, slices};

#[test]
fn a_later_login_comes_over_the_connection_of_the_one_before() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let seam = Seam::new(&server.url(), None);
    for _ in 0..5 {
        let mut open = seam.open(&policy("trash"));
        assert_eq!(open.retrieve(0), plain(1)[0]);
        open.reset();
    }
    // A connection that has just given an answer may still be on its way to rest.
    assert!(server.connections() <= 2, "{}", server.connections());
}

#[test]
fn without_rest_each_session_has_its_own() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = configured(&server, NO_REST);
    for _ in 0..3 {
        alice(&gateway).quit();
    }
    assert!(server.connections() >= 3);
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
    let of: BTreeSet<&String> = shown.values().flatten().collect();
    assert_eq!(of.len(), 6);
}

#[test]
fn each_request_is_judged_anew() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(3)))
        .on_request(|_, account| {
            if account.username == "revoked" {
                Answer::Send(Reply::status(401))
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
                // What the session was called when they died.
                let alive = account.username.parse().unwrap_or(0);
                match request.connection < alive {
                    true if hang => Answer::Hang,
                    true => Answer::Reset,
                    false => Answer::Usual,
                }
            })
            .start();
        let gateway = front(&server, &[]);
        alice(&gateway).quit();
        let dead = server.connections();
        server.account().username = dead.to_string();
        let mut pop3 = alice(&gateway);
        assert_eq!(pop3.retrieve(2), plain(2)[1]);
        pop3.quit();
        assert!(server.connections() > dead, "{hang}");
    }
}
