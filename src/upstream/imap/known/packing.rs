//! How messages are packed into blocks: each row as what it has more than the one
//! before it.

use super::super::fetch;
use super::super::listing::{Details, Entry, Needs, arrival_as_stored};
use crate::upstream::snapshots::Block;

/// The most octets of a block.
pub(super) const FULL: usize = Block::FULL;

/// A block, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub count: u32,
    /// RFC822.SIZE of all.
    pub octets: u64,
    pub rows: Block,
}

/// A message as it is packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub uid: u32,
    pub octets: u64,
    pub details: fetch::Details,
}

/// Packs rows into blocks, the first of which begins at `first`.
pub(super) fn pack(
    first: u32,
    rows: impl Iterator<Item = Row>,
    needs: Needs,
) -> Option<Vec<(u32, Packed)>> {
    let mut blocks = Vec::new();
    let mut packing = Packing::new(first);
    for row in rows {
        let whole = packing.octets.len();
        packing.row(&row, needs)?;
        if packing.octets.len() > FULL && whole > 0 {
            let mut next = Packing::new(row.uid);
            next.row(&row, needs)?;
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

    fn finish(mut self) -> (u32, Packed) {
        self.octets.shrink_to_fit();
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
    pub fn read(first: u32, last: u32, block: &Block, needs: Needs) -> Option<Self> {
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
    pub fn new(entry: &Entry, details: &Details) -> Self {
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
pub(super) struct Rows<'a> {
    left: &'a [u8],
    before: Before,
    needs: Needs,
}

impl<'a> Rows<'a> {
    pub fn new(first: u32, block: &'a Block, needs: Needs) -> Self {
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

/// Seven bits an octet, the lowest first; all but the last have the eighth set.
pub(super) fn put(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    to.push(number.to_le_bytes()[0]);
}

pub(super) fn take(from: &mut &[u8]) -> Option<u64> {
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
pub(super) fn zigzag(distance: u64) -> u64 {
    let sign = distance.cast_signed() >> 63;
    (distance << 1) ^ sign.cast_unsigned()
}

pub(super) fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}
