//! Credentials go to the configured server, and nowhere else.

use std::net::TcpListener;

use serde_json::json;

use crate::support::scripted_jmap::{API, DOWNLOAD, Reply, SESSION};
use crate::support::{Authority, Gateway, Identity, ScriptedJmap};
use crate::{NO_REST, alice, code, configured, front, instead, login, plain, slices};

const PERMANENT: &str = "[SYS/PERM";

/// A second port, which nobody may connect to.
struct Elsewhere(TcpListener);

impl Elsewhere {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn assert_untouched(&self, name: &str) {
        assert!(self.0.accept().is_err(), "{name}: somebody connected");
    }
}

/// URLs that lead to another origin than 127.0.0.1 and the server's port.
fn elsewhere(port: u16, own: u16) -> Vec<String> {
    vec![
        format!("http://127.0.0.1:{port}/x"),
        format!("//127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{port}/x"),
        format!("\\\\127.0.0.1:{port}/x"),
        format!("http://localhost:{own}/jmap/api"),
        format!("https://127.0.0.1:{own}/jmap/api"),
        format!("http://127.0.0.1:{own}@127.0.0.1:{port}/x"),
        format!("http://alice@127.0.0.1:{own}/jmap/api"),
        format!("http://[::1]:{port}/x"),
        format!("http://127.0.0.2:{own}/x"),
        "file:///etc/passwd".to_owned(),
        "ftp://127.0.0.1/x".to_owned(),
        "data:application/json,{}".to_owned(),
    ]
}

#[test]
fn redirects_of_the_session_resource_stay_within_the_origin() {
    let other = Elsewhere::new();
    for status in [301, 302, 303, 307, 308] {
        let server = ScriptedJmap::builder().start();
        let own = server.address().port();
        drop(server);
        for location in elsewhere(other.port(), own) {
            let to = location.clone();
            let server = ScriptedJmap::builder()
                .on_request(instead(SESSION, move || Reply::redirect(status, &to)))
                .start();
            let gateway = front(&server, &[]);
            let reply = login(&gateway, "alice", "pw-alice");
            assert_eq!(code(&reply), PERMANENT, "{status} {location}: {reply}");
            assert_eq!(server.requests().len(), 1, "{location}");
        }
    }
    other.assert_untouched("redirect");
}

#[test]
fn redirects_within_the_origin_are_followed_a_few_times() {
    let server = ScriptedJmap::builder().start();
    let base = format!("http://{}", server.address());
    let gateway = Gateway::start(&[
        "--pop3",
        "127.0.0.1:0",
        "--allow-cleartext",
        "--upstream",
        &format!("{base}/.well-known/jmap"),
    ]);
    alice(&gateway);
    assert_eq!(server.count("/.well-known/jmap"), 1);
    assert_eq!(server.count(SESSION), 1);
    for (location, expected) in [(SESSION, PERMANENT), ("", PERMANENT)] {
        let server = ScriptedJmap::builder()
            .on_request(instead(SESSION, move || Reply::redirect(302, location)))
            .start();
        let gateway = front(&server, &[]);
        assert_eq!(code(&login(&gateway, "alice", "pw-alice")), expected);
        assert!(server.requests().len() < 10, "a circle");
    }
    let server = ScriptedJmap::builder()
        .on_request(instead(SESSION, || Reply::status(302)))
        .start();
    let gateway = front(&server, &[]);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), "[SYS/TEMP");
}

#[test]
fn urls_of_the_session_resource_stay_within_the_origin() {
    let other = Elsewhere::new();
    let server = ScriptedJmap::builder().start();
    for name in ["apiUrl", "downloadUrl"] {
        for url in elsewhere(other.port(), server.address().port()) {
            // A client of its own each time: what was known is forgotten.
            let gateway = front(&server, &[]);
            server.account().patch = vec![(format!("/{name}"), json!(format!("{url}{{blobId}}")))];
            let reply = login(&gateway, "alice", "pw-alice");
            assert_eq!(code(&reply), PERMANENT, "{name} {url}: {reply}");
        }
    }
    // The host is not to be made of what a message brings.
    let gateway = front(&server, &[]);
    let url = json!("http://127.0.0.{blobId}/");
    server.account().patch = vec![("/downloadUrl".to_owned(), url)];
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), PERMANENT);
    other.assert_untouched("session resource");
}

