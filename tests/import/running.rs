//! Beside a popgate that runs and has the store.

use std::time::{Duration, Instant};

use super::old_server::{Manner, OldServer};
use super::support::{Gateway, PATIENCE, ScriptedImap};
use super::{Uidl, message};

fn served(gateway: &Gateway) -> Vec<String> {
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    let ids = client.unique_ids();
    client.quit();
    ids
}

#[test]
fn the_next_login_is_served_the_old_unique_ids() {
    let all: Vec<Vec<u8>> = (1..=4).map(|n| message(&format!("m{n}"), n * 9)).collect();
    let texts: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    let new = ScriptedImap::with_messages(&texts);
    let old: Vec<(Vec<u8>, &str)> = vec![
        (all[2].clone(), "old-3"),
        (all[1].clone(), "old-2"),
        (all[0].clone(), "old-1"),
    ];
    let old = OldServer::start(&old, Manner::default());
    let uidl = Uidl::new(&new.plain_url());
    let gateway = Gateway::start(&[
        "--pop3",
        "127.0.0.1:0",
        "--allow-cleartext",
        "--upstream",
        &new.plain_url(),
        "--state",
        uidl.state.path().to_str().unwrap(),
    ]);
    let fresh = served(&gateway);
    assert_eq!(uidl.served(), fresh);
    let report = uidl.imported(&old.url(), &[]);
    assert_eq!(report["frozen"], 3);
    let expected = ["old-3", "old-2", "old-1", &fresh[3]];
    assert_eq!(served(&gateway), expected);
    // Exported is what is served.
    assert_eq!(uidl.served(), expected);
    // Another import from a server that lists one of them anew changes nothing.
    let other = OldServer::start(&[(all[0].clone(), "other")], Manner::default());
    let report = uidl.imported(&other.url(), &[]);
    assert_eq!(report["frozen_otherwise"], 1);
    assert_eq!(served(&gateway), expected);
}

#[test]
fn a_popgate_may_start_while_an_import_reads() {
    let all = [message("m", 9)];
    let new = ScriptedImap::with_messages(&[&all[0]]);
    // It does not answer, and stays.
    let manner = Manner {
        answers: vec![("UIDL", String::new())],
        ..Manner::default()
    };
    let old = OldServer::start(&[(all[0].clone(), "old")], manner);
    let uidl = Uidl::new(&new.plain_url());
    let from = old.url();
    let arguments = ["import", "--from", &from, "--user", "alice"];
    let mut import = uidl.command(&arguments).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !old.told().iter().any(|line| line == "UIDL") {
        assert!(Instant::now() < deadline, "{:?}", old.told());
        std::thread::sleep(Duration::from_millis(5));
    }
    let gateway = Gateway::start(&[
        "--pop3",
        "127.0.0.1:0",
        "--allow-cleartext",
        "--upstream",
        &new.plain_url(),
        "--state",
        uidl.state.path().to_str().unwrap(),
    ]);
    assert_eq!(served(&gateway).len(), 1);
    import.kill().unwrap();
    import.wait().unwrap();
}
