//! On a terminal somebody is asked before anything is frozen.

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::old_server::{Manner, OldServer};
use super::support::ScriptedImap;
use super::{Run, Uidl, message};

/// Runs an import whose input and errors are a terminal, on which `answer` is
/// typed.
fn run_on_terminal(uidl: &Uidl, from: &str, more: &[&str], answer: &str) -> Run {
    let mut arguments = vec!["import", "--from", from, "--user", "alice"];
    arguments.extend(more);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let side = ioctl_tiocgptpeer(&terminal, flags).unwrap();
    let mut command = uidl.command(&arguments);
    command
        .stdin(side.try_clone().unwrap())
        .stderr(side)
        .stdout(Stdio::piped());
    // It waits in the terminal until it is read.
    let mut keys = File::from(terminal.try_clone().unwrap());
    keys.write_all(answer.as_bytes()).unwrap();
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::new(),
    }
}

#[test]
fn who_is_asked_can_say_no() {
    let all = [message("a", 10), message("b", 20)];
    let new = ScriptedImap::with_messages(&[all[0].as_slice()]);
    let old: Vec<(Vec<u8>, &str)> = vec![(all[0].clone(), "old-a"), (all[1].clone(), "old-b")];
    let old = OldServer::start(&old, Manner::default());
    for (more, answer, code, frozen) in [
        (&[][..], "n\n", 1, false),
        (&[], "\n", 1, false),
        (&["--dry-run"], "y\n", 0, false),
        (&[], "y\n", 0, true),
    ] {
        let uidl = Uidl::new(&new.plain_url());
        let run = run_on_terminal(&uidl, &old.url(), more, answer);
        assert_eq!(run.code, code, "{answer:?}: {}", run.out);
        assert!(run.out.contains("1: number 2 (old-b)"), "{}", run.out);
        assert_eq!(uidl.served() == ["old-a"], frozen, "{answer:?}");
    }
    // Nobody is asked who said so, or where everything matched.
    let uidl = Uidl::new(&new.plain_url());
    assert_eq!(
        run_on_terminal(&uidl, &old.url(), &["--yes"], "n\n").code,
        0
    );
    assert_eq!(uidl.served(), ["old-a"]);
    let same = OldServer::start(&[(all[0].clone(), "old-a")], Manner::default());
    let uidl = Uidl::new(&new.plain_url());
    assert_eq!(run_on_terminal(&uidl, &same.url(), &[], "n\n").code, 0);
    assert_eq!(uidl.served(), ["old-a"]);
}
