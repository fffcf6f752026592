//! The listing of a folder, packed: what is known of it from one login to the
//! next. Pure.
//!
//! About five octets a message, in blocks of some thousand messages: what arrives
//! or goes touches the blocks that it is in. A block is known by the lowest UID
//! that belongs there, and reaches to the next.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::listing::{Details, Entry, Needs};
use crate::upstream::snapshots::Snapshot;

mod packing;

use packing::{FULL, Packed, Row, Rows, pack, put, take};

/// Neighbours that have no more together become one.
const SMALL: usize = FULL / 2;

/// The form of the head and of the blocks.
const FORM: u8 = 1;

/// The state of a folder that a listing shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub uid_validity: u32,
    /// UIDNEXT, where it was told.
    pub uid_next: Option<u32>,
    /// HIGHESTMODSEQ (RFC 7162 §3.1.2.1), where it was told.
    pub highest_modseq: Option<u64>,
}

/// A folder as it was at some point: all of its messages, those that are not
/// shown included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub point: Point,
    needs: Needs,
    count: u32,
    /// By the lowest UID that belongs there.
    blocks: BTreeMap<u32, Packed>,
}

impl Known {
    /// Packs a whole listing, whose UIDs ascend. `None`: it is none.
    pub fn new(point: Point, needs: Needs, entries: &[Entry], details: &Details) -> Option<Self> {
        let nothing = Self {
            point,
            needs,
            count: 0,
            blocks: BTreeMap::new(),
        };
        nothing.with(entries, details, &[])
    }

    /// How many messages there are.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// What is known of them beside UID and size.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// The last message's UID; 0 where there is none.
    pub fn highest_uid(&self) -> u32 {
        let last = self.blocks.iter().next_back();
        let last = last.and_then(|(first, block)| self.rows(*first, block).last());
        last.map_or(0, |row| row.uid)
    }

    /// The UID of the message with this number, from 1, at [`Known::point`].
    pub fn uid_at(&self, seq: u32) -> Option<u32> {
        let mut before = seq.checked_sub(1)?;
        for (first, block) in &self.blocks {
            if before < block.count {
                let row = self.rows(*first, block).nth(before as usize);
                return row.map(|row| row.uid);
            }
            before -= block.count;
        }
        None
    }

    /// RFC822.SIZE of a message in octets.
    #[cfg(any(test, fuzzing))]
    pub fn size_of(&self, uid: u32) -> Option<u64> {
        let (first, block) = self.blocks.range(..=uid).next_back()?;
        let row = self.rows(*first, block).find(|row| row.uid >= uid)?;
        (row.uid == uid).then_some(row.octets)
    }

    /// The listing as it was, by ascending UID. `None`: more is told of the
    /// messages than a listing takes.
    pub fn listing(&self) -> Option<(Vec<Entry>, Details)> {
        let mut entries = Vec::with_capacity(self.count as usize);
        let mut details = Details::new(self.count, self.needs);
        for (first, block) in &self.blocks {
            for row in self.rows(*first, block) {
                let place = u32::try_from(entries.len()).ok()?;
                let (uid, octets) = (row.uid, row.octets);
                entries.push(Entry { uid, place, octets });
                if self.needs != Needs::default() {
                    details.learn(place as usize, row.details).ok()?;
                }
            }
        }
        Some((entries, details))
    }

    /// The same folder with the messages in `new`, whose UIDs ascend, and without
    /// those in `removed`: a UID that has gone never comes back (RFC 3501
    /// §2.3.1.1). `None`: that is no folder.
    pub fn with(
        &self,
        new: &[Entry],
        details: &Details,
        removed: &[RangeInclusive<u32>],
    ) -> Option<Self> {
        if new.first().is_some_and(|entry| entry.uid == 0)
            || new.windows(2).any(|pair| pair[0].uid >= pair[1].uid)
        {
            return None;
        }
        let removed = joined(removed);
        let mut blocks = self.blocks.clone();
        for (first, last) in self.reaches() {
            let new = within(new, first, last);
            if new.is_empty() && !overlap(&removed, first, last) {
                continue;
            }
            let old = blocks.remove(&first);
            let old = old.iter().flat_map(|block| self.rows(first, block));
            let old = old.filter(|row| new.binary_search_by_key(&row.uid, |it| it.uid).is_err());
            let new = new.iter().map(|entry| Row::new(entry, details));
            let rows = merged(old, new).filter(|row| !overlap(&removed, row.uid, row.uid));
            blocks.extend(pack(first, rows, self.needs)?);
        }
        self.join_small(&mut blocks)?;
        Self::of_blocks(self.point, self.needs, blocks)
    }

    /// What was packed, as it is kept.
    pub fn snapshot(&self) -> Snapshot {
        let mut head = vec![FORM, needs_octet(self.needs)];
        let point = self.point;
        put(&mut head, point.uid_validity.into());
        put(&mut head, point.uid_next.unwrap_or(0).into());
        put(&mut head, point.highest_modseq.unwrap_or(0));
        put(&mut head, self.count.into());
        let blocks = self.blocks.iter();
        Snapshot {
            head: head.into(),
            blocks: blocks.map(|(at, it)| (*at, it.rows.clone())).collect(),
        }
    }

