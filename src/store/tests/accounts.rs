//! Accounts: versions that nobody overwrites, and rows that outlive everything.

use std::sync::atomic::Ordering;

use super::faults::{PANIC, WELL, disk, left};
use super::*;

fn value(text: &str) -> Vec<u8> {
    format!("{{\"is\":\"{text}\"}}").into_bytes()
}

async fn found(store: &Store, name: &str) -> Option<(u64, String)> {
    let row = store.account(name).await.unwrap()?;
    let value = String::from_utf8(row.value.to_vec()).unwrap();
    let text = value.strip_prefix("{\"is\":\"").unwrap();
    Some((row.version, text.strip_suffix("\"}").unwrap().to_owned()))
}

async fn put(store: &Store, name: &str, read: u64, text: &str) -> Change {
    store.put_account(name, read, value(text)).await.unwrap()
}

#[tokio::test]
async fn a_change_counts_if_the_row_is_the_one_that_was_read() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    assert_eq!(put(&store, "alice", 1, "?").await, Change::Conflict);
    assert_eq!(put(&store, "alice", 0, "one").await, Change::Done(1));
    assert_eq!(put(&store, "alice", 0, "again").await, Change::Conflict);
    assert_eq!(put(&store, "alice", 1, "two").await, Change::Done(2));
    assert_eq!(put(&store, "alice", 1, "late").await, Change::Conflict);
    assert_eq!(found(&store, "alice").await, Some((2, "two".to_owned())));
    assert_eq!(
        store.remove_account("alice", 1).await.unwrap(),
        Change::Conflict
    );
    assert_eq!(
        store.remove_account("bob", 1).await.unwrap(),
        Change::Conflict
    );
    assert_eq!(put(&store, "bob", 0, "bob").await, Change::Done(1));

    drop(store);
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, Some((2, "two".to_owned())));
    let all = store.accounts().await.unwrap();
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(
        store.remove_account("alice", 2).await.unwrap(),
        Change::Done(2)
    );
    assert_eq!(found(&store, "alice").await, None);
    // Whoever read the one that was removed does not overwrite its successor.
    drop(store);
    let store = Store::open(state.path()).unwrap();
    assert_eq!(put(&store, "alice", 0, "new").await, Change::Done(3));
    assert_eq!(put(&store, "alice", 2, "old").await, Change::Conflict);
    assert_eq!(put(&store, "alice", 1, "old").await, Change::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_have_read_the_same_one_wins() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    for round in 0..5 {
        let tasks: Vec<_> = (0..10)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let change = put(&store, "alice", round, &number.to_string()).await;
                    (number, change)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                (number, Change::Done(version)) => winners.push((version, number.to_string())),
                (_, Change::Conflict) => {}
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(found(&store, "alice").await, winners.pop());
    }
}

#[tokio::test]
async fn what_is_no_row_is_refused() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let large = format!("\"{}\"", "x".repeat(512 << 10)).into_bytes();
    for value in [&b""[..], b"{", b"{}\n", b"{\n}", b"\xff", b"{} {}", &large] {
        let error = store
            .put_account("alice", 0, value.to_vec())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("one line of JSON"), "{error}");
    }
    assert_eq!(found(&store, "alice").await, None);
    for name in ["", &"x".repeat(1025)] {
        assert!(store.put_account(name, 0, value("one")).await.is_err());
    }
    assert_eq!(store.accounts().await.unwrap(), []);
    // The largest comes through a backup.
    let (name, value) = (
        "\u{1}".repeat(1024),
        format!("\"{}\"", "x".repeat((512 << 10) - 2)),
    );
    store
        .put_account(&name, 0, value.into_bytes())
        .await
        .unwrap();
    let (backup, counts) = store.backup().await.unwrap();
    let elsewhere = folder();
    assert_eq!(
        restore(elsewhere.path(), &mut backup.as_slice(), false).unwrap(),
        counts
    );
}

