//! `popgate uidl`: the unique ids of old POP3 servers, real ones and hostile
//! ones, carried over to mailboxes that are never written to.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod again;
mod files;
mod hostile;
mod migration;
mod old_server;
mod running;
mod terminal;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What became of a run of the program.
struct Run {
    code: i32,
    out: String,
    err: String,
}

/// `popgate uidl` with a state folder of its own.
struct Uidl {
    state: TempDir,
    upstream: String,
    more: Vec<String>,
    password: String,
}

impl Uidl {
    fn new(upstream: &str) -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            upstream: upstream.to_owned(),
            more: Vec::new(),
            password: "pw-alice".to_owned(),
        }
    }

    fn with_ca(mut self, ca_file: &Path) -> Self {
        let ca_file = ca_file.to_str().unwrap();
        self.more = vec!["--ca-file".to_owned(), ca_file.to_owned()];
        self
    }

    /// `popgate uidl import` for alice, from this URL, with these arguments.
    fn import(&self, from: &str, arguments: &[&str]) -> Run {
        let mut all = vec!["import", "--from", from, "--user", "alice"];
        all.extend(arguments);
        self.run(&all, "")
    }

    /// The same, as JSON, which must succeed.
    fn imported(&self, from: &str, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let run = self.import(from, &all);
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        serde_json::from_str(&run.out).unwrap()
    }

    /// The unique ids that alice is served, in their order.
    fn served(&self) -> Vec<String> {
        let run = self.run(&["export", "--user", "alice"], "");
        assert_eq!(run.code, 0, "{}", run.err);
        let lines: Vec<&str> = run.out.lines().collect();
        let rows = &lines[1..lines.len() - 1];
        let id = |line: &&str| line.split(' ').nth(1).unwrap().to_owned();
        rows.iter().map(id).collect()
    }

    fn run(&self, arguments: &[&str], input: &str) -> Run {
        run(self.command(arguments), input)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POPGATE_") {
                command.env_remove(name);
            }
        }
        command
            .arg("uidl")
            .args(arguments)
            .args(["--upstream", &self.upstream])
            .args(&self.more)
            .env("POPGATE_PASSWORD", &self.password)
            .env("NO_COLOR", "1");
        command.arg("--state").arg(self.state.path());
        command
    }
}

fn run(mut command: Command, input: &str) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A message with a header and a body of its own.
fn message(name: &str, body_octets: usize) -> Vec<u8> {
    format!(
        "From: sender@example.org\r\nSubject: {name}\r\nMessage-ID: <{name}@example.org>\r\n\r\n{}\r\n",
        "x".repeat(body_octets)
    )
    .into_bytes()
}
