//! How sessions end, and what is left of them: clients that vanish, maildrops
//! that are taken over, defects, and SIGTERM. Nobody's end is another's
//! trouble, and a maildrop is free as soon as nobody holds it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod in_process;
mod pages;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use support::messages::plain;
use support::{Answer, Gateway, PATIENCE, Pop3, ScriptedImap};

/// Holds a scripted answer back until the test opens it.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Gate {
    /// Waits, in the server's place. Only the first to come waits.
    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        if !std::mem::replace(&mut state.0, true) {
            changed.notify_all();
            let waited = changed.wait_timeout_while(state, PATIENCE, |state| !state.1);
            assert!(!waited.unwrap().1.timed_out(), "nobody opens the gate");
        }
    }

    /// Waits until somebody stands at the gate.
    fn wait_until_reached(&self) {
        let (state, changed) = &*self.0;
        let waited = changed.wait_timeout_while(state.lock().unwrap(), PATIENCE, |state| !state.0);
        assert!(!waited.unwrap().1.timed_out(), "nobody comes to the gate");
    }

    fn open(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().1 = true;
        changed.notify_all();
    }
}

/// `popgate serve` in front of the server, with these lines in its file.
fn configured(imap: &ScriptedImap, settings: &str) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("popgate.toml");
    let text = format!(
        "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nupstream = \"{}\"\n{settings}\n",
        imap.plain_url()
    );
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    (Gateway::start_expecting(1, &["--config", path]), folder)
}

fn in_front_of(imap: &ScriptedImap) -> Gateway {
    Gateway::with_fresh_connections(&imap.plain_url(), &["--allow-cleartext"])
}

fn is_closed(mut client: Pop3) -> bool {
    !matches!(client.try_line(), Ok(Some(_)))
}

#[test]
fn a_client_that_vanishes_during_the_login_stops_it() {
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n"])
        .on("AUTHENTICATE", |command, _| match command.connection {
            0 => Answer::Hang(Vec::new()),
            _ => Answer::Usual,
        })
        .start();
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3s();
    client.expect_ok("USER alice");
    client.send("PASS pw-alice");
    while imap.commands_starting("AUTHENTICATE").is_empty() {
        std::thread::yield_now();
    }
    drop(client);
    imap.wait_until_closed();
    gateway.wait_for_log("end=disconnected");
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client.quit();
}

#[test]
fn a_client_that_vanishes_during_the_listing_frees_its_maildrop() {
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n"])
        .on("UID FETCH", |command, _| match command.connection {
            0 => Answer::Hang(b"* 1 FETCH (UID 1 RFC822".to_vec()),
            _ => Answer::Usual,
        })
        .start();
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    client.send("PASS pw-alice");
    while imap.commands_starting("UID FETCH").is_empty() {
        std::thread::yield_now();
    }
    let mut other = gateway.pop3();
    other.expect_ok("USER alice");
    assert!(other.expect_err("PASS pw-alice").starts_with("[IN-USE] "));
    drop(client);
    gateway.wait_for_log("end=disconnected");
    other.login("alice", "pw-alice");
    other.quit();
}

#[test]
fn a_client_that_vanishes_removes_nothing_and_frees_its_maildrop() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (way, mut client) in [("TLS", gateway.pop3s()), ("plain", gateway.pop3())] {
        client.login("alice", "pw-alice");
        client.expect_ok("DELE 1");
        // Half a QUIT is none.
        client.send_octets(b"QUIT");
        match way {
            "TLS" => drop(client),
            _ => client.reset(),
        }
        imap.wait_until_closed();
    }
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client.quit();
    let writes = ["UID STORE", "UID MOVE", "UID COPY", "UID EXPUNGE"];
    assert!(
        writes
            .iter()
            .all(|name| imap.commands_starting(name).is_empty())
    );
}

