//! What the store keeps; [`damage`] and [`faults`] are about what it survives,
//! [`snapshots`] about what it keeps of folders for a while.

use std::fs;
use std::io;

use tempfile::TempDir;

use super::*;

mod accounts;
mod damage;
pub(in crate::store) mod faults;
mod snapshots;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
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

fn frozen(number: u64, id: &str) -> Frozen {
    Frozen {
        message: message(number),
        rank: u32::try_from(number).unwrap(),
        unique_id: UniqueId::new(id.to_owned()).unwrap(),
    }
}

fn many(count: u64) -> Vec<Frozen> {
    (0..count)
        .map(|number| frozen(number, &format!("UID{number}-1234567890")))
        .collect()
}

fn retrieved(number: u64, time: i64) -> Learned {
    Learned {
        message: message(number),
        octets: None,
        retrieved: Some(time),
    }
}

fn octets(number: u64, octets: u64) -> Learned {
    Learned {
        message: message(number),
        octets: Some(octets),
        retrieved: None,
    }
}

fn id(text: &str) -> UniqueId {
    UniqueId::new(text.to_owned()).unwrap()
}

#[tokio::test]
async fn what_is_kept_is_there_in_the_next_process() {
    let state = folder();
    let (alice, junk) = (
        inbox("alice"),
        FolderKey {
            folder: "Junk".to_owned(),
            ..inbox("alice")
        },
    );
    let store = Store::open(state.path()).unwrap();
    assert_eq!(store.folder(&alice).await.unwrap(), Kept::default());
    let hidden = vec![message(3), Box::from(*b"a blob id"), Box::from([])];
    store.hide(&alice, hidden.clone()).await.unwrap();
    store.hide(&junk, vec![message(4)]).await.unwrap();
    let ids = vec![frozen(1, "one"), frozen(2, "two")];
    assert_eq!(store.freeze(&alice, ids).await.unwrap(), 2);
    store
        .learn(&alice, vec![octets(1, 1000), retrieved(2, -5)])
        .await
        .unwrap();
    let expected = Kept {
        hidden: hidden.into_iter().collect(),
        frozen: [(1, "one"), (2, "two")]
            .map(|(number, text)| (message(u64::from(number)), (number, id(text))))
            .into(),
        octets: [(message(1), 1000)].into(),
        retrieved: [(message(2), -5)].into(),
    };
    assert_eq!(store.folder(&alice).await.unwrap(), expected);

    drop(store);
    let store = Store::open(state.path()).unwrap();
    assert_eq!(store.folder(&alice).await.unwrap(), expected);
    let other = store.folder(&junk).await.unwrap();
    assert_eq!(other.hidden, [message(4)].into());
    assert!(other.frozen.is_empty() && other.octets.is_empty());
}

#[tokio::test]
async fn accounts_and_folders_are_never_mixed_up() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let names = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc", ""),
        ("", "abc"),
        ("a\0", "b"),
    ];
    let keys = names.map(|(account, folder)| FolderKey {
        account: account.to_owned(),
        folder: folder.to_owned(),
    });
    for (number, key) in (0..).zip(&keys) {
        store.hide(key, vec![message(number)]).await.unwrap();
        // What the last folder's range must not swallow.
        store.hide(key, vec![Box::from([0xff; 9])]).await.unwrap();
    }
    for (number, key) in (0..).zip(&keys) {
        let kept = store.folder(key).await.unwrap();
        assert_eq!(kept.hidden, [message(number), Box::from([0xff; 9])].into());
    }
}

