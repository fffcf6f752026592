//! What the fuzz target `imap_framing` drives: the way of a server's octets as
//! far as it is pure.

use std::collections::VecDeque;

use async_imap::imap_proto::{MailboxDatum, Response};
use bytes::{Bytes, BytesMut};

use super::config::Limits;
use super::framing::{Data, Framer, Item, WireError};
use super::listing::{Listing, Needs};
use super::status::Status;

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