#[test]
fn the_api_and_downloads_have_no_redirects() {
    let other = Elsewhere::new();
    for (path, location) in [
        (API, format!("http://127.0.0.1:{}/", other.port())),
        (API, API.to_owned()),
        (DOWNLOAD, format!("http://127.0.0.1:{}/", other.port())),
        (DOWNLOAD, "/jmap/elsewhere".to_owned()),
    ] {
        let to = location.clone();
        let server = ScriptedJmap::builder()
            .messages(&slices(&plain(1)))
            .on_request(instead(path, move || Reply::redirect(307, &to)))
            .start();
        let gateway = front(&server, &[]);
        if path == API {
            assert_eq!(code(&login(&gateway, "alice", "pw-alice")), PERMANENT);
        } else {
            let mut pop3 = alice(&gateway);
            assert!(pop3.expect_err("RETR 1").starts_with("[SYS/PERM]"));
        }
        assert_eq!(server.count("/jmap/elsewhere"), 0);
    }
    other.assert_untouched("api");
}

#[test]
fn hosts_that_the_operator_trusts() {
    let authority = Authority::new();
    let files = ScriptedJmap::builder()
        .messages(&slices(&plain(1)))
        .tls(authority.localhost())
        .start();
    let server = ScriptedJmap::with_messages(&slices(&plain(1)));
    let host = format!("localhost:{}", files.address().port());
    let url = format!("https://{host}{DOWNLOAD}{{accountId}}/{{blobId}}/{{name}}");
    server.account().patch = vec![("/downloadUrl".to_owned(), json!(url))];
    let gateway = front(&server, &[]);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), PERMANENT);
    gateway.wait_for_log("trusted_hosts");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        format!(
            "trusted_hosts = [{host:?}]\nca_file = {:?}\n",
            authority.ca_file()
        ),
    )
    .unwrap();
    let gateway = front(&server, &["--config", file.path().to_str().unwrap()]);
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.retrieve(1), plain(1)[0]);
    assert_eq!(server.count(DOWNLOAD), 0);
    assert_eq!(files.count(DOWNLOAD), 1);
}

#[test]
fn a_server_that_cannot_prove_itself_sees_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca_file = authority.ca_file();
    let start = |identity: Identity| {
        let server = ScriptedJmap::builder().tls(identity).start();
        let gateway = Gateway::start(&[
            "--pop3",
            "127.0.0.1:0",
            "--allow-cleartext",
            "--upstream",
            &server.https_url(),
            "--ca-file",
            ca_file.to_str().unwrap(),
        ]);
        (server, gateway)
    };
    for (name, identity) in [
        ("of another host", authority.other_host()),
        ("expired", authority.expired()),
        ("of an unknown authority", stranger.localhost()),
        ("self-signed", Identity::self_signed()),
    ] {
        let (server, gateway) = start(identity);
        let reply = login(&gateway, "alice", "pw-alice");
        assert_eq!(code(&reply), PERMANENT, "{name}: {reply}");
        assert!(server.requests().is_empty(), "{name}");
        assert!(server.connections() > 0, "{name}");
    }
    let (server, gateway) = start(authority.localhost());
    alice(&gateway);
    assert!(!server.requests().is_empty());
    // A server that speaks no TLS at all may be one that is being set up.
    let plain = ScriptedJmap::builder().start();
    let gateway = Gateway::start(&[
        "--pop3",
        "127.0.0.1:0",
        "--allow-cleartext",
        "--upstream",
        &plain.https_url(),
        "--ca-file",
        ca_file.to_str().unwrap(),
    ]);
    assert_eq!(code(&login(&gateway, "alice", "pw-alice")), "[SYS/TEMP");
    assert!(plain.requests().iter().all(|it| it.headers.is_empty()));
}

#[test]
fn connections_are_of_one_session_and_end_with_it() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = configured(&server, NO_REST);
    let mut sessions: Vec<_> = ["alice", "bob", "carol"]
        .into_iter()
        .map(|user| {
            let mut pop3 = gateway.pop3();
            pop3.login(user, &format!("pw-{user}"));
            pop3
        })
        .collect();
    for pop3 in &mut sessions {
        assert_eq!(pop3.retrieve(1), plain(1)[0]);
    }
    let mut shown = std::collections::HashMap::new();
    for request in server.requests() {
        let credentials = request.header("authorization").unwrap().to_owned();
        let first = shown
            .entry(request.connection)
            .or_insert(credentials.clone());
        assert_eq!(*first, credentials, "a connection of two accounts");
    }
    for pop3 in sessions {
        pop3.quit();
    }
    server.wait_until_closed();
}
