//! Opening a maildrop without asking: the connection has told since the last
//! session, by IDLE, that nothing has changed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::contents::Contents;
use super::found_uids::FoundUids;
use super::idle::Idling;
use super::known::Known;
use super::listing::Needs;
use super::session::{Folder, ImapSession};
use crate::metrics::Opening;
use crate::upstream::habits::Turn;
use crate::upstream::snapshots::Snapshot;

/// Servers that are told of changes by the kernel gather them for half a second
/// before they announce any: who has idled for less than this may not yet have
/// been told what happened before.
const ANNOUNCED: Duration = Duration::from_millis(500);
/// Servers that are not told look once a minute, and some idle without ever
/// looking: what was not asked for so long is asked.
pub(super) const ASKED: Duration = Duration::from_secs(60);
/// The longest listing that is kept for a connection at rest, in octets: some
/// 2,000 messages. Longer ones are there while the snapshots in memory have room.
const LONGEST: u64 = 12 * 1024;
/// The most ranges of messages that are there and not shown.
const MOST_MARKS: usize = 500;

/// The one folder of a session, as it was when it was listed.
#[derive(Debug)]
pub(super) struct Seen {
    folder: Folder,
    listing: Listing,
    /// Marked `\Deleted`.
    deleted: FoundUids,
    /// Marked as not to be shown.
    hidden: FoundUids,
    /// When the server was last asked whether this is so.
    pub asked: Instant,
}

#[cfg(test)]
impl Seen {
    /// An empty INBOX, for tests.
    pub fn of_nothing(asked: Instant) -> Self {
        use super::disposal::Disposal;
        let folder = Folder {
            name: "INBOX".to_owned(),
            key: super::session::folder_key(None, "alice", "INBOX"),
            uid_validity: 1,
            writes: false,
            disposal: Disposal::Never,
            expiry: None,
        };
        Self {
            folder,
            listing: Listing::Lent(Weak::new()),
            deleted: FoundUids::new(0),
            hidden: FoundUids::new(0),
            asked,
        }
    }
}

#[derive(Debug)]
enum Listing {
    Kept(Arc<Snapshot>),
    Lent(Weak<Snapshot>),
}

impl Listing {
    fn get(&self) -> Option<Arc<Snapshot>> {
        match self {
            Self::Kept(snapshot) => Some(Arc::clone(snapshot)),
            Self::Lent(snapshot) => snapshot.upgrade(),
        }
    }
}

impl ImapSession {
    /// Keeps in mind how the folder that was listed just now is, where the next
    /// session may do with that. `asked`: when the server was asked; a session of
    /// ours that held the maildrop then may have changed it since.
    pub(super) fn see(
        &mut self,
        contents: &Contents,
        snapshot: Option<&Arc<Snapshot>>,
        asked: Instant,
    ) {
        let (Some(snapshot), Some(connection), [folder], [_]) = (
            snapshot,
            &mut self.connection,
            self.folders.as_slice(),
            self.names.as_slice(),
        ) else {
            return;
        };
        let marks = contents.deleted.ranges() + contents.hidden.ranges();
        if self.bond.is_none() || marks > MOST_MARKS {
            return;
        }
        connection.listed(contents.entries.len(), marks > 0);
        self.seen = Some(Seen {
            folder: folder.clone(),
            listing: match snapshot.octets() <= LONGEST {
                true => Listing::Kept(Arc::clone(snapshot)),
                false => Listing::Lent(Arc::downgrade(snapshot)),
            },
            deleted: contents.deleted.clone(),
            hidden: contents.hidden.clone(),
            asked,
        });
    }

    /// Opens the folder as the last session saw it, where the connection vouches
    /// for that.
    pub(super) fn open_unasked(&mut self, name: &str, needs: Needs) -> Option<Contents> {
        if !self.is_vouched_for() {
            return None;
        }
        let seen = self.seen.as_ref().filter(|it| it.folder.name == name)?;
        let known = Known::read(&*seen.listing.get()?)?;
        if !known.needs().cover(needs) || known.point.uid_validity != seen.folder.uid_validity {
            return None;
        }
        let (entries, details) = known.listing()?;
        self.folders.push(seen.folder.clone());
        self.selected = Some(0);
        self.metrics.openings.get_or_create(&Opening::Vouched).inc();
        Some(Contents {
            entries,
            details,
            deleted: seen.deleted.clone(),
            hidden: seen.hidden.clone(),
            known: None,
            how: Opening::Vouched,
        })
    }

    /// Whether the connection vouches, now, for what its last session saw.
    fn is_vouched_for(&mut self) -> bool {
        // A login out of turn may be somebody who waits for a message that has
        // just been sent: the server is not waited for to tell of it.
        let may_be = self.is_kept && self.turn != Turn::Unexpected;
        let (true, Some(seen), Some(connection)) = (may_be, &self.seen, &mut self.connection)
        else {
            return false;
        };
        // What has come and nobody has heard.
        while let Some(event) = connection.overhear().now_or_never() {
            if event.is_err() || connection.has_news() {
                return false;
            }
        }
        let has_idled = match connection.idling() {
            Idling::Confirmed(_, since) => {
                self.turn == Turn::OfMany || since.elapsed() >= ANNOUNCED
            }
            Idling::No | Idling::Begun(..) | Idling::Ending(..) => false,
        };
        let folder = &seen.folder;
        has_idled
            && !connection.has_news()
            && seen.asked.elapsed() < ASKED
            && !self.shared.has_changed(&folder.key, seen.asked)
            && self
                .shared
                .unfinished(&folder.key, folder.uid_validity)
                .is_empty()
    }
}
