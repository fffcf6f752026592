//! Opening a maildrop without asking: the connection has told since the last
//! session, by IDLE, that nothing has changed.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::contents::Contents;
use super::found_uids::FoundUids;
use super::idle::Idling;
use super::known::{Known, Point};
use super::listing::Needs;
use super::resting::Rested;
use super::session::{Folder, ImapSession};
use super::shared::Shared;
use crate::metrics::Opening;

/// Servers that are told of changes by the kernel gather them for half a second
/// before they announce any: who has idled for less than this may not yet have
/// been told what happened before.
const ANNOUNCED: Duration = Duration::from_millis(500);
/// Servers that are not told look once a minute, and some idle without ever
/// looking: what was not asked for so long is asked.
pub(super) const ASKED: Duration = Duration::from_secs(60);
/// The most messages of a mailbox that rests in memory, at five octets each or
/// so.
const MOST_MESSAGES: usize = 2_000;

/// The most ranges of messages that are there and not shown.
const MOST_MARKS: usize = 500;

/// The one folder of a session, as it was when it was listed.
#[derive(Debug)]
pub(super) struct Seen {
    folder: Folder,
    known: Known,
    /// Marked `\Deleted`.
    deleted: FoundUids,
    /// Marked as not to be shown.
    hidden: FoundUids,
    /// When the server was last asked whether this is so.
    pub asked: Instant,
}

impl Rested {
    /// Whether the connection vouches for what its last session saw.
    pub fn vouches(&mut self, shared: &Shared) -> bool {
        // What has come and nobody has heard.
        while let Some(event) = self.connection.overhear().now_or_never() {
            if event.is_err() || self.connection.has_news() {
                return false;
            }
        }
        let has_idled = match self.connection.idling() {
            Idling::Confirmed(_, since) => since.elapsed() >= ANNOUNCED,
            Idling::No | Idling::Begun(..) | Idling::Ending(..) => false,
        };
        let is_settled = |seen: &Seen| {
            let folder = &seen.folder;
            let unfinished = shared.unfinished(&folder.key, folder.uid_validity);
            seen.asked.elapsed() < ASKED && unfinished.is_empty()
        };
        has_idled && !self.connection.has_news() && self.seen.as_ref().is_some_and(is_settled)
    }
}

impl ImapSession {
    /// Keeps in mind how the folder that was listed just now is, where the next
    /// session may do with that.
    pub(super) fn see(&mut self, contents: &Contents, needs: Needs) {
        self.seen = None;
        let (Some(connection), [folder]) = (&mut self.connection, self.folders.as_slice()) else {
            return;
        };
        let count = contents.entries.len();
        if self.bond.is_none() || self.names.len() != 1 || count > MOST_MESSAGES {
            return;
        }
        let (deleted, hidden) = (contents.deleted.clone(), contents.hidden.clone());
        let marks = deleted.ranges() + hidden.ranges();
        if marks > MOST_MARKS {
            return;
        }
        connection.listed(count, marks > 0);
        let point = Point {
            uid_validity: folder.uid_validity,
            ..Point::default()
        };
        let known = Known::new(point, needs, &contents.entries, &contents.details);
        self.seen = known.map(|known| Seen {
            folder: folder.clone(),
            known,
            deleted,
            hidden,
            asked: Instant::now(),
        });
    }

    /// Opens the folder as the last session saw it, where the connection vouches
    /// for that.
    pub(super) fn open_unasked(&mut self, name: &str, needs: Needs) -> Option<Contents> {
        if !std::mem::take(&mut self.is_vouched_for) {
            return None;
        }
        let seen = self.seen.as_ref()?;
        if seen.folder.name != name || seen.known.needs() != needs || self.names.len() != 1 {
            return None;
        }
        let (entries, details) = seen.known.listing()?;
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
}
