//! popgate in front of a JMAP server that breaks every rule: what a POP3 client
//! is told, what becomes of the mail, and what the server gets to see.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "jmap/ahead.rs"]
mod ahead;
#[path = "jmap/enrolment.rs"]
mod enrolment;
#[path = "jmap/folders.rs"]
mod folders;
#[path = "jmap/listing.rs"]
mod listing;
#[path = "jmap/login.rs"]
mod login;
#[path = "jmap/policies.rs"]
mod policies;
#[path = "jmap/rest.rs"]
mod rest;
#[path = "jmap/retrieval.rs"]
mod retrieval;
#[path = "jmap/seam.rs"]
mod seam;
#[path = "jmap/throttling.rs"]
mod throttling;
#[path = "jmap/trust.rs"]
mod trust;
#[path = "jmap/update.rs"]
mod update;
#[path = "jmap/warm.rs"]
mod warm;

use std::io::Write as _;

use support::scripted_jmap::{Account, Answer, Reply, Request};
use support::{Gateway, Pop3, ScriptedJmap, messages};

/// popgate in front of the server, with more arguments.
fn front(server: &ScriptedJmap, more: &[&str]) -> Gateway {
    let url = server.url();
    let mut arguments = vec!["--pop3", "127.0.0.1:0", "--allow-cleartext"];
    arguments.extend(["--upstream", &url]);
    arguments.extend(more);
    Gateway::start(&arguments)
}

/// The same, with lines of a configuration file.
fn configured(server: &ScriptedJmap, lines: &str) -> Gateway {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    front(server, &["--config", file.path().to_str().unwrap()])
}

/// The server does not keep anybody waiting for long.
const IMPATIENT: &str = "upstream_timeouts = { silence = \"1s\", command = \"2s\" }\n";

/// Connections end with their session.
const NO_REST: &str = "upstream_rest = { longest = \"0s\" }\n";

/// Alice's session, which must begin well.
fn alice(gateway: &Gateway) -> Pop3 {
    let mut pop3 = gateway.pop3();
    pop3.login("alice", "pw-alice");
    pop3
}

/// The answer to the PASS of a login.
fn login(gateway: &Gateway, user: &str, password: &str) -> String {
    let mut pop3 = gateway.pop3();
    pop3.expect_ok(&format!("USER {user}"));
    pop3.command(&format!("PASS {password}"))
}

/// The response code of a refusal, or its beginning where it has none.
fn code(reply: &str) -> &str {
    assert!(reply.starts_with("-ERR "), "{reply}");
    match reply.split_once(']') {
        Some((code, _)) => &code["-ERR ".len()..],
        None => reply,
    }
}

/// Sends this instead of each answer from a path that begins so.
fn instead(
    path: &'static str,
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request, &mut Account) -> Answer + Send + Sync + 'static {
    move |request, _| {
        if request.path.starts_with(path) {
            Answer::Send(reply())
        } else {
            Answer::Usual
        }
    }
}

/// Changes each answer from a path that begins so.
fn changed(
    path: &'static str,
    change: impl Fn(Reply) -> Reply + Send + Sync + Copy + 'static,
) -> impl Fn(&Request, &mut Account) -> Answer + Send + Sync + 'static {
    move |request, _| {
        if request.path.starts_with(path) {
            Answer::Change(Box::new(change))
        } else {
            Answer::Usual
        }
    }
}

/// Messages 1 to `count`.
fn plain(count: usize) -> Vec<Vec<u8>> {
    (1..=count)
        .map(|number| messages::plain(number, 500))
        .collect()
}

fn slices(messages: &[Vec<u8>]) -> Vec<&[u8]> {
    messages.iter().map(Vec::as_slice).collect()
}
