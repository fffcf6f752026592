//! Snapshots of folders: whole, or none.

use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::*;
use crate::store::snapshots as records;

const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshots");
const BLOCKS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("snapshot_blocks");

/// A snapshot with these blocks.
fn snapshot(head: &str, blocks: &[(u32, &str)]) -> Arc<Snapshot> {
    let block = |octets: &str| Block::new(octets.as_bytes().to_vec());
    Arc::new(Snapshot {
        head: head.as_bytes().to_vec().into(),
        blocks: blocks.iter().map(|(at, it)| (*at, block(it))).collect(),
    })
}

async fn found(store: &Store, account: &str) -> Option<Snapshot> {
    let found = store.snapshot(&inbox(account)).await.unwrap();
    found.map(|found| (*found).clone())
}

/// Keeps them, each in the place of the one before, and stops the store.
async fn keep(state: &Path, account: &str, snapshots: &[&Arc<Snapshot>]) {
    let store = Store::open(state).unwrap();
    for snapshot in snapshots {
        store.keep_snapshot(&inbox(account), Arc::clone(snapshot));
        store.close().await;
    }
}

/// Changes the cache behind the store's back.
fn alter(state: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(state.join("cache.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

/// The rows of all snapshots, and their blocks.
type Rows = (Vec<(u64, Vec<u8>)>, Vec<((u64, u32), Vec<u8>)>);

fn rows(state: &Path) -> Rows {
    let database = redb::Database::open(state.join("cache.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let mut found = Rows::default();
    for row in transaction.open_table(ROWS).unwrap().iter().unwrap() {
        let (at, octets) = row.unwrap();
        found.0.push((at.value(), octets.value().to_vec()));
    }
    for row in transaction.open_table(BLOCKS).unwrap().iter().unwrap() {
        let (at, octets) = row.unwrap();
        found.1.push((at.value(), octets.value().to_vec()));
    }
    found
}

#[tokio::test]
async fn a_snapshot_is_there_in_the_next_process() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    let first = snapshot("head", &[(0, "zero"), (7, "seven"), (u32::MAX, "")]);
    store.keep_snapshot(&inbox("alice"), Arc::clone(&first));
    assert_eq!(found(&store, "alice").await.as_ref(), Some(&*first));
    assert_eq!(found(&store, "bob").await, None);
    store.close().await;
    drop(store);

    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await.as_ref(), Some(&*first));
    let second = snapshot("other", &[(7, "7"), (8, "eight")]);
    store.keep_snapshot(&inbox("alice"), Arc::clone(&second));
    let empty = snapshot("", &[]);
    store.keep_snapshot(&inbox("bob"), Arc::clone(&empty));
    store.close().await;
    drop(store);

    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await.as_ref(), Some(&*second));
    assert_eq!(found(&store, "bob").await.as_ref(), Some(&*empty));
    drop(store);
    let blocks = rows(state.path()).1;
    assert_eq!(blocks.len(), 2, "what is no more was not left behind");
}

#[tokio::test]
async fn a_cache_from_before_there_were_any_has_none() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let alice = inbox("alice");
    store.learn(&alice, vec![octets(1, 100)]).await.unwrap();
    store.close().await;
    drop(store);
    alter(state.path(), |transaction| {
        let names = transaction.list_tables().unwrap();
        let mut names = names.map(|it| redb::TableHandle::name(&it).to_owned());
        assert!(!names.any(|name| name.starts_with("snapshot")));
    });
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    let first = snapshot("head", &[(0, "zero")]);
    store.keep_snapshot(&alice, Arc::clone(&first));
    store.close().await;
    assert_eq!(found(&store, "alice").await.as_ref(), Some(&*first));
    let kept = store.folder(&alice).await.unwrap();
    assert_eq!(kept.octets.get(&message(1)), Some(&100));
}

#[tokio::test]
async fn only_what_changed_is_written() {
    let state = folder();
    let first = snapshot("1", &[(0, "zero"), (1, "one"), (2, "two")]);
    keep(state.path(), "alice", &[&first]).await;
    alter(state.path(), |transaction| {
        let mut blocks = transaction.open_table(BLOCKS).unwrap();
        for block in 0..3 {
            blocks.insert((0, block), b"altered".as_slice()).unwrap();
        }
    });
    let second = snapshot("2", &[(0, "zero"), (1, "ONE"), (3, "three")]);
    keep(state.path(), "alice", &[&second]).await;
    let expected = [(0, "altered"), (1, "ONE"), (3, "three")]
        .map(|(block, octets)| ((0, block), octets.as_bytes().to_vec()));
    assert_eq!(rows(state.path()).1, expected);

    // Such damage is seen, and mended by what is kept next.
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    store.keep_snapshot(&inbox("alice"), Arc::clone(&second));
    store.close().await;
    assert_eq!(found(&store, "alice").await.as_ref(), Some(&*second));
}

#[tokio::test]
async fn an_octet_that_was_changed_makes_none_of_it() {
    let state = folder();
    let whole = snapshot("head", &[(0, "zero"), (4096, "the other block")]);
    keep(state.path(), "alice", &[&whole]).await;
    let (row, blocks) = {
        let (rows, blocks) = rows(state.path());
        (rows[0].1.clone(), blocks)
    };
    let put_back = |state: &Path| {
        alter(state, |transaction| {
            let mut table = transaction.open_table(ROWS).unwrap();
            table.insert(0, row.as_slice()).unwrap();
            let mut table = transaction.open_table(BLOCKS).unwrap();
            for (at, octets) in &blocks {
                table.insert(at, octets.as_slice()).unwrap();
            }
        });
    };
    let mut broken = Vec::new();
    for (at, octets) in [(None, &row)]
        .into_iter()
        .chain(blocks.iter().map(|(at, octets)| (Some(*at), octets)))
    {
        for place in 0..octets.len() {
            let mut changed = octets.clone();
            changed[place] ^= 1 << (place % 8);
            broken.push((at, changed));
            broken.push((at, octets[..place].to_vec()));
        }
        broken.push((at, [octets, &b"\0"[..]].concat()));
    }
    for (at, octets) in broken {
        alter(state.path(), |transaction| match at {
            None => {
                let mut table = transaction.open_table(ROWS).unwrap();
                table.insert(0, octets.as_slice()).unwrap();
            }
            Some(at) => {
                let mut table = transaction.open_table(BLOCKS).unwrap();
                table.insert(at, octets.as_slice()).unwrap();
            }
        });
        let store = Store::open(state.path()).unwrap();
        assert_eq!(found(&store, "alice").await, None, "{at:?} {octets:?}");
        drop(store);
        put_back(state.path());
    }
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await.as_ref(), Some(&*whole));
}

