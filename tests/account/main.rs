//! `popgate account` as operators meet it: at a terminal and from programs, while
//! popgate runs and while it does not, against a real authorisation server and a
//! real Dovecot.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod check;
mod keys;
mod managing;
mod provider;
mod sign_in;
mod terminal;
mod unique_ids;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// What became of a run of the program.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    /// It succeeded; what it said.
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// It failed with this code and in these words, and nothing but words.
    fn failed(self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(says), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(!self.err.trim_end().contains(char::is_control));
    }

    /// The objects that it said, one a line.
    fn objects(self) -> Vec<Value> {
        let out = self.ok();
        let lines = out.lines();
        lines.map(|it| serde_json::from_str(it).unwrap()).collect()
    }
}

/// A configuration with a state folder of its own.
struct Site {
    folder: TempDir,
}

impl Site {
    /// With these lines, beside state, listeners, and a key for accounts.
    fn new(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Self { folder };
        site.write_secret("accounts.key", &key());
        site.configure(lines);
        site
    }

    /// Another configuration over the same state.
    fn configure(&self, lines: &str) {
        let text =
            format!("state = \"state\"\npop3 = \"127.0.0.1:0\"\nallow_cleartext = true\n{lines}\n");
        let text = match text.contains("[accounts]") {
            true => text,
            false => format!("{text}[accounts]\nkey_file = \"accounts.key\"\n"),
        };
        fs::write(self.path("popgate.toml"), text).unwrap();
    }

    /// A file that nobody else can read.
    fn write_secret(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("popgate.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POPGATE_") {
                command.env_remove(name);
            }
        }
        command
            .arg("account")
            .args(arguments)
            .env("POPGATE_CONFIG", self.config())
            .stdin(Stdio::null());
        command
    }

    /// `popgate account` with these arguments, and nobody to ask.
    fn run(&self, arguments: &[&str]) -> Run {
        run(self.command(arguments))
    }

    /// The account, as programs see it.
    fn shown(&self, address: &str) -> Value {
        let mut objects = self.run(&["show", address, "--json"]).objects();
        assert_eq!(objects.len(), 1);
        objects.remove(0)
    }

    /// A running popgate over the same state.
    fn serve(&self) -> support::Gateway {
        let config = self.config();
        support::Gateway::start_expecting(1, &["--config", config.to_str().unwrap()])
    }
}

fn run(mut command: Command) -> Run {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(command.spawn().unwrap())
}

fn ended(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A new key, as `popgate account key` makes it.
fn key() -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    command.args(["account", "key"]).env_clear();
    run(command).ok()
}

/// A program that was started with `--json`, to be read line by line.
struct Conversation {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Conversation {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let mut command = site.command(arguments);
        command
            .arg("--json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self {
            child,
            lines: BufReader::new(out).lines(),
        }
    }

    /// The next object that it says.
    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it says no more").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    /// Its end, and what it has not said before.
    fn end(mut self) -> Run {
        drop(self.child.stdin.take());
        let rest: Vec<String> = self.lines.map(Result::unwrap).collect();
        let output = self.child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: rest.join("\n"),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Whether a file below this folder holds the text.
fn anywhere(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => anywhere(&path, text),
            false => fs::read(&path)
                .is_ok_and(|octets| memchr::memmem::find(&octets, text.as_bytes()).is_some()),
        }
    })
}
