//! The listing of a mailbox, held to EXISTS: it is whole, or it is an error.
//! Pure.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::fetch::{self, Row};

/// Rows of `FETCH 1:* (UID RFC822.SIZE)` as they arrive, while the mailbox may
/// grow and shrink (RFC 3501 §7.3.1, §7.4.1).
///
/// A message is known by its place: its sequence number when the listing was
/// asked for. Mail that arrives later comes behind all of these, may be missing
/// from the answer, and is left out.
#[derive(Debug)]
pub(super) struct Listing {
    /// Messages in the mailbox now.
    exists: u32,
    /// The most that there may ever be.
    most: u32,
    /// Of these, how many were there when the listing was asked for.
    due: u32,
    /// By place; 0 where none came yet. Memory that was never written to costs
    /// nothing: a server that only claims many messages takes none.
    uids: Vec<u32>,
    /// Places whose UID did not come yet, or never will.
    untold: u32,
    /// RFC822.SIZE by place, plus one; 0 where none came yet.
    sizes: Vec<u64>,
    /// Which places are still there, once something was expunged.
    places: Option<Places>,
    /// Of the places, how many were known before: the first.
    known: u32,
    /// The highest UID of these.
    highest: u32,
    /// Places by UID, once something vanished.
    by_uid: Option<HashMap<u32, usize>>,
    details: Details,
}

/// A listed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub uid: u32,
    /// For [`Details`].
    pub place: u32,
    /// RFC822.SIZE, in octets.
    pub octets: u64,
}

/// What a listing asks for beside UIDs and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// INTERNALDATE.
    pub arrival: bool,
    /// X-GUID.
    pub guid: bool,
    /// EMAILID.
    pub email_id: bool,
    /// X-GM-MSGID.
    pub gmail_id: bool,
}

impl Needs {
    /// Whether all of the others are among these.
    pub fn cover(self, others: Self) -> bool {
        (self.arrival || !others.arrival)
            && (self.guid || !others.guid)
            && (self.email_id || !others.email_id)
            && (self.gmail_id || !others.gmail_id)
    }
}

/// The answers to [`Needs`] by place; no memory is taken for what was not asked
/// for.
#[derive(Debug)]
pub(super) struct Details {
    /// See [`arrival_as_stored`].
    arrivals: Vec<Option<NonZeroU64>>,
    guids: Vec<Option<Box<str>>>,
    email_ids: Vec<Option<Box<str>>>,
    gmail_ids: Vec<Option<NonZeroU64>>,
    /// How many more octets the ids may have.
    octets_left: usize,
}

/// Octets of the ids of a mailbox, for each message and beyond.
const ID_OCTETS: (usize, usize) = (128, 1024 * 1024);

impl Details {
    /// Nothing is known yet of `exists` messages.
    pub fn new(exists: u32, needs: Needs) -> Self {
        let count = |needed: bool| if needed { exists as usize } else { 0 };
        let (each, beyond) = ID_OCTETS;
        Self {
            arrivals: vec![None; count(needs.arrival)],
            guids: vec![None; count(needs.guid)],
            email_ids: vec![None; count(needs.email_id)],
            gmail_ids: vec![None; count(needs.gmail_id)],
            octets_left: each.saturating_mul(exists as usize).saturating_add(beyond),
        }
    }

    /// What was told of the message at `place`.
    pub fn learn(&mut self, place: usize, told: fetch::Details) -> Result<(), ListingError> {
        if let (Some(slot), Some(arrival)) = (self.arrivals.get_mut(place), told.arrival) {
            *slot = NonZeroU64::new(arrival_as_stored(arrival));
        }
        if let (Some(slot), Some(id)) = (self.gmail_ids.get_mut(place), told.gmail_id) {
            *slot = NonZeroU64::new(id);
        }
        for (slots, id) in [
            (&mut self.guids, told.guid),
            (&mut self.email_ids, told.email_id),
        ] {
            if let (Some(slot @ None), Some(id)) = (slots.get_mut(place), id) {
                let left = self.octets_left.checked_sub(id.len());
                self.octets_left = left.ok_or(ListingError::TooMany)?;
                *slot = Some(id);
            }
        }
        Ok(())
    }

