//! The listing of a mailbox, held to EXISTS: it is whole, or it is an error.
//! Pure.

use std::num::NonZeroU64;

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
    /// RFC822.SIZE by place, plus one; 0 where none came yet.
    sizes: Vec<u64>,
    /// Which places are still there, once something was expunged.
    places: Option<Places>,
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
    fn new(exists: u32, needs: Needs) -> Self {
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

    fn learn(&mut self, place: usize, told: fetch::Details) -> Result<(), ListingError> {
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
fn arrival_as_stored(arrival: i64) -> u64 {
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
            sizes: vec![0; exists as usize],
            places: None,
            details: Details::new(exists, needs),
        }
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
        if let Some(uid) = row.uid {
            if *known != 0 && *known != uid {
                return Err(ListingError::Contradiction);
            }
            *known = uid;
        }
        if let Some(octets) = row.octets {
            *size = octets.checked_add(1).ok_or(ListingError::Contradiction)?;
        }
        if let Some(details) = row.details {
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
            let due = self.due;
            self.places
                .get_or_insert_with(|| Places::all(due))
                .remove(seq);
            self.due -= 1;
        }
        Ok(())
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

    /// Takes out the `seq`-th that is there.
    fn remove(&mut self, seq: u32) {
        let mut at = self.of(seq) + 1;
        while let Some(count) = self.0.get_mut(at) {
            *count = count.saturating_sub(1);
            at += at & at.wrapping_neg();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listing(exists: u32) -> Listing {
        Listing::new(exists, 1000, Needs::default())
    }

    fn row(seq: u32, uid: u32) -> Row {
        Row {
            seq,
            uid: Some(uid),
            octets: Some(100 + u64::from(uid)),
            ..Row::default()
        }
    }

    fn uids(listing: Listing) -> Result<Vec<u32>, ListingError> {
        Ok(listing.finish()?.0.iter().map(|entry| entry.uid).collect())
    }

    #[test]
    fn rows_in_any_order_give_the_mailbox_by_uid() {
        let mut listing = listing(3);
        for it in [row(3, 9), row(1, 4), row(2, 7)] {
            listing.row(it).unwrap();
        }
        assert_eq!(uids(listing), Ok(vec![4, 7, 9]));
    }

    #[test]
    fn a_missing_row_is_an_error() {
        for missing in 1..=3 {
            let mut listing = listing(3);
            for seq in (1..=3).filter(|seq| *seq != missing) {
                listing.row(row(seq, seq)).unwrap();
            }
            assert_eq!(uids(listing), Err(ListingError::Incomplete));
        }
    }

    #[test]
    fn an_expunge_meanwhile_moves_the_rows() {
        let mut listing = listing(3);
        listing.row(row(1, 4)).unwrap();
        listing.expunge(1).unwrap();
        listing.row(row(1, 7)).unwrap();
        listing.row(row(2, 9)).unwrap();
        assert_eq!(uids(listing), Ok(vec![7, 9]));
    }

    #[test]
    fn mail_that_arrives_meanwhile_may_be_missing() {
        let mut listing = listing(1);
        listing.row(row(1, 4)).unwrap();
        listing.exists(3).unwrap();
        listing.row(row(3, 9)).unwrap();
        assert_eq!(uids(listing), Ok(vec![4]));
    }

    #[test]
    fn contradictions_are_errors() {
        let mut twice = listing(2);
        twice.row(row(1, 4)).unwrap();
        twice.row(row(2, 4)).unwrap();
        assert_eq!(uids(twice), Err(ListingError::Contradiction));
        let mut changed = listing(1);
        changed.row(row(1, 4)).unwrap();
        assert_eq!(changed.row(row(1, 5)), Err(ListingError::Contradiction));
        assert_eq!(listing(1).row(row(2, 4)), Err(ListingError::NoSuchMessage));
        assert_eq!(listing(1).row(row(0, 4)), Err(ListingError::NoSuchMessage));
        assert_eq!(listing(2).exists(1), Err(ListingError::Contradiction));
        assert_eq!(listing(2).expunge(3), Err(ListingError::NoSuchMessage));
    }

    #[test]
    fn news_of_flags_neither_helps_nor_hurts() {
        let mut listing = listing(1);
        listing
            .row(Row {
                seq: 1,
                flags: Some(fetch::Flags::default()),
                ..Row::default()
            })
            .unwrap();
        listing.row(row(1, 4)).unwrap();
        listing
            .row(Row {
                seq: 1,
                uid: Some(4),
                ..Row::default()
            })
            .unwrap();
        assert_eq!(uids(listing), Ok(vec![4]));
    }

    fn detailed(seq: u32, uid: u32, details: fetch::Details) -> Row {
        Row {
            details: Some(Box::new(details)),
            ..row(seq, uid)
        }
    }

    #[test]
    fn details_belong_to_their_messages() {
        let needs = Needs {
            arrival: true,
            guid: true,
            gmail_id: true,
            ..Needs::default()
        };
        let mut listing = Listing::new(3, 1000, needs);
        for (seq, uid) in [(1, 9), (2, 4), (3, 7)] {
            let details = fetch::Details {
                arrival: Some(i64::from(uid) - 7),
                guid: (uid != 4).then(|| format!("guid{uid}").into()),
                email_id: Some("not asked for".into()),
                gmail_id: Some(u64::from(uid)),
            };
            listing.row(detailed(seq, uid, details)).unwrap();
        }
        listing.expunge(1).unwrap();
        let (entries, details) = listing.finish().unwrap();
        let told = |entry: &Entry| {
            let place = entry.place;
            (
                details.arrival(place),
                details.guid(place),
                details.gmail_id(place),
            )
        };
        let told: Vec<_> = entries.iter().map(told).collect();
        assert_eq!(
            told,
            [(Some(-3), None, Some(4)), (Some(0), Some("guid7"), Some(7))]
        );
        assert_eq!(details.email_id(0), None);
    }

    #[test]
    fn ids_do_not_grow_without_bound() {
        let needs = Needs {
            email_id: true,
            ..Needs::default()
        };
        let mut listing = Listing::new(1_000_000, 1_000_000, needs);
        listing.details.octets_left = 500;
        let mut learn = |seq: u32| {
            let details = fetch::Details {
                email_id: Some("x".repeat(200).into()),
                ..fetch::Details::default()
            };
            listing.row(detailed(seq, seq, details))
        };
        // The same once more costs nothing.
        assert_eq!([1, 2, 1, 2].map(&mut learn), [Ok(()); 4]);
        assert_eq!(learn(3), Err(ListingError::TooMany));
    }

    #[test]
    fn a_mailbox_does_not_grow_without_bound() {
        assert_eq!(listing(1).exists(u32::MAX), Err(ListingError::TooMany));
    }

    #[test]
    fn sizes_that_do_not_add_up() {
        let mut listing = listing(2);
        for seq in 1..=2 {
            let octets = Some(u64::MAX - 1);
            listing
                .row(Row {
                    octets,
                    ..row(seq, seq)
                })
                .unwrap();
        }
        assert_eq!(uids(listing), Err(ListingError::Contradiction));
    }

    /// What a client that keeps a plain list would do.
    #[derive(Default)]
    struct Plain {
        uids: Vec<u32>,
        due: usize,
    }

    proptest! {
        #[test]
        fn expunges_and_arrivals_at_any_time(
            exists in 1u32..40,
            steps in prop::collection::vec((any::<bool>(), 0u32..80), 0..80),
        ) {
            let mut listing = listing(exists);
            let mut plain = Plain { uids: (1..=exists).collect(), due: exists as usize };
            let mut next_uid = exists + 1;
            for (expunge, choice) in steps {
                let count = plain.uids.len() as u32;
                if expunge && count > 0 {
                    let at = (choice % count) as usize;
                    listing.expunge(at as u32 + 1).unwrap();
                    plain.uids.remove(at);
                    plain.due -= usize::from(at < plain.due);
                } else {
                    plain.uids.push(next_uid);
                    next_uid += 1;
                    listing.exists(count + 1).unwrap();
                }
                // A row now and then, by its number of the moment.
                if let Some(uid) = plain.uids.get(choice as usize) {
                    listing.row(row(choice + 1, *uid)).unwrap();
                }
            }
            for (at, uid) in plain.uids.iter().enumerate() {
                listing.row(row(at as u32 + 1, *uid)).unwrap();
            }
            prop_assert_eq!(uids(listing).unwrap(), plain.uids[..plain.due].to_vec());
        }
    }
}