#[tokio::test]
async fn what_is_frozen_stays_as_it_is() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let key = inbox("alice");
    assert_eq!(store.freeze(&key, vec![frozen(1, "one")]).await.unwrap(), 1);
    let again = vec![
        frozen(1, "uno"),
        frozen(2, "one"),
        frozen(3, "three"),
        frozen(3, "drei"),
        frozen(4, "three"),
        // Not taken: message 1 did not get it.
        frozen(5, "uno"),
    ];
    assert_eq!(store.freeze(&key, again.clone()).await.unwrap(), 2);
    let kept = store.folder(&key).await.unwrap().frozen;
    let expected = [(1, "one"), (3, "three"), (5, "uno")];
    assert_eq!(
        kept,
        expected
            .map(|(number, text)| (message(u64::from(number)), (number, id(text))))
            .into()
    );
    assert_eq!(store.freeze(&key, again).await.unwrap(), 0);
    // Elsewhere the same id is another.
    assert_eq!(
        store
            .freeze(&inbox("bob"), vec![frozen(9, "one")])
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn the_first_retrieval_stays_and_the_last_size() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let key = inbox("alice");
    store
        .learn(&key, vec![retrieved(1, 100), octets(1, 10)])
        .await
        .unwrap();
    store
        .learn(
            &key,
            vec![retrieved(1, 50), retrieved(1, 200), octets(1, 12)],
        )
        .await
        .unwrap();
    let kept = store.folder(&key).await.unwrap();
    assert_eq!(kept.retrieved, [(message(1), 100)].into());
    assert_eq!(kept.octets, [(message(1), 12)].into());
}

#[tokio::test]
async fn one_process_has_the_store() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let second = Store::open(state.path()).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    // Not even where the marker was deleted.
    fs::remove_file(state.path().join(marker::FILE)).unwrap();
    let second = Store::open(state.path()).unwrap_err();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    let restored = restore(state.path(), &mut io::empty(), true).unwrap_err();
    assert!(
        restored.to_string().contains("another popgate"),
        "{restored}"
    );
    drop(store);
    Store::open(state.path()).unwrap();
}

#[tokio::test]
async fn the_files_are_for_their_owner() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let state = folder();
    if rustix::process::geteuid().is_root() {
        // As with a folder that the service manager made for popgate.
        chown(state.path(), Some(4711), Some(4712)).unwrap();
    }
    let owner = fs::metadata(state.path()).unwrap().uid();
    let _store = Store::open(state.path()).unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(state.path()).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata.uid(), owner);
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["cache.redb", "durable.redb", "store"]);
}

#[tokio::test]
async fn a_broken_store_says_so_each_time() {
    let error = OpenError::Io {
        file: "durable.redb".into(),
        problem: "no".to_owned(),
    };
    let store = Store::broken(error.clone());
    let key = inbox("alice");
    let expected = StoreError::Unusable(error);
    assert_eq!(store.folder(&key).await.unwrap_err(), expected);
    assert_eq!(store.hide(&key, vec![]).await.unwrap_err(), expected);
    assert_eq!(store.freeze(&key, vec![]).await.unwrap_err(), expected);
    assert_eq!(store.learn(&key, vec![]).await.unwrap_err(), expected);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = inbox(&format!("user{number}"));
                for round in 0..10 {
                    store.hide(&key, vec![message(round)]).await.unwrap();
                    store
                        .learn(&key, vec![octets(round, number)])
                        .await
                        .unwrap();
                    let kept = store.folder(&key).await.unwrap();
                    assert_eq!(kept.hidden.len() as u64, round + 1);
                    assert_eq!(kept.octets.len() as u64, round + 1);
                    assert_eq!(kept.octets[&message(round)], number);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_confirmed_in_a_folder_that_was_removed_or_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    std::fs::create_dir(&folder).unwrap();
    let store = Store::open(&folder).unwrap();
    let alice = inbox("alice");
    let hide = || store.hide(&alice, vec![Box::from(*b"message")]);
    std::fs::rename(&folder, parent.path().join("moved")).unwrap();
    let error = hide().await.unwrap_err().to_string();
    assert!(error.contains("state/store failed"), "{error}");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("store"), "another").unwrap();
    let error = hide().await.unwrap_err().to_string();
    assert!(error.contains("replaced"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(parent.path().join("moved"), &folder).unwrap();
    hide().await.unwrap();
}
