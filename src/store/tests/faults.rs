//! Disks that are full, fail, or panic: an error, and then all is well again.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;
use crate::store::part::Opener;

/// A disk that fails after so many changes; with nothing left, each one fails.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    left: Arc<AtomicI64>,
}

pub(super) const WELL: i64 = i64::MAX;
/// Each change panics, as redb may where a file is not what it takes it for.
pub(super) const PANIC: i64 = i64::MIN;

/// A disk that is well.
pub(super) fn left() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(WELL))
}

pub(in crate::store) fn disk(left: &Arc<AtomicI64>) -> Opener {
    let left = Arc::clone(left);
    Arc::new(move |path| {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        let left = Arc::clone(&left);
        Ok(Box::new(Disk { file, left }))
    })
}

impl Disk {
    fn change(&self) -> io::Result<()> {
        assert_ne!(
            self.left.load(Ordering::SeqCst),
            PANIC,
            "as the test wants it"
        );
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        self.file.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_space() {
    let state = folder();
    drop(Store::open(state.path()).unwrap());
    let left = left();
    let store = Store::open_with(state.path(), &disk(&left)).unwrap();
    let key = inbox("alice");
    store.hide(&key, vec![message(0)]).await.unwrap();
    // It fails at each change of a write, one after the other.
    let mut surely: HashSet<MessageKey> = [message(0)].into();
    let mut perhaps = HashSet::new();
    for changes in 0..40 {
        let messages: Vec<_> = (0..50).map(|it| message(changes * 100 + it + 1)).collect();
        left.store(changes.cast_signed(), Ordering::SeqCst);
        match store.hide(&key, messages.clone()).await {
            Ok(()) => surely.extend(messages),
            Err(StoreError::Failed { problem, .. }) => {
                assert!(problem.contains("storage"), "{problem}");
                // It may be in the file though it was not confirmed.
                perhaps.extend(messages);
            }
            Err(error) => panic!("{changes}: {error}"),
        }
        // Full still: what there is can be read.
        left.store(0, Ordering::SeqCst);
        let hidden = store.folder(&key).await.unwrap().hidden;
        assert!(hidden.is_superset(&surely), "{changes}");
        // What may be lost need not be written now.
        let _ = store.learn(&key, vec![octets(1, 1)]).await;
        // Space again.
        left.store(WELL, Ordering::SeqCst);
        let after = message(10_000 + changes);
        store.hide(&key, vec![after.clone()]).await.unwrap();
        surely.insert(after);
        store.learn(&key, vec![octets(1, changes)]).await.unwrap();
        let kept = store.folder(&key).await.unwrap();
        assert!(kept.hidden.is_superset(&surely));
        assert!(
            kept.hidden
                .iter()
                .all(|it| surely.contains(it) || perhaps.contains(it))
        );
        assert_eq!(kept.octets[&message(1)], changes);
    }
    assert!(!perhaps.is_empty());
    drop(store);
    let store = Store::open(state.path()).unwrap();
    let hidden = store.folder(&key).await.unwrap().hidden;
    assert!(hidden.is_superset(&surely));
}

#[tokio::test]
async fn a_panic_ends_one_operation() {
    let state = folder();
    drop(Store::open(state.path()).unwrap());
    let left = left();
    let store = Store::open_with(state.path(), &disk(&left)).unwrap();
    let key = inbox("alice");
    for round in 0..3 {
        store.hide(&key, vec![message(round)]).await.unwrap();
        left.store(PANIC, Ordering::SeqCst);
        let error = store.hide(&key, vec![message(100)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        assert_eq!(
            store.folder(&key).await.unwrap().hidden.len() as u64,
            round + 1
        );
        left.store(WELL, Ordering::SeqCst);
    }
    drop(store);
    let store = Store::open(state.path()).unwrap();
    assert_eq!(store.folder(&key).await.unwrap().hidden.len(), 3);
}

#[tokio::test]
async fn a_snapshot_is_whole_or_none_wherever_the_disk_fails() {
    let state = folder();
    drop(Store::open(state.path()).unwrap());
    let left = left();
    let store = Store::open_with(state.path(), &disk(&left)).unwrap();
    let key = inbox("alice");
    let of = |text: &str| {
        let block = || Block::new(text.repeat(1000).into_bytes());
        Arc::new(Snapshot {
            head: text.as_bytes().to_vec().into(),
            blocks: (0..3).map(|at| (at, block())).collect(),
        })
    };
    let (one, other) = (of("one"), of("other"));
    let (mut written, mut lost) = (0, 0);
    for changes in [PANIC].into_iter().chain(0..40) {
        end_pause(&store);
        store.keep_snapshot(&key, one.clone());
        store.close().await;
        left.store(changes, Ordering::SeqCst);
        store.keep_snapshot(&key, other.clone());
        store.close().await;
        left.store(WELL, Ordering::SeqCst);
        match store.snapshot(&key).await.unwrap() {
            Some(found) if found == other => written += 1,
            Some(found) if found == one => lost += 1,
            found => panic!("{changes}: {found:?}"),
        }
    }
    assert!(written > 0 && lost > 0, "{written} written, {lost} lost");
}

fn end_pause(store: &Store) {
    if let Ok(inner) = &*store.0 {
        inner.cache.end_pause();
    }
}

#[tokio::test]
async fn snapshots_leave_a_full_disk_alone_for_a_while() {
    let state = folder();
    let left = left();
    let store = Store::open_with(state.path(), &disk(&left)).unwrap();
    let snapshot = Arc::new(Snapshot::default());
    let keep = async |account| {
        store.keep_snapshot(&inbox(account), Arc::clone(&snapshot));
        store.close().await;
        left.load(Ordering::SeqCst)
    };
    left.store(0, Ordering::SeqCst);
    let tried = keep("alice").await;
    assert!(tried < 0);
    for account in ["alice", "bob", "carol"] {
        assert_eq!(keep(account).await, tried);
        assert!(store.folder(&inbox(account)).await.is_ok());
    }
    left.store(WELL, Ordering::SeqCst);
    end_pause(&store);
    keep("alice").await;
    assert!(store.snapshot(&inbox("alice")).await.unwrap().is_some());
}
