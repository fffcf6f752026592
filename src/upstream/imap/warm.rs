//! Bringing a known folder up to date: what it costs follows what changed. What
//! is known is held to what the server says each time; where they do not agree,
//! all of the folder is listed.
//!
//! UIDs ascend with the numbers of messages and never come back (RFC 3501
//! §2.3.1.1). If the last known message has the number that it must have, then
//! none of those in front of it is gone.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::ops::RangeInclusive;

use super::command::Command;
use super::connection::{Connection, Resync};
use super::contents::{Asked, Hearing, Searches, is_whole, items, search};
use super::found_uids::FoundUids;
use super::known::Known;
use super::listing::{Details, Entry, Listing, ListingError, Needs};
use super::login::Capabilities;
use super::mailbox::Selected;
use crate::upstream::UpstreamError;

/// Known messages whose sizes are asked for to prove what is known of all.
const PROOFS: usize = 8;

/// A known folder that is brought up to date.
#[derive(Debug)]
pub(super) struct Basis {
    known: Known,
    highest: u32,
    /// UIDs below the highest, ascending.
    proofs: Vec<u32>,
    /// Those of all these that nobody has told of yet.
    unheard: Vec<u32>,
}

impl Basis {
    /// `None`: it is cheaper, or the only way, to list all.
    pub fn new(known: Known, needs: Needs, capabilities: &Capabilities) -> Option<Self> {
        let highest = known.highest_uid();
        if highest == 0 || !known.needs().cover(needs) || capabilities.message_limit().is_some() {
            return None;
        }
        let random = || RandomState::new().build_hasher().finish() % u64::from(known.len());
        let mut proofs: Vec<u32> = (0..PROOFS)
            .filter_map(|_| known.uid_at(u32::try_from(random()).ok()? + 1))
            .filter(|uid| *uid < highest)
            .collect();
        proofs.sort_unstable();
        proofs.dedup();
        Some(Self {
            known,
            highest,
            unheard: Vec::new(),
            proofs,
        })
    }

    /// What QRESYNC is asked from: UIDVALIDITY and mod-sequence, where the latter
    /// is known and the connection has QRESYNC.
    pub fn since(&self, connection: &Connection) -> Option<(u32, u64)> {
        let modseq = self.known.point.highest_modseq?;
        (connection.resync == Resync::Enabled).then_some((self.known.point.uid_validity, modseq))
    }

    /// Asks for what is new, for the highest that is known, and for proofs.
    pub fn news(&self) -> Command {
        Command::new("UID FETCH")
            .uids_and_beyond(&self.proofs, self.highest)
            .items(&items(self.known.needs(), false))
    }

    /// UID and size of a message came.
    pub fn heard(&mut self, uid: u32) {
        self.unheard.retain(|other| *other != uid);
    }

    /// What is due from a FETCH for [`Basis::news`].
    fn expect(&mut self) {
        self.unheard.clone_from(&self.proofs);
        self.unheard.push(self.highest);
    }

    /// Whether the mailbox can be the one that is known, as far as SELECT tells:
    /// neither UIDNEXT nor HIGHESTMODSEQ ever falls.
    fn may_be(&self, selected: &Selected) -> bool {
        let point = self.known.point;
        let next = selected.uid_next.unwrap_or(u32::MAX);
        let modseq = selected.highest_modseq.unwrap_or(u64::MAX);
        selected.uid_validity == point.uid_validity
            && next > self.highest
            && next >= point.uid_next.unwrap_or(0)
            && modseq >= point.highest_modseq.unwrap_or(0)
    }

    /// A listing that begins with what is known.
    fn listing(&self, exists: u32, most: u32) -> Option<Listing> {
        let (entries, details) = self.known.listing()?;
        Listing::knowing(exists, most, self.known.needs(), &entries, details)
    }

    /// Without the messages that `keeps` has not.
    fn without(&mut self, keeps: impl Fn(u32) -> bool) -> Option<()> {
        let (entries, details) = self.known.listing()?;
        let gone = entries.iter().map(|entry| entry.uid);
        let gone: Vec<_> = gone.filter(|uid| !keeps(*uid)).map(|it| it..=it).collect();
        self.known = self.known.with(&[], &details, &gone)?;
        Some(())
    }
}

