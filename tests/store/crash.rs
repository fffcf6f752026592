//! kill -9 while something is written, and a file that may not grow.

use std::io::{BufRead as _, BufReader};

use popgate::store::Access;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::support::PATIENCE;
use super::*;

#[test]
fn what_was_confirmed_survives_a_kill() {
    const ROUNDS: u64 = 30;
    const MOST: u64 = 400;
    let folder = tempfile::tempdir().unwrap();
    let key = inbox("alice");
    let mut confirmed = 0;
    for round in 0..ROUNDS {
        let mut gateway = serve(folder.path());
        let access = Access::open(folder.path()).unwrap();
        assert!(matches!(access, Access::Remote(_)));
        // The killer comes after a number of writes that differs, in the middle
        // of the next ones.
        let (written, killer) = std::sync::mpsc::channel();
        let killed = std::thread::spawn(move || {
            for _ in 0..round * 3 {
                killer.recv_timeout(PATIENCE).unwrap();
            }
            gateway.kill();
        });
        let mut asked = confirmed;
        wait(async {
            while asked < confirmed + MOST {
                let ids = vec![frozen(asked), frozen(asked + 1)];
                asked += 2;
                match access.freeze(&key, ids).await {
                    Ok(new) => assert_eq!(new, 2),
                    Err(_) => break,
                }
                let _ = written.send(asked);
            }
        });
        drop(written);
        killed.join().unwrap();

        let kept = wait(async {
            let store = Store::open(folder.path()).unwrap();
            store.folder(&key).await.unwrap()
        });
        let found = kept.frozen.len() as u64;
        // All that was confirmed; the last one perhaps, but as a whole.
        assert!(found == asked || found + 2 == asked, "{found} of {asked}");
        for number in 0..found {
            assert_eq!(kept.frozen[&message(number)].1, frozen(number).unique_id);
        }
        confirmed = found;
    }
    assert!(confirmed > ROUNDS);
}

/// A file size that may not be exceeded is a full disk that everybody can have.
#[test]
fn a_full_disk_is_an_error_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new("env")
        // What is ignored stays so, and writing too much is an error.
        .args(["--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_popgate")])
        .args([
            "serve",
            "--pop3",
            "127.0.0.1:0",
            "--upstream",
            UPSTREAM,
            "--state",
        ])
        .arg(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(log.any(|line| line.contains("listening")));
    let log = std::thread::spawn(move || log.collect::<Vec<_>>());
    let child_id = Pid::from_child(&child);
    let most = getrlimit(Resource::Fsize).maximum;
    let limit = |current| {
        let new = Rlimit {
            current,
            maximum: most,
        };
        prlimit(Some(child_id), Resource::Fsize, new).unwrap();
    };
    let access = Access::open(folder.path()).unwrap();
    assert!(matches!(access, Access::Remote(_)));
    let key = inbox("alice");
    let ids = |from: u64, count: u64| (from..from + count).map(frozen).collect::<Vec<_>>();
    wait(async {
        assert_eq!(access.freeze(&key, ids(0, 10)).await.unwrap(), 10);
        let size = fs::metadata(durable(folder.path())).unwrap().len();
        limit(Some(size));
        for _ in 0..3 {
            let error = access.freeze(&key, ids(100, 50_000)).await.unwrap_err();
            assert!(error.to_string().contains("durable.redb"), "{error}");
            assert_eq!(access.folder(&key).await.unwrap().frozen.len(), 10);
        }
        limit(most);
        assert_eq!(access.freeze(&key, ids(100, 50_000)).await.unwrap(), 50_000);
        assert_eq!(access.folder(&key).await.unwrap().frozen.len(), 50_010);
    });
    rustix::process::kill_process(child_id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = log.join().unwrap();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
    let kept = wait(async {
        let store = Store::open(folder.path()).unwrap();
        store.folder(&key).await.unwrap()
    });
    assert_eq!(kept.frozen.len(), 50_010);
}