#[tokio::test]
async fn a_store_of_an_earlier_version_has_no_accounts_until_there_is_one() {
    let state = folder();
    let path = state.path();
    let store = Store::open(path).unwrap();
    let alice = inbox("alice");
    store.hide(&alice, vec![message(1)]).await.unwrap();
    store.freeze(&alice, vec![frozen(2, "two")]).await.unwrap();
    let kept = store.folder(&alice).await.unwrap();
    drop(store);
    let tables = || {
        let database = redb::Database::open(path.join("durable.redb")).unwrap();
        let transaction = redb::ReadableDatabase::begin_read(&database).unwrap();
        let names = transaction.list_tables().unwrap();
        let mut names: Vec<_> = names
            .map(|it| redb::TableHandle::name(&it).to_owned())
            .collect();
        names.sort();
        names
    };
    // As it was made before there were accounts.
    assert_eq!(tables(), ["folders", "frozen", "hidden", "meta"]);

    let store = Store::open(path).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    assert_eq!(store.accounts().await.unwrap(), []);
    assert!(store.uses("alice").await.unwrap().is_empty());
    let (backup, counts) = store.backup().await.unwrap();
    assert_eq!((counts.hidden, counts.frozen, counts.accounts), (1, 1, 0));
    let head = backup.split(|it| *it == b'\n').next().unwrap();
    assert_eq!(head, b"{\"popgate_state\":1,\"hidden\":1,\"frozen\":1}");
    assert_eq!(put(&store, "alice", 0, "one").await, Change::Done(1));
    drop(store);
    assert!(tables().contains(&"accounts".to_owned()));
    let store = Store::open(path).unwrap();
    assert_eq!(store.folder(&alice).await.unwrap(), kept);
    assert_eq!(found(&store, "alice").await, Some((1, "one".to_owned())));
}

#[tokio::test]
async fn a_backup_brings_accounts_back() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    store.hide(&inbox("alice"), vec![message(1)]).await.unwrap();
    for name in ["alice@example.org", "b\u{fc}cher", "carol"] {
        put(&store, name, 0, "one").await;
    }
    put(&store, "carol", 1, "\u{1f4f1} \\u00fc \\\"").await;
    let rows = store.accounts().await.unwrap();
    let (backup, counts) = store.backup().await.unwrap();
    assert_eq!((counts.hidden, counts.accounts), (1, 3));
    let text = String::from_utf8(backup.clone()).unwrap();
    assert_eq!(text.lines().count(), 1 + 1 + 3 + 1);
    // As anybody can read it.
    let line = "{\"address\":\"alice@example.org\",\"version\":1,\"value\":{\"is\":\"one\"}}";
    assert!(text.lines().any(|it| it == line), "{text}");

    let elsewhere = folder();
    let restored = restore(elsewhere.path(), &mut backup.as_slice(), false).unwrap();
    assert_eq!(restored, counts);
    let store = Store::open(elsewhere.path()).unwrap();
    assert_eq!(store.accounts().await.unwrap(), rows);
    assert_eq!(put(&store, "carol", 1, "old").await, Change::Conflict);
    assert_eq!(put(&store, "carol", 2, "next").await, Change::Done(3));
    drop(store);

    // A folder with nothing but an account is not empty.
    let one = folder();
    let store = Store::open(one.path()).unwrap();
    put(&store, "alice", 0, "one").await;
    drop(store);
    let refused = restore(one.path(), &mut backup.as_slice(), false).unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    restore(one.path(), &mut backup.as_slice(), true).unwrap();
    assert_eq!(
        Store::open(one.path()).unwrap().accounts().await.unwrap(),
        rows
    );
}

#[tokio::test]
async fn a_backup_with_an_account_that_was_changed_is_refused() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    put(&store, "alice", 0, "one").await;
    put(&store, "bob", 0, "two").await;
    let (backup, _) = store.backup().await.unwrap();
    let text = String::from_utf8(backup).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without: String = lines
        .iter()
        .filter(|it| !it.contains("bob"))
        .map(|it| format!("{it}\n"))
        .collect();
    let broken = [
        text.replace("\"is\":\"one\"", "\"is\":\"six\""),
        text.replace("\"version\":1", "\"version\":0"),
        text.replace("\"address\":\"alice\"", "\"address\":\"\""),
        text.replace("\"alice\"", "\"bob\""),
        text.replace("\"accounts\":2", "\"accounts\":1"),
        text.replace(",\"accounts\":2", ""),
        without,
    ];
    for broken in broken {
        assert_ne!(broken, text);
        let elsewhere = folder();
        let error = restore(elsewhere.path(), &mut broken.as_bytes(), false).unwrap_err();
        assert!(matches!(error, BackupError::Wrong { .. }), "{error}");
    }
}

