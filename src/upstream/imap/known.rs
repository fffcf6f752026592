//! The listing of a folder, packed: what is known of it from one login to the
//! next. Pure.
//!
//! About five octets a message, in blocks of some thousand messages: what arrives
//! or goes touches the blocks that it is in. A block is known by the lowest UID
//! that belongs there, and reaches to the next.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::fetch;
use super::listing::{Details, Entry, Needs, arrival_as_stored};
use crate::upstream::snapshots::{Block, Snapshot};

/// The most octets of a block.
const FULL: usize = Block::FULL;
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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed {
    count: u32,
    octets: u64,
    rows: Block,
}

/// A message as it is packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    uid: u32,
    octets: u64,
    details: fetch::Details,
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
            let mut rows: Vec<Row> = old
                .iter()
                .flat_map(|block| self.rows(first, block))
                .filter(|row| new.binary_search_by_key(&row.uid, |it| it.uid).is_err())
                .chain(new.iter().map(|entry| Row::new(entry, details)))
                .filter(|row| !overlap(&removed, row.uid, row.uid))
                .collect();
            rows.sort_unstable_by_key(|row| row.uid);
            blocks.extend(pack(first, &rows, self.needs)?);
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
                    let rows: Vec<Row> = rows.collect();
                    blocks.extend(pack(first, &rows, self.needs)?);
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

/// Packs rows into blocks, the first of which begins at `first`.
fn pack(first: u32, rows: &[Row], needs: Needs) -> Option<Vec<(u32, Packed)>> {
    let mut blocks = Vec::new();
    let mut packing = Packing::new(first);
    for row in rows {
        let whole = packing.octets.len();
        packing.row(row, needs)?;
        if packing.octets.len() > FULL && whole > 0 {
            let mut next = Packing::new(row.uid);
            next.row(row, needs)?;
            let full = std::mem::replace(&mut packing, next);
            blocks.push(full.cut(whole, row.octets));
        }
    }
    if packing.count > 0 {
        blocks.push(packing.finish());
    }
    Some(blocks)
}

/// A block that is being packed.
struct Packing {
    first: u32,
    octets: Vec<u8>,
    before: Before,
    count: u32,
    /// RFC822.SIZE of all.
    sizes: u64,
}

impl Packing {
    fn new(first: u32) -> Self {
        Self {
            first,
            octets: Vec::new(),
            before: Before::block(first),
            count: 0,
            sizes: 0,
        }
    }

    fn row(&mut self, row: &Row, needs: Needs) -> Option<()> {
        let Self { octets, before, .. } = self;
        put(octets, u64::from(row.uid).checked_sub(before.next)?);
        put(octets, row.octets);
        before.next = u64::from(row.uid) + 1;
        let details = &row.details;
        if needs.arrival {
            let arrival = details.arrival.map_or(0, arrival_as_stored);
            put(octets, zigzag(arrival.wrapping_sub(before.arrival)));
            before.arrival = arrival;
        }
        for (needed, id) in [
            (needs.guid, &details.guid),
            (needs.email_id, &details.email_id),
        ] {
            if needed {
                let id = id.as_deref().unwrap_or_default();
                put(octets, id.len() as u64);
                octets.extend(id.as_bytes());
            }
        }
        if needs.gmail_id {
            put(octets, details.gmail_id.unwrap_or(0));
        }
        self.count += 1;
        self.sizes = self.sizes.checked_add(row.octets)?;
        Some(())
    }

    /// Without its last row, which begins at `whole`.
    fn cut(mut self, whole: usize, size: u64) -> (u32, Packed) {
        self.octets.truncate(whole);
        self.count -= 1;
        self.sizes -= size;
        self.finish()
    }

    fn finish(self) -> (u32, Packed) {
        let packed = Packed {
            count: self.count,
            octets: self.sizes,
            rows: Block::new(self.octets),
        };
        (self.first, packed)
    }
}