    /// Whether what is told of the message at `place` is what is known of it.
    fn agree(&self, place: usize, told: &fetch::Details) -> bool {
        fn agree<T: PartialEq>(known: Option<&T>, told: Option<&T>) -> bool {
            known.is_none() || told.is_none() || known == told
        }
        let arrival = told
            .arrival
            .map(arrival_as_stored)
            .and_then(NonZeroU64::new);
        let gmail_id = told.gmail_id.and_then(NonZeroU64::new);
        agree(known(&self.arrivals, place), arrival.as_ref())
            && agree(known(&self.gmail_ids, place), gmail_id.as_ref())
            && agree(known(&self.guids, place), told.guid.as_ref())
            && agree(known(&self.email_ids, place), told.email_id.as_ref())
    }

    /// Whether all that is needed is known of these messages.
    pub fn are_whole(&self, entries: &[Entry], needs: Needs) -> bool {
        entries.iter().all(|entry| {
            let place = entry.place as usize;
            (!needs.arrival || known(&self.arrivals, place).is_some())
                && (!needs.guid || known(&self.guids, place).is_some())
                && (!needs.email_id || known(&self.email_ids, place).is_some())
                && (!needs.gmail_id || known(&self.gmail_ids, place).is_some())
        })
    }

    /// These, and nothing of the other messages of a mailbox of `exists`.
    fn extended(mut self, exists: u32, needs: Needs) -> Self {
        let fresh = Self::new(exists, needs);
        self.arrivals.resize(fresh.arrivals.len(), None);
        self.guids.resize(fresh.guids.len(), None);
        self.email_ids.resize(fresh.email_ids.len(), None);
        self.gmail_ids.resize(fresh.gmail_ids.len(), None);
        self.octets_left = fresh.octets_left;
        self
    }

    /// When it arrived, in seconds since 1970.
    pub fn arrival(&self, place: u32) -> Option<i64> {
        let stored = self.arrivals.get(place as usize).copied().flatten()?;
        Some(arrival_as_stored(stored.get().cast_signed()).cast_signed())
    }

    pub fn guid(&self, place: u32) -> Option<&str> {
        self.guids.get(place as usize)?.as_deref()
    }

    pub fn email_id(&self, place: u32) -> Option<&str> {
        self.email_ids.get(place as usize)?.as_deref()
    }

    pub fn gmail_id(&self, place: u32) -> Option<u64> {
        let id = self.gmail_ids.get(place as usize).copied().flatten();
        id.map(NonZeroU64::get)
    }
}

/// Time 0 is stored as another number than none at all; its own inverse.
pub(super) fn arrival_as_stored(arrival: i64) -> u64 {
    (arrival ^ i64::MIN).cast_unsigned()
}

/// What a listing got wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListingError {
    #[error("the listing names a message that does not exist")]
    NoSuchMessage,
    #[error("the listing is not whole")]
    Incomplete,
    #[error("the listing contradicts itself")]
    Contradiction,
    #[error("the mailbox has too many messages")]
    TooMany,
    /// Of what was known before.
    #[error("the size of a message is not what it was")]
    Changed,
    #[error("a message is gone, and it is not clear which one")]
    Unclear,
}

impl Listing {
    /// A listing of a mailbox that holds `exists` messages, and never holds
    /// more than `most`.
    pub fn new(exists: u32, most: u32, needs: Needs) -> Self {
        Self {
            exists,
            most,
            due: exists,
            uids: vec![0; exists as usize],
            untold: exists,
            sizes: vec![0; exists as usize],
            places: None,
            known: 0,
            highest: 0,
            by_uid: None,
            details: Details::new(exists, needs),
        }
    }

