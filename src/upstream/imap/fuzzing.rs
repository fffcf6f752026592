//! What the fuzz targets `imap_framing` and `known` drive: the way of a server's
//! octets as far as it is pure, and what was kept of a listing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use async_imap::imap_proto::{MailboxDatum, Response};
use bytes::{Bytes, BytesMut};

use super::config::Limits;
use super::framing::{Data, Framer, Item, WireError};
use super::known::Known;
use super::listing::{Entry, Listing, Needs};
use super::status::Status;
use crate::upstream::snapshots::{Block, Snapshot};

const LIMITS: Limits = Limits {
    literal: 1000,
    line: 2000,
    messages: 1000,
};

/// Frames `octets` as a whole and in pieces of `size`, which must come to the
/// same, and reads the outcome as the connection would.
///
/// # Panics
///
/// Where it does not hold what it should.
pub fn frame(octets: &[u8], size: usize) {
    let whole = items(std::iter::once(octets));
    let pieces = items(octets.chunks(size.max(1)));
    assert_eq!(whole, pieces);
    let all = size % 2 == 0;
    let needs = Needs {
        arrival: all,
        guid: all,
        email_id: all,
        gmail_id: all,
    };
    let mut listing = Listing::new(3, LIMITS.messages, needs);
    for item in whole.unwrap_or_default() {
        match item {
            Item::Vetted(response) => decode(&response, &mut listing),
            Item::Data(Data::Row(row)) => drop(listing.row(row)),
            Item::Data(_) => {}
        }
    }
    drop(listing.finish());
}

fn items<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Item>, WireError> {
    let mut framer = Framer::new(LIMITS);
    let mut inbound = BytesMut::new();
    let mut items = VecDeque::new();
    for piece in pieces {
        inbound.extend_from_slice(piece);
        framer.advance(&mut inbound, &mut items)?;
    }
    // Where a body is cut into chunks depends on the pieces.
    let mut joined: Vec<Item> = Vec::new();
    for item in items {
        if let (Some(Item::Data(Data::Chunk(before))), Item::Data(Data::Chunk(chunk))) =
            (joined.last_mut(), &item)
        {
            *before = Bytes::from([&before[..], &chunk[..]].concat());
        } else {
            joined.push(item);
        }
    }
    Ok(joined)
}

/// The decoder may refuse what it is shown, but uses up what it takes.
fn decode(response: &[u8], listing: &mut Listing) {
    let Ok((rest, response)) = Response::parse(response) else {
        return;
    };
    assert!(rest.is_empty());
    match &response {
        Response::Done {
            status, outcome, ..
        }
        | Response::Data { status, outcome } => {
            let status = Status::new(status, outcome);
            drop((status.login_refusal(), status.refusal("")));
        }
        Response::Expunge(seq) => drop(listing.expunge(*seq)),
        Response::MailboxData(MailboxDatum::Exists(exists)) => drop(listing.exists(*exists)),
        _ => {}
    }
}

/// Reads a kept listing from octets, and changes it: it is refused, or it stays a
/// listing. The octets are `head`, then blocks: number, length, rows; then ranges
/// of UIDs that have gone.
///
/// # Panics
///
/// Where it does not hold what it should.
pub fn known(octets: &[u8]) {
    let mut from = Octets(octets);
    let head = from.some();
    let mut blocks = BTreeMap::new();
    for _ in 0..from.number() % 5 {
        let place = from.number();
        blocks.insert(place, Block::new(from.some()));
    }
    let head = head.into();
    let Some(known) = Known::read(&Snapshot { head, blocks }) else {
        return;
    };
    let before = consistent(&known);
    let gone: Vec<RangeInclusive<u32>> = (0..from.number() % 5)
        .map(|_| {
            let first = from.number();
            first..=first.saturating_add(from.number() % 100)
        })
        .collect();
    let Some((entries, details)) = known.listing() else {
        return;
    };
    // Some of the messages as if they were told of once more.
    let again = entries.get(entries.len() / 2..).unwrap_or_default();
    let Some(changed) = known.with(again, &details, &gone) else {
        panic!("the same messages are a folder")
    };
    let mut expected = before;
    expected.retain(|(uid, _)| !gone.iter().any(|range| range.contains(uid)));
    assert_eq!(consistent(&changed), expected);
}

/// UIDs and sizes, if all that can be asked agrees.
fn consistent(known: &Known) -> Vec<(u32, u64)> {
    assert_eq!(Known::read(&known.snapshot()).as_ref(), Some(known));
    let (entries, _) = known.listing().unwrap_or_else(|| {
        panic!("so few octets hold no more ids than a listing takes");
    });
    assert_eq!(entries.len(), known.len() as usize);
    let last = entries.last().map_or(0, |entry| entry.uid);
    assert_eq!(known.highest_uid(), last);
    for (seq, Entry { uid, octets, .. }) in (1..).zip(&entries) {
        assert_eq!(known.uid_at(seq), Some(*uid));
        assert_eq!(known.size_of(*uid), Some(*octets));
    }
    assert!(entries.windows(2).all(|pair| pair[0].uid < pair[1].uid));
    let rows = entries.iter().map(|entry| (entry.uid, entry.octets));
    rows.collect()
}

/// Numbers and strings of octets; behind the end there are none.
struct Octets<'a>(&'a [u8]);

impl Octets<'_> {
    fn number(&mut self) -> u32 {
        let number = self.0.split_first_chunk();
        self.0 = number.map_or(&[], |(_, rest)| rest);
        number.map_or(0, |(number, _)| u32::from_be_bytes(*number))
    }

    fn some(&mut self) -> Vec<u8> {
        let Some((length, rest)) = self.0.split_first() else {
            return Vec::new();
        };
        let (some, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        self.0 = rest;
        some.to_vec()
    }
}