impl Packed {
    /// A block that reaches from `first` to `last`, if it is one.
    fn read(first: u32, last: u32, block: &Block, needs: Needs) -> Option<Self> {
        let mut rows = Rows::new(first, block, needs);
        let mut count: u32 = 0;
        let mut octets: u64 = 0;
        for row in &mut rows {
            if row.uid > last {
                return None;
            }
            count = count.checked_add(1)?;
            octets = octets.checked_add(row.octets)?;
        }
        // It stops at what is no row.
        (rows.left.is_empty() && count > 0).then(|| Self {
            count,
            octets,
            rows: block.clone(),
        })
    }
}

impl Row {
    fn new(entry: &Entry, details: &Details) -> Self {
        let place = entry.place;
        Self {
            uid: entry.uid,
            octets: entry.octets,
            details: fetch::Details {
                arrival: details.arrival(place),
                guid: details.guid(place).map(Box::from),
                email_id: details.email_id(place).map(Box::from),
                gmail_id: details.gmail_id(place),
            },
        }
    }
}

/// What a row is told apart from: the one before it.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// The lowest UID that may follow.
    next: u64,
    /// As stored.
    arrival: u64,
}

impl Before {
    fn block(first: u32) -> Self {
        Self {
            next: first.max(1).into(),
            arrival: arrival_as_stored(0),
        }
    }
}

/// The rows of a block, as far as they are some.
struct Rows<'a> {
    left: &'a [u8],
    before: Before,
    needs: Needs,
}

impl<'a> Rows<'a> {
    fn new(first: u32, block: &'a Block, needs: Needs) -> Self {
        Self {
            left: block.octets(),
            before: Before::block(first),
            needs,
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let Self {
            mut left,
            mut before,
            needs,
        } = *self;
        let from = &mut left;
        let uid = u32::try_from(before.next.checked_add(take(from)?)?).ok()?;
        before.next = u64::from(uid) + 1;
        let octets = take(from)?;
        let mut details = fetch::Details::default();
        if needs.arrival {
            before.arrival = before.arrival.wrapping_add(unzigzag(take(from)?));
            let arrival = Some(before.arrival).filter(|stored| *stored != 0);
            let arrival = arrival.map(|stored| arrival_as_stored(stored.cast_signed()));
            details.arrival = arrival.map(u64::cast_signed);
        }
        if needs.guid {
            details.guid = take_id(from)?;
        }
        if needs.email_id {
            details.email_id = take_id(from)?;
        }
        if needs.gmail_id {
            details.gmail_id = Some(take(from)?).filter(|id| *id != 0);
        }
        (self.left, self.before) = (left, before);
        Some(Row {
            uid,
            octets,
            details,
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

/// Seven bits an octet, the lowest first; all but the last have the eighth set.
fn put(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for (place, octet) in from.iter().enumerate().take(10) {
        let bits = u64::from(octet & 0x7f);
        let shifted = bits << (7 * place);
        if shifted >> (7 * place) != bits {
            return None;
        }
        number |= shifted;
        if octet & 0x80 == 0 {
            *from = from.get(place + 1..)?;
            return Some(number);
        }
    }
    None
}

/// An id behind its length; none has no octets.
fn take_id(from: &mut &[u8]) -> Option<Option<Box<str>>> {
    let length = usize::try_from(take(from)?).ok()?;
    let (id, rest) = from.split_at_checked(length)?;
    *from = rest;
    let id = std::str::from_utf8(id).ok()?;
    Some((!id.is_empty()).then(|| id.into()))
}

/// Small distances in both directions as small numbers.
fn zigzag(distance: u64) -> u64 {
    let sign = distance.cast_signed() >> 63;
    (distance << 1) ^ sign.cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// The entries with UIDs from `first` to `last`, of those that ascend.
fn within(entries: &[Entry], first: u32, last: u32) -> &[Entry] {
    let from = entries.partition_point(|entry| entry.uid < first);
    let to = entries.partition_point(|entry| entry.uid <= last);
    entries.get(from..to).unwrap_or_default()
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