    /// A listing of such a mailbox whose first messages are known: `entries`, by
    /// ascending UID, and what is behind them is to be listed. Rows of those that
    /// are known must agree. `None`: more are known than there are.
    pub fn knowing(
        exists: u32,
        most: u32,
        needs: Needs,
        entries: &[Entry],
        details: Details,
    ) -> Option<Self> {
        let known = u32::try_from(entries.len()).ok()?;
        if known > exists {
            return None;
        }
        let mut listing = Self::new(exists, most, Needs::default());
        for (place, entry) in entries.iter().enumerate() {
            *listing.uids.get_mut(place)? = entry.uid;
            *listing.sizes.get_mut(place)? = entry.octets.checked_add(1)?;
        }
        listing.known = known;
        listing.untold = exists - known;
        listing.highest = entries.last().map_or(0, |entry| entry.uid);
        listing.details = details.extended(exists, needs);
        Some(listing)
    }

    /// Messages that are to be listed.
    pub fn count(&self) -> u32 {
        self.due
    }

    /// Whether nothing was there when the listing was asked for.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// A row of the listing, or news of a message's flags.
    pub fn row(&mut self, row: Row) -> Result<(), ListingError> {
        if row.uid.is_none() && row.octets.is_none() && row.details.is_none() {
            return Ok(());
        }
        if row.seq == 0 || row.seq > self.exists {
            return Err(ListingError::NoSuchMessage);
        }
        if row.seq > self.due {
            return Ok(());
        }
        let place = self.place(row.seq);
        let (Some(known), Some(size)) = (self.uids.get_mut(place), self.sizes.get_mut(place))
        else {
            return Err(ListingError::NoSuchMessage);
        };
        let was_known = place < self.known as usize;
        if let Some(uid) = row.uid {
            let is_behind = was_known || uid > self.highest;
            if (*known != 0 && *known != uid) || !is_behind {
                return Err(ListingError::Contradiction);
            }
            self.untold -= u32::from(*known == 0);
            *known = uid;
            if let Some(by_uid) = &mut self.by_uid {
                by_uid.insert(uid, place);
            }
        }
        if let Some(octets) = row.octets {
            if was_known && octets.checked_add(1) != Some(*size) {
                return Err(ListingError::Changed);
            }
            *size = octets.checked_add(1).ok_or(ListingError::Contradiction)?;
        }
        if let Some(details) = row.details {
            if was_known && !self.details.agree(place, &details) {
                return Err(ListingError::Changed);
            }
            self.details.learn(place, *details)?;
        }
        Ok(())
    }

    /// EXISTS: there are `exists` messages now. Fewer come about by EXPUNGE only.
    pub fn exists(&mut self, exists: u32) -> Result<(), ListingError> {
        if exists < self.exists {
            return Err(ListingError::Contradiction);
        }
        if exists > self.most {
            return Err(ListingError::TooMany);
        }
        self.exists = exists;
        Ok(())
    }

    /// EXPUNGE: message `seq` is gone, those behind it move up.
    pub fn expunge(&mut self, seq: u32) -> Result<(), ListingError> {
        if seq == 0 || seq > self.exists {
            return Err(ListingError::NoSuchMessage);
        }
        self.exists -= 1;
        if seq <= self.due {
            let place = self.place(seq);
            if let (Some(by_uid), Some(uid)) = (&mut self.by_uid, self.uids.get(place)) {
                by_uid.remove(uid);
            }
            self.remove(place);
        }
        Ok(())
    }

    /// VANISHED without `EARLIER` (RFC 7162 §3.2.10.2): the messages with these
    /// UIDs are gone, those behind each move up.
    pub fn vanished(&mut self, uids: &[RangeInclusive<u32>]) -> Result<(), ListingError> {
        for range in uids {
            if u64::from(range.end() - range.start()) >= self.exists.into() {
                return Err(ListingError::NoSuchMessage);
            }
            for uid in range.clone() {
                self.vanish(uid)?;
            }
        }
        Ok(())
    }

