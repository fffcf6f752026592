use super::*;

fn key(account: &str) -> FolderKey {
    FolderKey {
        account: account.to_owned(),
        folder: "INBOX".to_owned(),
    }
}

fn snapshot(head: &str, blocks: &[&str]) -> Snapshot {
    let block = |octets: &&str| Block::new(octets.as_bytes().to_vec());
    Snapshot {
        head: head.as_bytes().to_vec().into(),
        blocks: (0..).zip(blocks.iter().map(block)).collect(),
    }
}

/// Whether this very one is in memory.
fn is_last(snapshots: &Snapshots, account: &str, snapshot: &Arc<Snapshot>) -> bool {
    let memory = snapshots.lock();
    let entry = memory.entries.get(&key(account));
    entry.is_some_and(|entry| Arc::ptr_eq(&entry.snapshot, snapshot))
}

fn memory_of(snapshots: &Snapshots) -> (u64, usize, usize) {
    let memory = snapshots.lock();
    let counted: u64 = memory.entries.values().map(|entry| entry.octets).sum();
    assert_eq!(memory.octets, counted);
    (memory.octets, memory.entries.len(), memory.order.len())
}

#[tokio::test]
async fn without_a_store_memory_has_them() {
    let snapshots = Snapshots::new(None, "imaps://a");
    assert!(snapshots.get(&key("alice")).await.is_none());
    let first = snapshots.keep(&key("alice"), snapshot("1", &["a", "b"]));
    let again = snapshots.get(&key("alice")).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(snapshots.get(&key("bob")).await.is_none());
    assert!(is_last(&snapshots, "alice", &first));
    assert!(!is_last(&snapshots, "bob", &first));

    // The same again is the same.
    let same = snapshots.keep(&key("alice"), snapshot("1", &["a", "b"]));
    assert!(Arc::ptr_eq(&first, &same));
    let second = snapshots.keep(&key("alice"), snapshot("2", &["a"]));
    assert!(!is_last(&snapshots, "alice", &first));
    assert!(is_last(&snapshots, "alice", &second));
    assert_eq!(*second, snapshot("2", &["a"]));
    assert_eq!(memory_of(&snapshots).1, 1);
}

#[tokio::test]
async fn memory_is_bounded() {
    let snapshots = Snapshots::new(None, "imaps://a");
    let large = "x".repeat(3 << 20);
    let keep = |account: &str| snapshots.keep(&key(account), snapshot("", &[&large]));
    let (first, second) = (keep("a"), keep("b"));
    assert!(snapshots.get(&key("a")).await.is_some());
    keep("c");
    assert!(is_last(&snapshots, "a", &first));
    assert!(!is_last(&snapshots, "b", &second));
    assert!(snapshots.get(&key("b")).await.is_none());
    // One that is larger than all may be replaces the last, and is not kept.
    let huge = snapshot("", &[&large, &large, &large]);
    let huge = snapshots.keep(&key("a"), huge);
    assert!(!is_last(&snapshots, "a", &huge));
    assert!(snapshots.get(&key("a")).await.is_none());
    assert!(snapshots.get(&key("c")).await.is_some());
    for number in 0..100_000 {
        snapshots.keep(&key(&number.to_string()), snapshot("small", &[]));
    }
    let (octets, entries, order) = memory_of(&snapshots);
    assert!(octets <= MOST_OCTETS && entries > 10_000, "{entries}");
    assert_eq!(entries, order);
}

#[tokio::test]
async fn the_next_process_has_them_of_the_store() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let snapshots = Snapshots::new(Some(store.clone()), "imaps://a");
    snapshots.keep(&key("alice"), snapshot("1", &["a", "b"]));
    let second = snapshot("2", &["a", "c"]);
    snapshots.keep(&key("alice"), second.clone());
    store.close().await;
    drop((snapshots, store));

    let store = Store::open(state.path()).unwrap();
    let snapshots = Snapshots::new(Some(store.clone()), "imaps://a");
    let found = snapshots.get(&key("alice")).await.unwrap();
    assert_eq!(*found, second);
    assert!(is_last(&snapshots, "alice", &found));
    let again = snapshots.get(&key("alice")).await.unwrap();
    assert!(Arc::ptr_eq(&found, &again));

    // Another upstream's is none.
    let others = Snapshots::new(Some(store.clone()), "imaps://b");
    assert!(others.get(&key("alice")).await.is_none());
    others.keep(&key("alice"), snapshot("3", &[]));
    store.close().await;
    assert!(is_last(&snapshots, "alice", &found));
    let snapshots = Snapshots::new(Some(store.clone()), "imaps://a");
    assert!(snapshots.get(&key("alice")).await.is_none());
    let others = Snapshots::new(Some(store), "imaps://b");
    assert_eq!(
        *others.get(&key("alice")).await.unwrap(),
        snapshot("3", &[])
    );
}

#[tokio::test]
async fn one_too_large_for_memory_comes_from_the_store() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let snapshots = Snapshots::new(Some(store.clone()), "imaps://a");
    let block = "x".repeat(5 << 20);
    let large = snapshot("", &[&block, &block]);
    snapshots.keep(&key("alice"), large.clone());
    for _ in 0..2 {
        let found = snapshots.get(&key("alice")).await.unwrap();
        assert!(*found == large);
        assert_eq!(memory_of(&snapshots), (0, 0, 0));
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_costs_nothing_else() {
    let error = crate::store::OpenError::Io {
        file: "durable.redb".into(),
        problem: "no".to_owned(),
    };
    let snapshots = Snapshots::new(Some(Store::broken(error)), "imaps://a");
    assert!(snapshots.get(&key("alice")).await.is_none());
    let kept = snapshots.keep(&key("alice"), snapshot("1", &[]));
    let found = snapshots.get(&key("alice")).await.unwrap();
    assert!(Arc::ptr_eq(&kept, &found));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_whole() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let snapshots = Arc::new(Snapshots::new(Some(store.clone()), "imaps://a"));
    let tasks: Vec<_> = (0..8)
        .map(|number: u32| {
            let snapshots = Arc::clone(&snapshots);
            tokio::spawn(async move {
                for round in 0..50 {
                    let text = format!("{number} {round}");
                    let text = text.as_str();
                    snapshots.keep(&key("alice"), snapshot(text, &[text, "same", text]));
                    let found = snapshots.get(&key("alice")).await.unwrap();
                    let head = std::str::from_utf8(&found.head).unwrap();
                    assert_eq!(*found, snapshot(head, &[head, "same", head]));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let last = snapshots.get(&key("alice")).await.unwrap();
    store.close().await;
    let snapshots = Snapshots::new(Some(store), "imaps://a");
    assert_eq!(snapshots.get(&key("alice")).await.unwrap(), last);
}