    /// Reads what was kept. `None`: it is no such thing.
    pub fn read(snapshot: &Snapshot) -> Option<Self> {
        let (&[form, needs], mut head) = snapshot.head.split_first_chunk()?;
        if form != FORM {
            return None;
        }
        let needs = needs_of(needs)?;
        let mut number = || take(&mut head);
        let point = Point {
            uid_validity: u32::try_from(number()?).ok()?,
            uid_next: u32::try_from(number()?)
                .ok()
                .map(|it| (it != 0).then_some(it))?,
            highest_modseq: Some(number()?).filter(|it| *it != 0),
        };
        let count = number()?;
        let mut blocks = BTreeMap::new();
        let mut next = snapshot.blocks.keys().skip(1);
        for (first, block) in &snapshot.blocks {
            let last = next.next().map_or(u32::MAX, |next| next - 1);
            blocks.insert(*first, Packed::read(*first, last, block, needs)?);
        }
        let known = Self::of_blocks(point, needs, blocks)?;
        (head.is_empty() && u64::from(known.count) == count).then_some(known)
    }

    /// Where blocks begin and end, from 0 to the highest of all UIDs.
    fn reaches(&self) -> Vec<(u32, u32)> {
        let mut firsts: Vec<u32> = self.blocks.keys().copied().collect();
        if firsts.first() != Some(&0) {
            firsts.insert(0, 0);
        }
        let lasts = firsts.iter().skip(1).map(|next| next - 1);
        let lasts: Vec<u32> = lasts.chain([u32::MAX]).collect();
        firsts.into_iter().zip(lasts).collect()
    }

    fn rows<'a>(&self, first: u32, block: &'a Packed) -> Rows<'a> {
        Rows::new(first, &block.rows, self.needs)
    }

    /// Makes one block of neighbours that are small together.
    fn join_small(&self, blocks: &mut BTreeMap<u32, Packed>) -> Option<()> {
        let mut before: Option<(u32, usize)> = None;
        for at in blocks.keys().copied().collect::<Vec<u32>>() {
            let octets = blocks.get(&at)?.rows.octets().len();
            before = match before {
                Some((first, others)) if others + octets <= SMALL => {
                    let left = blocks.remove(&first)?;
                    let right = blocks.remove(&at)?;
                    let rows = self.rows(first, &left).chain(self.rows(at, &right));
                    blocks.extend(pack(first, rows, self.needs)?);
                    Some((first, others + octets))
                }
                _ => Some((at, octets)),
            };
        }
        Some(())
    }

    fn of_blocks(point: Point, needs: Needs, blocks: BTreeMap<u32, Packed>) -> Option<Self> {
        let mut count: u32 = 0;
        let mut octets: u64 = 0;
        for block in blocks.values() {
            count = count.checked_add(block.count)?;
            // STAT adds them up.
            octets = octets.checked_add(block.octets)?;
        }
        Some(Self {
            point,
            needs,
            count,
            blocks,
        })
    }
}

fn needs_octet(needs: Needs) -> u8 {
    let Needs {
        arrival,
        guid,
        email_id,
        gmail_id,
    } = needs;
    [arrival, guid, email_id, gmail_id]
        .iter()
        .rev()
        .fold(0, |octet, need| octet << 1 | u8::from(*need))
}

fn needs_of(octet: u8) -> Option<Needs> {
    let needs = Needs {
        arrival: octet & 1 != 0,
        guid: octet & 2 != 0,
        email_id: octet & 4 != 0,
        gmail_id: octet & 8 != 0,
    };
    (needs_octet(needs) == octet).then_some(needs)
}

/// The entries with UIDs from `first` to `last`, of those that ascend.
fn within(entries: &[Entry], first: u32, last: u32) -> &[Entry] {
    let from = entries.partition_point(|entry| entry.uid < first);
    let to = entries.partition_point(|entry| entry.uid <= last);
    entries.get(from..to).unwrap_or_default()
}

/// Both in the order of their UIDs, of which none is in both. One by one: all rows
/// of a large folder take much memory at once.
fn merged(
    one: impl Iterator<Item = Row>,
    other: impl Iterator<Item = Row>,
) -> impl Iterator<Item = Row> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if first.uid < second.uid => one.next(),
        (_, Some(_)) => other.next(),
        (_, None) => one.next(),
    })
}

/// The ranges in order, those that meet as one.
fn joined(ranges: &[RangeInclusive<u32>]) -> Vec<RangeInclusive<u32>> {
    let mut ranges = ranges.to_vec();
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| *range.start());
    ranges.dedup_by(|next, kept| {
        let meet = *next.start() <= kept.end().saturating_add(1);
        if meet && next.end() > kept.end() {
            *kept = *kept.start()..=*next.end();
        }
        meet
    });
    ranges
}

/// Whether one of the joined ranges has a UID from `first` to `last`.
fn overlap(ranges: &[RangeInclusive<u32>], first: u32, last: u32) -> bool {
    let behind = ranges.partition_point(|range| *range.end() < first);
    ranges
        .get(behind)
        .is_some_and(|range| *range.start() <= last)
}

#[cfg(test)]
mod tests;