#[test]
fn a_client_that_vanishes_in_a_message_frees_its_maildrop() {
    let large = plain(1, 3_000_000);
    let half = large[..1_000_000].to_vec();
    let announced = large.len();
    let imap = ScriptedImap::builder()
        .messages(&[large])
        .on("UID FETCH 1 ", move |command, _| match command.connection {
            // The second one comes to half of it, and no further.
            1 => {
                let start = format!("* 1 FETCH (UID 1 BODY[] {{{announced}}}\r\n");
                Answer::Hang([start.as_bytes(), &half].concat())
            }
            _ => Answer::Usual,
        })
        .start();
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3s();
    client.login("alice", "pw-alice");
    client.expect_ok("RETR 1");
    client.read_some(10_000);
    drop(client);
    imap.wait_until_closed();
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client.expect_ok("RETR 1");
    client.read_some(10_000);
    client.reset();
    imap.wait_until_closed();
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    assert_eq!(client.retrieve(1).len(), announced);
    client.quit();
}

#[test]
fn an_update_goes_on_without_its_client() {
    let gate = Gate::default();
    let at_gate = gate.clone();
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n", b"\r\nb\r\n"])
        .on("UID MOVE", move |_, _| {
            at_gate.pass();
            Answer::Usual
        })
        .start();
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client.expect_ok("DELE 2");
    client.send("QUIT");
    gate.wait_until_reached();
    client.reset();
    // Held until the update has come to its end.
    let mut other = gateway.pop3();
    other.expect_ok("USER alice");
    assert!(other.expect_err("PASS pw-alice").starts_with("[IN-USE] "));
    gateway.wait_for_log("login refused: the maildrop is locked");
    gate.open();
    let end = gateway.wait_for_log("session ended");
    assert!(end.contains("deleted=1"), "{end}");
    assert_eq!(imap.uids("INBOX"), [1]);
    let audit = gateway.wait_for_log("message removed");
    assert!(audit.contains("unique_id=000000026553f100"), "{audit}");
    assert!(audit.contains("octets=5"), "{audit}");
    other.login("alice", "pw-alice");
    other.quit();
}

#[test]
fn the_maildrop_is_free_when_quit_is_answered() {
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n"])
        // What takes its time upstream is not waited for.
        .on("LOGOUT", |_, _| Answer::Hang(Vec::new()))
        .start();
    let gateway = in_front_of(&imap);
    for _ in 0..20 {
        let mut client = gateway.pop3();
        client.login("alice", "pw-alice");
        assert_eq!(client.expect_ok("QUIT"), "bye");
    }
}

#[test]
fn a_client_that_hangs_up_may_come_back_at_once() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for _ in 0..50 {
        let mut client = gateway.pop3();
        client.login("alice", "pw-alice");
    }
}

#[test]
fn a_new_session_takes_the_maildrop_over_where_that_is_configured() {
    let large = plain(1, 20_000_000);
    let imap = ScriptedImap::builder().messages(&[large]).start();
    let (gateway, _folder) = configured(&imap, "session_takeover = true");
    let mut resting = gateway.pop3();
    resting.login("alice", "pw-alice");
    resting.expect_ok("DELE 1");
    // Who does not know the password takes nothing over.
    let mut guesser = gateway.pop3();
    guesser.expect_ok("USER alice");
    assert!(guesser.expect_err("PASS guess").starts_with("[AUTH] "));
    resting.expect_ok("NOOP");
    let mut reading = gateway.pop3();
    reading.login("Alice", "pw-Alice");
    assert!(is_closed(resting));
    gateway.wait_for_log("end=takeover");
    // Not even a client that takes nothing holds on to it.
    reading.expect_ok("RETR 1");
    let mut last = gateway.pop3();
    last.login("alice", "pw-alice");
    assert!(reading.try_multiline().is_err());
    last.quit();
    assert_eq!(imap.uids("INBOX"), [1]);
}

