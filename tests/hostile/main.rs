//! The real program in front of IMAP servers that misbehave. Whatever they do,
//! a client gets the right class of answer and never half a message for a whole
//! one, popgate lives on, and the next client is served.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod bodies;
mod every_command;
mod listings;
mod memory;
mod policies;
mod update;

use std::fs;

use support::{Gateway, Pop3, ScriptedImap, messages};
use tempfile::TempDir;

/// popgate with short patience, in front of a scripted server. Each session has a
/// connection of its own, which misbehaves from its start.
struct Front {
    gateway: Gateway,
    _dir: TempDir,
}

impl Front {
    fn new(server: &ScriptedImap, delete: &str) -> Self {
        Self::with(server, delete, "2s", "")
    }

    /// With this patience for silence and for commands, and more settings.
    fn with(server: &ScriptedImap, delete: &str, patience: &str, more: &str) -> Self {
        Self::at(&server.plain_url(), delete, patience, more)
    }

    fn at(upstream: &str, delete: &str, patience: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("popgate.toml");
        let settings = format!(
            "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nupstream = \"{upstream}\"\n\
             delete = \"{delete}\"\n{more}\n[upstream_timeouts]\nconnect = \"{patience}\"\n\
             silence = \"{patience}\"\ncommand = \"{patience}\"\n\
             [upstream_rest]\nlongest = \"0s\"\n"
        );
        fs::write(&file, settings).unwrap();
        let gateway = Gateway::start_expecting(1, &["--config", file.to_str().unwrap()]);
        Self { gateway, _dir: dir }
    }

    fn connect(&self) -> Pop3 {
        self.gateway.pop3()
    }

    fn login(&self) -> Pop3 {
        let mut client = self.connect();
        client.login("alice", "pw-alice");
        client
    }

    /// The answer to PASS, which must be a refusal.
    fn login_refusal(&self) -> String {
        let mut client = self.connect();
        client.expect_ok("USER alice");
        client.expect_err("PASS pw-alice")
    }

    /// Another client, and a session without trouble.
    fn serves_the_next(&mut self, messages: usize) {
        assert!(self.gateway.is_running());
        let mut client = self.login();
        assert_eq!(client.sizes().len(), messages);
        for number in 1..=messages {
            client.retrieve(number);
        }
        assert!(client.quit().starts_with("+OK"));
    }
}

fn builder(count: usize) -> support::scripted_imap::Builder {
    let messages: Vec<Vec<u8>> = (1..=count).map(|n| messages::plain(n, 500)).collect();
    ScriptedImap::builder().messages(&messages)
}

fn is_temporary(text: &str) -> bool {
    text.starts_with("[SYS/TEMP] ")
}

/// What may never be on the wire to the mail server, whatever happens.
fn check_wire(server: &ScriptedImap) {
    for (connection, line) in server.commands() {
        let command = line.to_ascii_uppercase();
        assert!(!command.starts_with("EXPUNGE"), "{connection}: {line}");
        assert!(!command.starts_with("CLOSE"), "{connection}: {line}");
        let peeks = !command.contains("BODY[") && !command.contains("RFC822 ");
        assert!(peeks, "{connection}: {line}");
        assert!(line.len() <= 8000, "{connection}: {} octets", line.len());
    }
}
