//! Old servers that lie, break off, or do not end: an error in words, nothing
//! frozen, and never a command that could change the maildrop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use popgate::import::pop3_client::{Config, Security, Session, Timeouts};
use popgate::sasl::Credentials;
use rustls::{ClientConfig, RootCertStore};

use super::old_server::{Manner, OldServer};
use super::support::{Authority, PATIENCE, ScriptedImap};
use super::{Uidl, message};

fn three() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (message("a", 10), "old-a"),
        (message("b", 20), "old-b"),
        (message("c", 30), "old-c"),
    ]
}

fn upstream(messages: &[(Vec<u8>, &str)]) -> ScriptedImap {
    let texts: Vec<&[u8]> = messages.iter().map(|(text, _)| text.as_slice()).collect();
    ScriptedImap::with_messages(&texts)
}

#[test]
fn lies_are_refused_in_words_and_nothing_is_frozen() {
    let new = upstream(&three());
    let uidl = Uidl::new(&new.plain_url());
    let endless = "x".repeat(100_000);
    for (command, answer, says) in [
        ("STAT", "+OK 2 60\r\n", "a message that STAT does not count"),
        (
            "STAT",
            "+OK 4 60\r\n",
            "LIST has 3 messages, and STAT counts 4",
        ),
        ("STAT", "+OK 4000000 60\r\n", "LIST has 3 messages"),
        ("STAT", &endless, "a line does not end"),
        (
            "LIST",
            "+OK\r\n1 1\r\n2 2\r\n2 3\r\n.\r\n",
            "LIST has a message twice",
        ),
        ("UIDL", "-ERR not here\r\n", "UIDL is refused"),
        ("UIDL", "+OK\r\n1 a\r\n2 b\r\n.\r\n", "UIDL has 2 messages"),
        (
            "UIDL",
            &format!("+OK\r\n1 {endless}"),
            "a line does not end",
        ),
        ("TOP", "-ERR unknown command\r\n", "has no TOP"),
        (
            "TOP 2",
            "+OK\r\nx: y\r\n.\r\n+OK\r\n",
            "more than it was asked for",
        ),
        (
            "PASS",
            "-ERR pw-alice is wrong\r\n",
            "it may quote the password",
        ),
        ("USER", "* BYE\r\n", "neither +OK nor -ERR"),
    ] {
        let manner = Manner {
            answers: vec![(command, answer.to_owned())],
            ..Manner::default()
        };
        let old = OldServer::start(&three(), manner);
        let run = uidl.import(&old.url(), &[]);
        assert_eq!(run.code, 1, "{command}: {}", run.out);
        assert!(run.out.contains("FAILED: old server: "), "{}", run.out);
        assert!(run.out.contains(says), "{command}: {}", run.out);
        assert!(!format!("{}{}", run.out, run.err).contains("pw-alice"));
        old.told();
    }
    let fresh = uidl.served();
    assert!(fresh.iter().all(|id| !id.starts_with("old-")), "{fresh:?}");
}

#[test]
fn unique_ids_that_are_none_are_reported_and_the_others_imported() {
    let mut messages = three();
    messages[1].1 = "not valid";
    messages[2].1 = "old-a";
    let new = upstream(&messages);
    let old = OldServer::start(&messages, Manner::default());
    let uidl = Uidl::new(&new.plain_url());
    let report = uidl.imported(&old.url(), &[]);
    assert_eq!(report["matched"], 3);
    assert_eq!(report["flawed"].as_array().unwrap().len(), 2);
    assert_eq!(report["flawed"][0]["number"], 2);
    assert_eq!(report["frozen"], 1);
    assert_eq!(uidl.served()[0], "old-a");
    old.told();
}

#[test]
fn cleartext_behind_stls_is_not_believed() {
    let new = upstream(&three());
    let uidl = Uidl::new(&new.plain_url());
    let authority = Authority::new();
    let ca_file = authority.ca_file();
    let ca_file = ["--from-ca-file", ca_file.to_str().unwrap()];
    for (answer, says) in [
        ("+OK go on\r\n+OK\r\n", "more than it was asked for"),
        (
            "-ERR not today\r\n",
            "STLS was refused (the server says: not today)",
        ),
        // No TLS comes, although it was promised.
        ("+OK go on\r\n", "TLS"),
    ] {
        let mut answers = vec![("STLS", answer.to_owned())];
        // The handshake's first octets are no line; what answers them is no TLS.
        answers.push(("\u{16}", "-ERR\r\n".to_owned()));
        let manner = Manner {
            answers,
            ..Manner::default()
        };
        let old = OldServer::start(&three(), manner);
        let run = uidl.import(&old.stls_url(), &ca_file);
        assert_eq!(run.code, 1, "{}", run.out);
        assert!(run.out.contains(says), "{}", run.out);
        let told = old.told();
        assert!(!told.iter().any(|line| line.contains("PASS")), "{told:?}");
    }
}

#[test]
fn killed_in_the_middle_it_has_frozen_nothing_and_can_be_run_again() {
    let new = upstream(&three());
    let uidl = Uidl::new(&new.plain_url());
    let manner = Manner {
        // It does not answer, and stays.
        answers: vec![("TOP 3", String::new())],
        ..Manner::default()
    };
    let old = OldServer::start(&three(), manner);
    let from = old.url();
    let mut child = uidl
        .command(&["import", "--from", &from, "--user", "alice"])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !old.told().iter().any(|line| line == "TOP 3 0") {
        assert!(Instant::now() < deadline, "{:?}", old.told());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(uidl.served().iter().all(|id| !id.starts_with("old-")));
    let well = OldServer::start(&three(), Manner::default());
    assert_eq!(uidl.imported(&well.url(), &[])["frozen"], 3);
    assert_eq!(uidl.served(), ["old-a", "old-b", "old-c"]);
}

#[test]
fn broken_off_after_any_octet_it_is_an_error() {
    let messages = &three()[..2];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let uncut = OldServer::start(messages, Manner::default());
    assert_eq!(runtime.block_on(read(uncut.port())), Ok(2));
    let whole = uncut.sent();
    for cut in 1..=whole {
        let manner = Manner {
            cut: Some(cut),
            ..Manner::default()
        };
        let old = OldServer::start(messages, manner);
        let read = runtime.block_on(read(old.port()));
        assert_eq!(read.is_ok(), cut >= whole, "{cut} of {whole}: {read:?}");
        old.told();
    }
}

/// Reads everything, headers included. How many there were.
async fn read(port: u16) -> Result<usize, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let config = Config {
        name: "old".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        security: Security::Cleartext,
        tls: Arc::new(tls),
        timeouts: Timeouts::default(),
    };
    let credentials = Credentials::password("alice", "pw-alice").unwrap();
    let read = async {
        let mut session = Session::login(&config, &credentials).await?;
        let listed = session.listing().await?;
        let places: Vec<usize> = (0..listed.len()).collect();
        let headers = session.headers(&places, &|_| {}).await?;
        assert_eq!(headers.len(), listed.len());
        Ok(listed.len())
    };
    read.await
        .map_err(|error: popgate::import::pop3_client::Pop3Error| error.to_string())
}