#[test]
fn sigterm_ends_what_rests_and_lets_the_rest_finish() {
    let (fetching, moving) = (Gate::default(), Gate::default());
    let (fetch_gate, move_gate) = (fetching.clone(), moving.clone());
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n", b"\r\nb\r\n"])
        .on("UID FETCH 1 ", move |_, _| {
            fetch_gate.pass();
            Answer::Usual
        })
        .on("UID MOVE", move |_, _| {
            move_gate.pass();
            Answer::Usual
        })
        .start();
    let mut gateway = in_front_of(&imap);
    let (mut idle, mut silent) = (gateway.pop3s(), gateway.pop3());
    idle.login("idle", "pw-idle");
    idle.expect_ok("DELE 1");
    let mut retrieving = gateway.pop3s();
    retrieving.login("bob", "pw-bob");
    retrieving.send("RETR 1");
    fetching.wait_until_reached();
    gateway.terminate();
    gateway.wait_for_log("stopping");
    // The orderly end, and nothing before it.
    assert!(matches!(idle.try_line(), Ok(None)));
    assert!(matches!(silent.try_line(), Ok(None)));
    assert!(TcpStream::connect(gateway.address("pop3")).is_err());
    gateway.terminate();
    fetching.open();
    assert!(retrieving.reply().starts_with("+OK"));
    assert_eq!(retrieving.multiline(), b"\r\na\r\n");
    assert!(matches!(retrieving.try_line(), Ok(None)));
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(gateway.logs().matches("session ended").count(), 3);
    assert_eq!(imap.uids("INBOX"), [1, 2]);

    let mut gateway = in_front_of(&imap);
    let mut updating = gateway.pop3s();
    updating.login("carol", "pw-carol");
    updating.expect_ok("DELE 2");
    updating.send("QUIT");
    moving.wait_until_reached();
    gateway.terminate();
    gateway.wait_for_log("stopping");
    gateway.terminate();
    moving.open();
    assert_eq!(updating.reply(), "+OK bye");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(imap.uids("INBOX"), [1]);
}

#[test]
fn sigterm_gives_up_logins() {
    let imap = ScriptedImap::builder()
        .on("AUTHENTICATE", |_, _| Answer::Hang(Vec::new()))
        .start();
    let mut gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    client.send("PASS pw-alice");
    while imap.commands_starting("AUTHENTICATE").is_empty() {
        std::thread::yield_now();
    }
    gateway.terminate();
    assert!(client.reply().starts_with("-ERR [SYS/TEMP] "));
    client.expect_closed();
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(gateway.logs().contains("end=shutdown"));
}

#[test]
fn what_does_not_finish_in_time_is_given_up_and_told_of() {
    let gate = Gate::default();
    let at_gate = gate.clone();
    let imap = ScriptedImap::builder()
        .messages(&[plain(1, 300_000)])
        .on("UID FETCH 1 ", move |_, _| {
            at_gate.pass();
            Answer::Usual
        })
        .start();
    let (mut gateway, _folder) = configured(&imap, "[timeouts]\ndrain = \"1s\"");
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client.send("RETR 1");
    gate.wait_until_reached();
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    let logs = gateway.logs();
    assert!(logs.contains("sessions did not end in time"), "{logs}");
    assert!(logs.contains("end=shutdown"), "{logs}");
    gate.open();
}

#[test]
fn the_login_limit_counts_the_client_s_own_time() {
    let gate = Gate::default();
    let at_gate = gate.clone();
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n"])
        .on("AUTHENTICATE", move |command, _| {
            if command.connection > 0 {
                return Answer::Usual;
            }
            at_gate.pass();
            Answer::send(command.no("[UNAVAILABLE] not now"))
        })
        .start();
    let (gateway, _folder) = configured(&imap, "[timeouts]\nlogin = \"2s\"");
    // One octet at a time does not make it longer.
    let mut slow = TcpStream::connect(gateway.address("pop3")).unwrap();
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    client.send("PASS pw-alice");
    gate.wait_until_reached();
    while !gateway.logs().contains("session ended") {
        std::thread::sleep(Duration::from_millis(50));
        let _ = slow.write_all(b"N");
    }
    let line = gateway.wait_for_log("end=login_timeout");
    assert!(line.contains("user=\"\""), "{line}");
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert_eq!(rest, b"+OK popgate ready\r\n");
    // The other one has waited as long, but for the upstream.
    gate.open();
    assert!(client.reply().starts_with("-ERR [SYS/TEMP] "));
    client.login("alice", "pw-alice");
    client.quit();
}