#[tokio::test]
async fn uses_are_the_last_ones_and_go_with_the_account() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    for name in ["alice", "alic", "alice2"] {
        put(&store, name, 0, "one").await;
    }
    store.note_use("alice", "phone", 100);
    store.note_use("alice", "phone", 90);
    store.note_use("alice", "laptop", 50);
    store.note_use("alice2", "phone", 7);
    let uses = |name: &'static str| {
        let store = store.clone();
        async move {
            let mut uses: Vec<_> = store.uses(name).await.unwrap().into_iter().collect();
            uses.sort();
            uses
        }
    };
    let of = |what: &str, time: i64| (what.to_owned(), time);
    let expected = [of("laptop", 50), of("phone", 100)];
    assert_eq!(uses("alice").await, expected);
    store.close().await;
    assert_eq!(uses("alice").await, expected);
    store.note_use("alice", "phone", 80);
    assert_eq!(uses("alice").await, expected);
    store.note_use("alice", "phone", 120);
    store.close().await;
    let expected = [of("laptop", 50), of("phone", 120)];
    assert_eq!(uses("alice").await, expected);
    assert_eq!(uses("alic").await, []);
    store.note_use("alice", "tablet", 1);
    store.remove_account("alice", 1).await.unwrap();
    assert_eq!(uses("alice").await, []);
    assert_eq!(uses("alice2").await, [of("phone", 7)]);
}

#[tokio::test]
async fn a_full_disk_leaves_the_row_that_was_there() {
    let state = folder();
    drop(Store::open(state.path()).unwrap());
    let left = left();
    let store = Store::open_with(state.path(), &disk(&left)).unwrap();
    put(&store, "alice", 0, "0").await;
    put(&store, "bob", 0, "bob").await;
    let (mut kept, mut lost) = (0, 0);
    for changes in [PANIC].into_iter().chain(0..40) {
        let (read, before) = found(&store, "alice").await.unwrap();
        let new = changes.to_string();
        left.store(changes, Ordering::SeqCst);
        let outcome = store.put_account("alice", read, value(&new)).await;
        // Full still: what there is can be read, and nothing else changes.
        let now = found(&store, "alice").await.unwrap();
        match outcome {
            Ok(change) => {
                assert_eq!(change, Change::Done(read + 1));
                assert_eq!(now, (read + 1, new.clone()));
                kept += 1;
            }
            Err(StoreError::Failed { .. }) => {
                // It may be in the file though it was not confirmed.
                assert!(
                    now == (read, before.clone()) || now == (read + 1, new.clone()),
                    "{now:?}"
                );
                lost += 1;
            }
            Err(error) => panic!("{changes}: {error}"),
        }
        // Space again: the change is made, on what is there.
        left.store(WELL, Ordering::SeqCst);
        let change = store.put_account("alice", now.0, value("after")).await;
        assert_eq!(change.unwrap(), Change::Done(now.0 + 1));
        assert_eq!(found(&store, "bob").await, Some((1, "bob".to_owned())));
        // And what was said is in the file.
        let copy = folder();
        for file in ["durable.redb", "store"] {
            fs::copy(state.path().join(file), copy.path().join(file)).unwrap();
        }
        let other = Store::open(copy.path()).unwrap();
        assert_eq!(
            found(&other, "alice").await,
            Some((now.0 + 1, "after".to_owned()))
        );
    }
    assert!(kept > 0 && lost > 0, "{kept} kept, {lost} lost");
}

#[tokio::test]
async fn a_broken_store_has_no_accounts_to_tell_of() {
    let error = OpenError::Io {
        file: "durable.redb".into(),
        problem: "no".to_owned(),
    };
    let store = Store::broken(error.clone());
    let expected = StoreError::Unusable(error);
    assert_eq!(store.account("alice").await.unwrap_err(), expected);
    assert_eq!(store.accounts().await.unwrap_err(), expected);
    assert_eq!(
        store.put_account("alice", 0, value("?")).await.unwrap_err(),
        expected
    );
    assert_eq!(
        store.remove_account("alice", 1).await.unwrap_err(),
        expected
    );
    assert_eq!(store.uses("alice").await.unwrap_err(), expected);
    store.note_use("alice", "phone", 1);
}