impl Hearing {
    /// The same, but for what is known of the mailbox. `vanished` is what SELECT
    /// told to be gone.
    pub fn knowing(
        mut self,
        mut basis: Basis,
        selected: &Selected,
        vanished: &[RangeInclusive<u32>],
    ) -> Self {
        if !basis.may_be(selected) {
            // Of no use: but the answers to what was asked are still to come.
            self.doubt = Some(ListingError::Changed);
        } else {
            if !vanished.is_empty()
                && let Some((_, details)) = basis.known.listing()
                && let Some(known) = basis.known.with(&[], &details, vanished)
            {
                basis.known = known;
            }
            basis.expect();
            match basis.listing(selected.exists, self.most()) {
                Some(listing) => self.listing = listing,
                None => self.doubt = Some(ListingError::Contradiction),
            }
        }
        self.basis = Some(basis);
        self
    }

    /// Hears what was asked for to bring what is known up to date. `None`: all is
    /// to be listed.
    pub async fn refresh(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
        asked: Asked,
    ) -> Result<Option<(Vec<Entry>, Details, Known)>, UpstreamError> {
        let was_empty = self.exists == 0;
        let answer = self.wait(connection, asked.listing).await?;
        if was_empty {
            // The server may have refused to look where nothing is.
            self.wait(connection, asked.deleted).await?;
        } else {
            self.hear_searches(connection, capabilities, asked).await?;
            if !is_whole(&answer) {
                return Ok(None);
            }
        }
        if let Some(refreshed) = self.refreshed() {
            return Ok(Some(refreshed));
        }
        // Something has gone, and nobody has told what.
        let is_other = self.doubt == Some(ListingError::Changed);
        if is_other
            || self.exists == 0
            || !self.ask_for_the_living(connection, capabilities).await?
        {
            return Ok(None);
        }
        Ok(self.refreshed())
    }

    /// Finds out which of the known messages are still there, and asks for the
    /// news again. Whether that was of use.
    async fn ask_for_the_living(
        &mut self,
        connection: &mut Connection,
        capabilities: &Capabilities,
    ) -> Result<bool, UpstreamError> {
        let Some(news) = self.basis.as_ref().map(Basis::news) else {
            return Ok(false);
        };
        self.searches = Searches::All;
        let all = connection.send(search(capabilities, "ALL")).await?;
        let news = connection.send(news).await?;
        let answer = self.wait(connection, all).await?;
        self.searches = Searches::Deleted;
        let listing = self.living(is_whole(&answer));
        self.doubt = listing.is_none().then_some(ListingError::Changed);
        if let Some(listing) = listing {
            self.listing = listing;
        }
        let answer = self.wait(connection, news).await?;
        Ok(is_whole(&answer))
    }

    /// A listing that begins with those of the known messages that a search found.
    fn living(&mut self, is_whole: bool) -> Option<Listing> {
        let most = self.most();
        let basis = self.basis.as_mut().filter(|_| is_whole)?;
        let all = std::mem::replace(&mut self.all, FoundUids::new(0));
        let all = all.complete();
        basis.without(|uid| all.contains(uid))?;
        // Messages that nobody knew of are none of this mailbox.
        if u64::from(basis.known.len()) != all.count_up_to(basis.highest) {
            return None;
        }
        basis.expect();
        basis.listing(self.exists, most)
    }

    /// The mailbox as it is now, if all that was heard agrees.
    fn refreshed(&mut self) -> Option<(Vec<Entry>, Details, Known)> {
        if self.doubt.is_some() {
            return None;
        }
        let nothing = Listing::new(0, 0, Needs::default());
        let finished = std::mem::replace(&mut self.listing, nothing).finish();
        let (entries, details) = match finished {
            Ok(finished) => finished,
            Err(error) => {
                self.doubt = Some(error);
                return None;
            }
        };
        let basis = self.basis.as_mut()?;
        let is_there = |uid: &u32| entries.binary_search_by_key(uid, |it| it.uid).is_ok();
        if basis.unheard.iter().any(is_there) {
            self.doubt = Some(ListingError::Incomplete);
            return None;
        }
        let news = entries.partition_point(|entry| entry.uid <= basis.highest);
        let (old, new) = entries.split_at(news);
        if old.len() != basis.known.len() as usize {
            basis.without(|uid| old.binary_search_by_key(&uid, |it| it.uid).is_ok())?;
        }
        if !details.are_whole(new, basis.known.needs()) {
            self.doubt = Some(ListingError::Changed);
            return None;
        }
        let mut known = basis.known.with(new, &details, &[])?;
        known.point = self.point;
        Some((entries, details, known))
    }
}