#[tokio::test]
async fn parts_of_two_snapshots_make_none() {
    let state = folder();
    let older = snapshot("head", &[(0, "older"), (1, "same")]);
    let newer = snapshot("head", &[(0, "newer"), (1, "same")]);
    keep(state.path(), "alice", &[&older]).await;
    let (_, before) = rows(state.path());
    keep(state.path(), "alice", &[&newer]).await;
    alter(state.path(), |transaction| {
        let mut table = transaction.open_table(BLOCKS).unwrap();
        table.insert((0, 0), before[0].1.as_slice()).unwrap();
    });
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    drop(store);

    // A block in another one's place.
    keep(state.path(), "alice", &[&newer]).await;
    alter(state.path(), |transaction| {
        let mut table = transaction.open_table(BLOCKS).unwrap();
        table.insert((0, 0), &b"same"[..]).unwrap();
        table.insert((0, 1), &b"newer"[..]).unwrap();
    });
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
}

#[tokio::test]
async fn the_snapshot_of_another_folder_is_none() {
    let state = folder();
    let alices = snapshot("head", &[(0, "alice's")]);
    let bobs = snapshot("head", &[(0, "bob's")]);
    keep(state.path(), "alice", &[&alices]).await;
    keep(state.path(), "bob", &[&bobs]).await;
    let (rows, blocks) = rows(state.path());
    alter(state.path(), |transaction| {
        let mut table = transaction.open_table(ROWS).unwrap();
        for (at, octets) in &rows {
            table.insert(1 - at, octets.as_slice()).unwrap();
        }
        let mut table = transaction.open_table(BLOCKS).unwrap();
        for ((at, block), octets) in &blocks {
            table.insert((1 - at, *block), octets.as_slice()).unwrap();
        }
    });
    let store = Store::open(state.path()).unwrap();
    assert_eq!(found(&store, "alice").await, None);
    assert_eq!(found(&store, "bob").await, None);
}