/// Whose accounts they are: the versions before and after each change.
#[derive(Default)]
struct Keeper(std::sync::Mutex<Vec<(Option<u64>, Option<u64>)>>);

impl control::Owner for Keeper {
    fn keys(&self) -> Vec<String> {
        ["one", "other"].map(str::to_owned).to_vec()
    }

    fn changed(&self, name: &str, before: Option<&AccountRow>, after: Option<&AccountRow>) {
        assert_eq!(name, "alice");
        let version = |row: Option<&AccountRow>| row.map(|row| row.version);
        let change = (version(before), version(after));
        self.0.lock().unwrap().push(change);
    }
}

#[tokio::test]
async fn other_processes_reach_accounts_by_the_control_socket() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let control = control::bind(state.path()).unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let keeper = Arc::new(Keeper::default());
    let owner = Arc::clone(&keeper) as Arc<dyn control::Owner>;
    let serving = tokio::spawn(control.serve(store.clone(), owner, shutdown.clone()));
    let access = Access::Remote(state.path().join("control.sock"));
    assert_eq!(access.account("alice").await.unwrap(), None);
    assert_eq!(access.accounts().await.unwrap(), []);
    let put = async |read, text| {
        access
            .put_account("alice", read, value(text))
            .await
            .unwrap()
    };
    assert_eq!(put(0, "one \u{fc}").await, Change::Done(1));
    assert_eq!(put(0, "again").await, Change::Conflict);
    assert_eq!(
        found(&store, "alice").await,
        Some((1, "one \u{fc}".to_owned()))
    );
    assert_eq!(
        access.account("alice").await.unwrap(),
        store.account("alice").await.unwrap()
    );
    assert_eq!(
        access.accounts().await.unwrap(),
        store.accounts().await.unwrap()
    );
    store.note_use("alice", "phone", 5);
    assert_eq!(
        access.uses("alice").await.unwrap(),
        store.uses("alice").await.unwrap()
    );
    let wrong = access
        .put_account("alice", 1, b"no JSON".to_vec())
        .await
        .unwrap_err();
    assert!(wrong.to_string().contains("one line of JSON"), "{wrong}");
    assert_eq!(
        access.remove_account("alice", 2).await.unwrap(),
        Change::Conflict
    );
    assert_eq!(
        access.remove_account("alice", 1).await.unwrap(),
        Change::Done(1)
    );
    assert_eq!(found(&store, "alice").await, None);
    // What was not done is no news.
    let changes = std::mem::take(&mut *keeper.0.lock().unwrap());
    assert_eq!(changes, [(None, Some(1)), (Some(1), None)]);
    let keys = access.keys().await.unwrap().unwrap();
    assert_eq!(keys, ["one", "other"]);
    assert_eq!(Access::Local(store.clone()).keys().await, Ok(None));
    let (_, counts) = access.export().await.unwrap();
    assert_eq!(counts, Counts::default());
    shutdown.cancel();
    serving.await.unwrap();
    assert!(access.account("alice").await.is_err());
}

#[tokio::test]
async fn a_popgate_that_stops_answers_whoever_has_reached_it() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let control = control::bind(state.path()).unwrap();
    // Nobody accepts before the end.
    let path = state.path().join("control.sock");
    let waiting: Vec<_> = (0..5)
        .map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap())
        .collect();
    let shutdown = tokio_util::sync::CancellationToken::new();
    shutdown.cancel();
    let serving = tokio::spawn(control.serve(store, Arc::new(Keeper::default()), shutdown));
    for stream in waiting {
        let rows: Vec<control::Row> = super::super::access::ask(stream, control::Request::Accounts)
            .await
            .unwrap();
        assert!(rows.is_empty());
    }
    serving.await.unwrap();
    // The next one has the store itself.
    let access = Access::Brief(state.path().to_owned());
    assert_eq!(access.accounts().await.unwrap(), []);
}
