//! What maildrops showed last: for a time when a mailbox does not open, so that no
//! client takes its messages for gone.
//!
//! The store's cache holds them, beside the snapshots of folders; they may be lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::maildrop::{Maildrop, MaildropBuilder, Message, Policy, UniqueId};
use crate::store::{Block, FolderKey, Snapshot, Store};

/// The form of what is kept. With another one, it is of no use.
const FORM: u32 = 1;
/// What the key of a listing begins with: no folder has a NUL in its name.
const LISTING: &str = "\0listing";
/// Listings of which it is remembered what is kept.
const MOST: usize = 10_000;

/// The listings of accounts.
#[derive(Debug, Default)]
pub struct Listings {
    store: Option<Store>,
    kept: Mutex<HashMap<FolderKey, (Sum, u64)>>,
}

/// Names a listing's content.
type Sum = [u8; 32];

/// Whose maildrop is listed: an account's, as its policy shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(FolderKey);

impl Shown {
    /// The maildrop of the account with this address, as long as it is the same
    /// `mailbox`: whatever tells it from the one that the account had before, or that
    /// another account of this address has.
    pub fn of(address: &str, mailbox: &str, policy: &Policy) -> Self {
        let mailbox = digest(&SHA256, mailbox.as_bytes());
        let mut folder = LISTING.to_owned();
        for octet in mailbox.as_ref().iter().take(16) {
            folder.push_str(&format!("{octet:02x}"));
        }
        for name in &policy.folders {
            folder.push('\0');
            // Folders of other names may differ by case alone.
            match name.is_inbox() {
                true => folder.push_str("INBOX"),
                false => folder.push_str(name.as_str()),
            }
        }
        let window = policy.window;
        folder.push_str(&format!("\0{:?} {:?}", window.max_age, window.max_messages));
        Self(FolderKey {
            account: address.to_lowercase(),
            folder,
        })
    }
}

/// A listing as it was kept.
#[derive(Debug)]
pub struct Listing {
    /// By the names they have upstream.
    pub folders: Vec<String>,
    /// Sizes and unique ids, in order.
    pub messages: Vec<(u64, UniqueId)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    form: u32,
    folders: Vec<String>,
    messages: usize,
}

impl Listings {
    /// Without a store nothing is kept.
    pub fn new(store: Option<Store>) -> Self {
        Self {
            store,
            kept: Mutex::default(),
        }
    }

