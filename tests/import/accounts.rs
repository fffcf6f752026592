//! Many accounts from a CSV; what is wrong with arguments.

use std::fs;
use std::process::Command;

use super::old_server::{Manner, OldServer};
use super::support::ScriptedImap;
use super::{Uidl, message, run};

#[test]
fn one_after_the_other_and_a_failure_stops_no_other() {
    let messages = [(message("a", 10), "old-a"), (message("b", 20), "old-b")];
    let texts: Vec<&[u8]> = messages.iter().map(|(text, _)| text.as_slice()).collect();
    let new = ScriptedImap::with_messages(&texts);
    let old = OldServer::start(&messages, Manner::default());
    let uidl = Uidl::new(&new.plain_url());
    let csv = uidl.state.path().join("accounts.csv");
    fs::write(
        &csv,
        "user,password,from_user,from_password\n\
         alice,pw-alice,al,pw-al\n\
         bob,pw-other,,pw-bob\n\
         carol,pw-carol,,pw-other\n\
         dave,pw-dave,,\n",
    )
    .unwrap();
    let all = [
        "import",
        "--from",
        &old.url(),
        "--accounts",
        csv.to_str().unwrap(),
    ];
    let first = uidl.run(&all, "");
    assert_eq!(first.code, 1, "{}", first.err);
    let lines: Vec<&str> = first.out.lines().collect();
    assert!(
        lines[0].starts_with("alice: 2 old, 2 now, 2 matched")
            && lines[0].ends_with("2 unique ids frozen"),
        "{}",
        first.out
    );
    assert_eq!(
        &lines[1..],
        [
            "bob: FAILED: upstream: the upstream refused the credentials",
            "carol: FAILED: old server: the login was refused (the server says: wrong)",
            "dave: 2 old, 2 now, 2 matched (2 by size, 0 by header); 2 unique ids frozen",
            "2 accounts done, 2 failed",
        ]
    );
    assert!(!first.err.contains("pw-"), "{}", first.err);
    assert!(old.told().contains(&"USER al".to_owned()));

    // Once more does no harm.
    let second = uidl.run(&all, "");
    assert!(
        second.out.contains("2 frozen before; 0 unique ids frozen"),
        "{}",
        second.out
    );
    assert_eq!(uidl.served(), ["old-a", "old-b"]);
}

#[test]
fn a_wrong_csv_is_a_wrong_configuration_and_names_no_password() {
    let uidl = Uidl::new("imap+plain://127.0.0.1:9");
    let csv = uidl.state.path().join("accounts.csv");
    fs::write(&csv, "user,password\nalice,pw-1,pw-2\n").unwrap();
    let arguments = [
        "import",
        "--from",
        "pop3+plain://127.0.0.1:9",
        "--accounts",
        csv.to_str().unwrap(),
    ];
    let run = uidl.run(&arguments, "");
    assert_eq!(run.code, 78);
    assert!(run.err.contains("--accounts: "), "{}", run.err);
    assert!(run.err.contains("line 2: it has 3 columns"), "{}", run.err);
    assert!(!run.err.contains("pw-"), "{}", run.err);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let uidl = Uidl::new("imap+plain://127.0.0.1:9");
    let from = ["--from", "pop3+plain://127.0.0.1:9"];
    for (arguments, says) in [
        (&["--user", "alice"][..], "--from, POPGATE_FROM"),
        (&from[..], "--user"),
        (
            &["--user", "alice", "--from", "pop3://127.0.0.1"],
            "--from: pop3:// does not say how it is protected",
        ),
        (
            &["--user", "alice", "--from", "pop3s://alice:pw-x@127.0.0.1"],
            "--from: a URL must not hold credentials",
        ),
        (
            &["--user", "a\tb", "--from", "pop3+plain://127.0.0.1:9"],
            "--user: malformed",
        ),
        (
            &["--user", "a", "--from-file", "x", "--accounts", "y"],
            "--accounts",
        ),
    ] {
        let mut all = vec!["import"];
        all.extend(arguments);
        let run = uidl.run(&all, "");
        assert_eq!(run.code, 78, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(says), "{arguments:?}: {}", run.err);
        assert!(!run.err.contains("pw-x"), "{}", run.err);
    }
}

#[test]
fn without_a_state_folder_there_is_nothing_to_freeze_in() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    command
        .args(["uidl", "import", "--user", "alice"])
        .args(["--from", "pop3+plain://127.0.0.1:9"])
        .args(["--upstream", "imap+plain://127.0.0.1:9"])
        .env_remove("POPGATE_STATE")
        .env("POPGATE_PASSWORD", "pw-alice");
    let run = run(command, "");
    assert_eq!(run.code, 78);
    assert!(run.err.contains("state: no state folder"), "{}", run.err);
}

#[test]
fn passwords_come_from_files_and_the_environment() {
    let messages = [(message("a", 10), "old-a")];
    let new = ScriptedImap::with_messages(&[messages[0].0.as_slice()]);
    let old = OldServer::start(&messages, Manner::default());
    let mut uidl = Uidl::new(&new.plain_url());
    uidl.password = "wrong".to_owned();
    let file = |name: &str, text: &str| {
        let path = uidl.state.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (new_password, old_password) = (file("new", "pw-alice\n"), file("old", "pw-al\r\n"));
    let report = uidl.imported(
        &old.url(),
        &[
            "--password-file",
            &new_password,
            "--from-user",
            "al",
            "--from-password-file",
            &old_password,
        ],
    );
    assert_eq!(report["frozen"], 1);
    assert_eq!(old.told()[1..3], ["USER al", "PASS pw-al"]);
}
