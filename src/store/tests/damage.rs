//! A damaged store is an error, or it is whole: never silently less.

use std::path::{Path, PathBuf};

use super::*;
use crate::store::marker;

/// What a damaged copy was opened with.
async fn opened(state: &Path) -> Result<Kept, OpenError> {
    let store = Store::open(state)?;
    match store.folder(&inbox("alice")).await {
        Ok(kept) => Ok(kept),
        Err(StoreError::Unusable(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

/// A store that was stopped well, with something in it.
async fn filled() -> (TempDir, Kept) {
    let state = folder();
    let store = Store::open(state.path()).unwrap();
    let key = inbox("alice");
    store.freeze(&key, many(400)).await.unwrap();
    store
        .hide(&key, (500..600).map(message).collect())
        .await
        .unwrap();
    store.hide(&key, vec![message(600)]).await.unwrap();
    store
        .learn(&key, (0..100).map(|it| octets(it, it * 7)).collect())
        .await
        .unwrap();
    let kept = store.folder(&key).await.unwrap();
    drop(store);
    (state, kept)
}

fn durable(state: &TempDir) -> PathBuf {
    state.path().join("durable.redb")
}

#[track_caller]
fn damaged(outcome: Result<Kept, OpenError>) {
    match outcome {
        Err(OpenError::Damaged { .. }) => {}
        Ok(kept) => panic!("opened with {} hidden", kept.hidden.len()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_octet_that_was_changed_anywhere_is_found() {
    let (state, kept) = filled().await;
    let whole = fs::read(durable(&state)).unwrap();
    change_octets(&state, &kept, &whole).await;

    // Left behind by a crash, with the commit before the last one to go back to.
    let store = Store::open(state.path()).unwrap();
    let key = inbox("alice");
    store.hide(&key, vec![message(601)]).await.unwrap();
    store.hide(&key, vec![message(602)]).await.unwrap();
    let left = fs::read(durable(&state)).unwrap();
    let kept = store.folder(&key).await.unwrap();
    drop(store);
    assert_ne!(fs::read(durable(&state)).unwrap(), left);
    change_octets(&state, &kept, &left).await;
}

async fn change_octets(state: &TempDir, kept: &Kept, whole: &[u8]) {
    let (mut errors, mut good) = (0, 0);
    // The header octet by octet, the pages at distances that meet all offsets.
    let places = (0..512).chain((512..whole.len()).step_by(509));
    for place in places {
        for change in [0x01, 0x80, 0xff] {
            let mut broken = whole.to_vec();
            broken[place] ^= change;
            fs::write(durable(state), &broken).unwrap();
            match opened(state.path()).await {
                Ok(found) => {
                    assert_eq!(&found, kept, "octet {place}, changed by {change:#x}");
                    good += 1;
                }
                Err(OpenError::Damaged { .. } | OpenError::Version { .. }) => {
                    assert_eq!(fs::read(durable(state)).unwrap(), broken, "octet {place}");
                    errors += 1;
                }
                Err(error) => panic!("octet {place}, changed by {change:#x}: {error}"),
            }
        }
    }
    assert!(
        errors > 50 && good > 0,
        "{errors} errors, {good} unused octets"
    );
    fs::write(durable(state), whole).unwrap();
    assert_eq!(&opened(state.path()).await.unwrap(), kept);
}

#[tokio::test]
async fn a_file_that_was_cut_is_an_error() {
    let (state, kept) = filled().await;
    let whole = fs::read(durable(&state)).unwrap();
    let lengths = [
        0,
        1,
        63,
        64,
        320,
        4095,
        4096,
        whole.len() / 2,
        whole.len() - 1,
    ];
    for length in lengths.into_iter().chain((0..whole.len()).step_by(4096)) {
        fs::write(durable(&state), &whole[..length]).unwrap();
        match opened(state.path()).await {
            Err(OpenError::Damaged { .. }) => {
                assert_eq!(fs::read(durable(&state)).unwrap(), whole[..length]);
            }
            Ok(found) => assert_eq!(found, kept, "{length} octets"),
            Err(error) => panic!("{length} octets: {error}"),
        }
    }
}

#[tokio::test]
async fn garbage_and_zeros_are_errors() {
    let (state, _) = filled().await;
    let length = fs::metadata(durable(&state)).unwrap().len();
    let length = usize::try_from(length).unwrap();
    let garbage = [
        b"garbage\n".repeat(length / 8),
        vec![0; length],
        vec![0xff; length],
        b"SQLite format 3\0".to_vec(),
        vec![0; 100],
    ];
    for octets in garbage {
        fs::write(durable(&state), &octets).unwrap();
        damaged(opened(state.path()).await);
        assert_eq!(fs::read(durable(&state)).unwrap(), octets);
    }
}

#[tokio::test]
async fn a_part_that_is_gone_is_not_begun_anew() {
    let (state, kept) = filled().await;
    let aside = state.path().join("aside");
    fs::rename(durable(&state), &aside).unwrap();
    damaged(opened(state.path()).await);
    assert!(!durable(&state).exists());
    // The cache knows it, too.
    fs::rename(state.path().join(marker::FILE), state.path().join("marker")).unwrap();
    damaged(opened(state.path()).await);
    assert!(!durable(&state).exists());

    // The marker alone can be made again.
    fs::rename(&aside, durable(&state)).unwrap();
    assert_eq!(opened(state.path()).await.unwrap(), kept);
    fs::remove_file(state.path().join("cache.redb")).unwrap();
    let without = Kept {
        octets: [].into(),
        ..kept
    };
    assert_eq!(opened(state.path()).await.unwrap(), without);
    fs::remove_file(durable(&state)).unwrap();
    damaged(opened(state.path()).await);
}

#[tokio::test]
async fn an_older_part_or_that_of_another_store_is_an_error() {
    let (state, kept) = filled().await;
    let old = fs::read(durable(&state)).unwrap();
    let store = Store::open(state.path()).unwrap();
    store.hide(&inbox("alice"), vec![message(1)]).await.unwrap();
    drop(store);
    let new = fs::read(durable(&state)).unwrap();
    fs::write(durable(&state), &old).unwrap();
    damaged(opened(state.path()).await);

    let (other, _) = filled().await;
    fs::copy(durable(&other), durable(&state)).unwrap();
    damaged(opened(state.path()).await);
    fs::write(durable(&state), new).unwrap();
    let hidden = opened(state.path()).await.unwrap().hidden;
    assert_eq!(hidden.len(), kept.hidden.len() + 1);
}

#[tokio::test]
async fn a_marker_that_cannot_be_read_is_written_anew() {
    let (state, kept) = filled().await;
    let path = state.path().join(marker::FILE);
    let written = fs::read(&path).unwrap();
    for text in [&b"?"[..], b"popgate store", &[0xff; 200], &written[1..]] {
        fs::write(&path, text).unwrap();
        assert_eq!(opened(state.path()).await.unwrap(), kept);
        assert_eq!(fs::read(&path).unwrap(), written);
    }
}

#[tokio::test]
async fn a_damaged_cache_is_put_aside() {
    let (state, kept) = filled().await;
    let cache = state.path().join("cache.redb");
    let whole = fs::read(&cache).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    for broken in [half, Vec::new(), b"garbage".to_vec()] {
        fs::write(&cache, &broken).unwrap();
        let found = opened(state.path()).await.unwrap();
        assert!(found.octets.is_empty());
        assert_eq!(found.frozen, kept.frozen);
        assert_eq!(
            fs::read(state.path().join("cache.redb.damaged")).unwrap(),
            broken
        );
    }
    fs::write(&cache, &whole).unwrap();
    assert_eq!(opened(state.path()).await.unwrap(), kept);
}

#[tokio::test]
async fn a_newer_version_is_refused_in_words() {
    for name in ["durable.redb", "cache.redb"] {
        let (state, _) = filled().await;
        let path = state.path().join(name);
        let database = redb::Database::open(&path).unwrap();
        let meta: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(meta)
            .unwrap()
            .insert("version", 2u64.to_be_bytes().as_slice())
            .unwrap();
        transaction.commit().unwrap();
        drop(database);
        let before = fs::read(&path).unwrap();
        let error = Store::open(state.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Version { found: 2, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("newer popgate"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