    fn vanish(&mut self, uid: u32) -> Result<(), ListingError> {
        let left = self.exists.checked_sub(1);
        self.exists = left.ok_or(ListingError::NoSuchMessage)?;
        let mut by_uid = self.by_uid.take().unwrap_or_else(|| self.listed());
        let place = by_uid.remove(&uid);
        self.by_uid = Some(by_uid);
        match place {
            Some(place) => self.remove(place),
            // Nobody has told yet which one that is, unless it came later.
            None if self.exists < self.due => return Err(ListingError::Unclear),
            None if self.untold > 0 => return Err(ListingError::Unclear),
            None => {}
        }
        Ok(())
    }

    /// The places of all messages that are there and have a UID.
    fn listed(&self) -> HashMap<u32, usize> {
        let places = (1..=self.due).map(|seq| self.place(seq));
        let listed = places.filter_map(|place| Some((*self.uids.get(place)?, place)));
        listed.filter(|(uid, _)| *uid != 0).collect()
    }

    /// What was at this place is gone.
    fn remove(&mut self, place: usize) {
        let due = u32::try_from(self.uids.len()).unwrap_or(u32::MAX);
        self.places
            .get_or_insert_with(|| Places::all(due))
            .remove(place);
        self.due -= 1;
    }

    /// The messages by ascending UID, if all that are due were named.
    pub fn finish(self) -> Result<(Vec<Entry>, Details), ListingError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(self.due as usize);
        let mut total: u64 = 0;
        for seq in 1..=self.due {
            let place = self.place(seq);
            let uid = self.uids.get(place).copied().filter(|uid| *uid != 0);
            let octets = self.sizes.get(place).and_then(|size| size.checked_sub(1));
            let (Some(uid), Some(octets)) = (uid, octets) else {
                return Err(ListingError::Incomplete);
            };
            // STAT adds them up.
            total = total
                .checked_add(octets)
                .ok_or(ListingError::Contradiction)?;
            let place = u32::try_from(place).map_err(|_| ListingError::TooMany)?;
            entries.push(Entry { uid, place, octets });
        }
        entries.sort_unstable_by_key(|entry| entry.uid);
        if entries.windows(2).any(|pair| pair[0].uid == pair[1].uid) {
            return Err(ListingError::Contradiction);
        }
        Ok((entries, self.details))
    }

    /// The place of the message that has the number `seq` now, from 0.
    fn place(&self, seq: u32) -> usize {
        match &self.places {
            None => seq as usize - 1,
            Some(places) => places.of(seq),
        }
    }
}

/// What is known at a place, if it is.
fn known<T>(slots: &[Option<T>], place: usize) -> Option<&T> {
    slots.get(place).and_then(Option::as_ref)
}

/// The places that are still there, counted in a binary indexed tree: an
/// EXPUNGE costs as little in a large mailbox as in a small one.
#[derive(Debug)]
struct Places(Vec<u32>);

impl Places {
    fn all(count: u32) -> Self {
        // A node counts as many places as its index has in its lowest bit.
        Self((0..=count).map(|at| at & at.wrapping_neg()).collect())
    }

    /// The place, from 0, of the `seq`-th that is there.
    fn of(&self, seq: u32) -> usize {
        let mut left = seq;
        let mut at = 0;
        let mut step = self.0.len().next_power_of_two();
        while step > 0 {
            if let Some(count) = self.0.get(at + step)
                && *count < left
            {
                left -= count;
                at += step;
            }
            step /= 2;
        }
        at
    }

    /// Takes out a place that is there.
    fn remove(&mut self, place: usize) {
        let mut at = place + 1;
        while let Some(count) = self.0.get_mut(at) {
            *count = count.saturating_sub(1);
            at += at & at.wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests;
