//! The store from outside: backups while popgate runs and while it does not, the
//! control socket, and what is left after a crash, damage and a full disk.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod backup;
mod control;
mod crash;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use popgate::maildrop::UniqueId;
use popgate::store::{FolderKey, Frozen, Kept, MessageKey, Store};
use support::Gateway;
use tempfile::TempDir;

/// Nobody logs in here.
const UPSTREAM: &str = "imap+plain://127.0.0.1:1";

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `popgate state` to its end.
fn state<A: AsRef<OsStr>>(arguments: &[A]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_popgate"))
        .arg("state")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    #[track_caller]
    fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    #[track_caller]
    fn failed(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {}", self.stderr);
        }
        let last = self.stderr.lines().last().unwrap();
        assert!(last.starts_with("popgate: "), "{}", self.stderr);
    }
}

fn serve(state: &Path) -> Gateway {
    Gateway::start(&[
        "--pop3",
        "127.0.0.1:0",
        "--upstream",
        UPSTREAM,
        "--state",
        state.to_str().unwrap(),
    ])
}

/// Waits for `task`, on threads of its own.
fn wait<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(task)
}

fn inbox(account: &str) -> FolderKey {
    FolderKey {
        account: account.to_owned(),
        folder: "INBOX".to_owned(),
    }
}

fn message(number: u64) -> MessageKey {
    number.to_be_bytes().into()
}

fn frozen(number: u64) -> Frozen {
    Frozen {
        message: message(number),
        rank: u32::try_from(number).unwrap(),
        unique_id: UniqueId::new(format!("UID{number}-\"1\\2")).unwrap(),
    }
}

/// A store with something in it, and what that is.
fn filled() -> (TempDir, Kept) {
    let state = tempfile::tempdir().unwrap();
    let kept = wait(async {
        let store = Store::open(state.path()).unwrap();
        let key = inbox("älice@example.com");
        store
            .freeze(&key, (0..2000).map(frozen).collect::<Vec<_>>())
            .await
            .unwrap();
        store
            .hide(&key, vec![message(1), Box::from(*b"blob \xff\n")])
            .await
            .unwrap();
        store
            .hide(&inbox("bob"), vec![message(7), Box::from([])])
            .await
            .unwrap();
        store.folder(&key).await.unwrap()
    });
    (state, kept)
}

/// What is kept of alice now; nobody else may have the store.
fn alice(state: &Path) -> Kept {
    wait(async {
        let store = Store::open(state).unwrap();
        store.folder(&inbox("älice@example.com")).await.unwrap()
    })
}

fn durable(state: &Path) -> PathBuf {
    state.join("durable.redb")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