#[tokio::test]
async fn a_cache_that_was_damaged_anywhere_has_no_wrong_snapshot() {
    let state = folder();
    let path = state.path().join("cache.redb");
    let long = "octets of a block ".repeat(2000);
    let older = snapshot("1", &[(0, &long), (1, "one")]);
    let newer = snapshot("2", &[(0, &long), (1, "1"), (2, "two")]);
    keep(state.path(), "alice", &[&older, &newer]).await;
    let whole = fs::read(&path).unwrap();
    let (mut good, mut none) = (0, 0);
    for place in (0..512).chain((512..whole.len()).step_by(1021)) {
        let mut broken = whole.clone();
        broken[place] ^= 0x55;
        fs::write(&path, &broken).unwrap();
        let store = Store::open(state.path()).unwrap();
        match found(&store, "alice").await {
            None => none += 1,
            // Either was kept; the upstream tells which it is.
            Some(found) => {
                assert!(found == *older || found == *newer, "octet {place}");
                good += 1;
            }
        }
    }
    assert!(good > 0 && none > 0, "{good} good, {none} none");
}

#[tokio::test]
async fn those_not_used_for_longest_go_first() {
    let backend = redb::backends::InMemoryBackend::new();
    let database = redb::Database::builder()
        .create_with_backend(backend)
        .unwrap();
    let write = |act: &dyn Fn(&redb::WriteTransaction) -> part::Result<()>| {
        let transaction = database.begin_write().unwrap();
        act(&transaction).unwrap();
        transaction.commit().unwrap();
    };
    let there = |account: &str| {
        let transaction = database.begin_read().unwrap();
        match records::snapshot(&transaction, &inbox(account)).unwrap() {
            records::Found::Nothing => false,
            records::Found::Whole(_) => true,
            records::Found::Broken => panic!("{account}'s snapshot is broken"),
        }
    };
    let of = |octets: usize| snapshot("", &[(0, &"x".repeat(octets)), (1, "")]);
    let keep = |account: &str, octets: usize| {
        write(&|transaction| records::keep(transaction, &inbox(account), &of(octets), 10_000));
    };
    for account in ["a", "b", "c"] {
        keep(account, 3000);
    }
    write(&|transaction| records::used(transaction, [&inbox("a"), &inbox("nobody")]));
    keep("d", 3000);
    assert_eq!(["a", "b", "c", "d"].map(there), [true, false, true, true]);
    // One that grows counts once.
    keep("a", 3100);
    assert_eq!(["a", "b", "c", "d"].map(there), [true, false, true, true]);
    keep("a", 6000);
    assert_eq!(["a", "b", "c", "d"].map(there), [true, false, false, true]);
    // One that is larger than all may be is not kept, and nobody's goes for it.
    keep("d", 20_000);
    assert_eq!(["a", "b", "c", "d"].map(there), [true, false, false, false]);
    write(&|transaction| records::forget(transaction, &inbox("a")));
    let transaction = database.begin_read().unwrap();
    let total: TableDefinition<(), u64> = TableDefinition::new("snapshot_total");
    let total = transaction.open_table(total).unwrap();
    assert_eq!(total.get(()).unwrap().unwrap().value(), 0);
    let blocks = transaction.open_table(BLOCKS).unwrap();
    assert!(blocks.first().unwrap().is_none());
}

#[tokio::test]
async fn a_backup_has_none_of_it() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let alice = inbox("alice");
    store.hide(&alice, vec![message(1)]).await.unwrap();
    let before = store.backup().await.unwrap();
    store.keep_snapshot(&alice, snapshot("head", &[(0, "zero")]));
    store.close().await;
    assert_eq!(store.backup().await.unwrap(), before);
}

#[tokio::test]
async fn what_waits_to_be_written_is_bounded() {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let Ok(inner) = &*store.0 else { panic!() };
    let large = "x".repeat(12 << 20);
    let large = snapshot("", &[(0, &large)]);
    let sent = ["a", "b", "c"].map(|account| inner.cache.keep(&inbox(account), large.clone()));
    assert_eq!(sent, [true, false, false]);
    let waiting = |account: &str| inner.cache.waiting(&inbox(account)).is_some();
    assert_eq!(["a", "b", "c"].map(waiting), [true, true, false]);
    // In the place of one that waits.
    let small = snapshot("small", &[]);
    assert!(!inner.cache.keep(&inbox("b"), small.clone()));
    assert!(!inner.cache.keep(&inbox("c"), small.clone()));
    store.close().await;
    assert_eq!(found(&store, "a").await.as_ref(), Some(&*large));
    assert_eq!(found(&store, "c").await.as_ref(), Some(&*small));
    assert!(inner.cache.keep(&inbox("c"), small), "nobody is on the way");
}