    /// Keeps what a maildrop shows, in the place of what it showed before. It is
    /// written later, where anything has changed.
    pub fn keep<'a>(
        &self,
        whose: &Shown,
        folders: &[String],
        messages: impl Iterator<Item = Message<'a>>,
    ) {
        let Some(store) = self.store.as_ref().filter(|store| store.is_usable()) else {
            return;
        };
        let mut text = String::new();
        let mut count = 0;
        for message in messages {
            text.push_str(&format!("{} {}\n", message.octets, message.unique_id));
            count += 1;
        }
        let head = Head {
            form: FORM,
            folders: folders.to_vec(),
            messages: count,
        };
        let Ok(head) = serde_json::to_vec(&head) else {
            return;
        };
        let mut sum = Sum::default();
        let whole = digest(&SHA256, &[&head, text.as_bytes()].concat());
        sum.copy_from_slice(whole.as_ref());
        let mut kept = self.kept();
        // What was kept before any were lost may be one of those.
        let known = (sum, store.lost_snapshots());
        if kept.get(&whose.0) == Some(&known) {
            store.used_snapshot(&whose.0);
            return;
        }
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(whose.0.clone(), known);
        let text = Bytes::from(text);
        let pieces = text.chunks(Block::FULL).zip(0..);
        let blocks = pieces.map(|(piece, number)| (number, Block::new(text.slice_ref(piece))));
        let snapshot = Snapshot {
            head: head.into(),
            blocks: blocks.collect(),
        };
        // Held until the store knows it: the last one in memory is the last there.
        store.keep_snapshot(&whose.0, Arc::new(snapshot));
    }

    /// What the maildrop showed last, where that is known.
    pub async fn get(&self, whose: &Shown) -> Option<Listing> {
        let store = self.store.as_ref().filter(|store| store.is_usable())?;
        match store.snapshot(&whose.0).await {
            Ok(snapshot) => read(&*snapshot?),
            Err(error) => {
                tracing::warn!(%error, "going on without what the maildrop showed");
                None
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<FolderKey, (Sum, u64)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: it is not as it was kept.
fn read(snapshot: &Snapshot) -> Option<Listing> {
    let head: Head = serde_json::from_slice(&snapshot.head).ok()?;
    let blocks: &BTreeMap<u32, Block> = &snapshot.blocks;
    let pieces: Vec<&[u8]> = blocks.values().map(|it| it.octets().as_ref()).collect();
    let text = String::from_utf8(pieces.concat()).ok()?;
    let message = |line: &str| {
        let (octets, unique_id) = line.split_once(' ')?;
        Some((octets.parse().ok()?, UniqueId::new(unique_id.to_owned())?))
    };
    let messages: Option<Vec<_>> = text.lines().map(message).collect();
    let messages = messages.filter(|it| head.form == FORM && it.len() == head.messages)?;
    Some(Listing {
        folders: head.folders,
        messages,
    })
}

impl Listing {
    /// The maildrop with a message in front; `None`: one of the others has its unique
    /// id.
    pub fn behind(&self, octets: u64, unique_id: &UniqueId) -> Option<Maildrop> {
        let mut maildrop = MaildropBuilder::with_capacity(self.messages.len() + 1);
        maildrop.push(octets, unique_id).ok()?;
        for (octets, unique_id) in &self.messages {
            maildrop.push(*octets, unique_id).ok()?;
        }
        maildrop.build().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn maildrop(count: usize) -> Maildrop {
        let mut maildrop = MaildropBuilder::with_capacity(count);
        for number in 0..count {
            let id = UniqueId::of(format!("id{number}"));
            maildrop.push(number as u64, &id).unwrap();
        }
        maildrop.build().unwrap()
    }

    fn shown(address: &str) -> Shown {
        Shown::of(address, "mailbox", &Policy::default())
    }

    async fn ids(listings: &Listings, address: &str) -> Option<Vec<(u64, String)>> {
        let listing = listings.get(&shown(address)).await?;
        assert_eq!(listing.folders, ["INBOX"]);
        let messages = listing.messages.into_iter();
        Some(
            messages
                .map(|(octets, id)| (octets, id.to_string()))
                .collect(),
        )
    }

    #[tokio::test]
    async fn a_listing_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = ["INBOX".to_owned()];
        for count in [0, 1, 5000] {
            let store = Store::open(folder.path()).unwrap();
            let listings = Listings::new(Some(store.clone()));
            let maildrop = maildrop(count);
            listings.keep(&shown("Alice@example.org"), &inbox, maildrop.iter());
            store.close().await;
            drop((listings, store));
            let store = Store::open(folder.path()).unwrap();
            let listings = Listings::new(Some(store));
            let kept = ids(&listings, "alice@example.org").await.unwrap();
            let expected: Vec<_> = maildrop
                .iter()
                .map(|it| (it.octets, it.unique_id.to_owned()))
                .collect();
            assert_eq!(kept, expected);
            assert!(ids(&listings, "bob@example.org").await.is_none());
        }
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_kept_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let store = Store::on_disk(folder.path(), &left).unwrap();
        let listings = Listings::new(Some(store.clone()));
        let (inbox, maildrop) = (["INBOX".to_owned()], maildrop(3));
        left.store(0, Ordering::SeqCst);
        for _ in 0..2 {
            // The second time while nothing is tried.
            listings.keep(&shown("alice"), &inbox, maildrop.iter());
            store.close().await;
        }
        left.store(i64::MAX, Ordering::SeqCst);
        assert!(ids(&listings, "alice").await.is_none());
        store.end_pause();
        listings.keep(&shown("alice"), &inbox, maildrop.iter());
        store.close().await;
        assert_eq!(ids(&listings, "alice").await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn the_last_one_counts_and_each_view_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let listings = Listings::new(Some(Store::open(folder.path()).unwrap()));
        let inbox = ["INBOX".to_owned()];
        let (large, small) = (maildrop(3), maildrop(2));
        let alice = shown("alice");
        for shown in [&large, &small, &large, &small] {
            listings.keep(&alice, &inbox, shown.iter());
        }
        let mut recent = Policy::default();
        recent.window.max_messages = Some(1);
        let recent = Shown::of("alice", "mailbox", &recent);
        assert!(listings.get(&recent).await.is_none());
        listings.keep(&recent, &inbox, large.iter());
        assert_eq!(ids(&listings, "alice").await.unwrap().len(), 2);
        let listing = listings.get(&recent).await.unwrap();
        assert_eq!(listing.messages.len(), 3);
        let notice = UniqueId::of("notice".to_owned());
        let behind = listing.behind(10, &notice).unwrap();
        assert_eq!(behind.get(0).unwrap().unique_id, "notice");
        assert_eq!(behind.len(), 4);
        // What stands in front is never taken for one of them.
        assert!(
            listing
                .behind(10, &UniqueId::of("id1".to_owned()))
                .is_none()
        );
    }

    #[test]
    fn another_mailbox_or_folder_has_a_listing_of_its_own() {
        let shown = |mailbox: &str, folder: &str| {
            let policy = Policy {
                folders: vec![folder.parse().unwrap()],
                ..Policy::default()
            };
            Shown::of("alice", mailbox, &policy)
        };
        assert_eq!(shown("a", "inbox"), shown("a", "INBOX"));
        assert_ne!(shown("a", "INBOX"), shown("b", "INBOX"));
        assert_ne!(shown("a", "Bills"), shown("a", "bills"));
    }

    #[test]
    fn what_is_not_as_it_was_kept_is_nothing() {
        let head = |messages, form| Head {
            form,
            folders: vec![],
            messages,
        };
        let snapshot = |head: &Head, text: &str| Snapshot {
            head: serde_json::to_vec(head).unwrap().into(),
            blocks: BTreeMap::from([(0, Block::new(text.as_bytes().to_vec()))]),
        };
        assert!(read(&snapshot(&head(1, FORM), "5 a\n")).is_some());
        for broken in [
            snapshot(&head(2, FORM), "5 a\n"),
            snapshot(&head(1, FORM + 1), "5 a\n"),
            snapshot(&head(1, FORM), "5 \n"),
            snapshot(&head(1, FORM), "x a\n"),
            snapshot(&head(1, FORM), "5 \u{e4}\n"),
            Snapshot::default(),
        ] {
            assert!(read(&broken).is_none());
        }
    }
}
