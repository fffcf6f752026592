//! What an IMAP server sends, cut into responses and literals. Pure: octets in,
//! [`Item`]s out, whatever the slices in which the octets arrive.
//!
//! Three kinds of responses are told apart by their first words:
//! - FETCH, SEARCH and ESEARCH carry what popgate maps: they are read here.
//! - Those the decoder (async-imap) is to understand: status responses,
//!   capabilities, EXISTS, EXPUNGE, LIST, continuations. They are vetted: whole,
//!   bounded, printable ASCII.
//! - All others. A client must be ready for any of them at any time (RFC 3501
//!   §2.2.2) and popgate has no use for them: they are dropped.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use super::config::Limits;
use super::fetch::{BodyStart, Fetch, LiteralUse, Row, announced, number};

/// One thing the server said, in the order in which it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A response for the decoder, line end included.
    Vetted(Bytes),
    /// What never reaches the decoder.
    Data(Data),
}

/// What popgate reads itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// A FETCH response is complete.
    Row(Row),
    /// Message text begins …
    BodyStart(BodyStart),
    /// … goes on …
    Chunk(Bytes),
    /// … and has come to its announced end.
    BodyEnd,
    /// A SEARCH or ESEARCH response.
    Found(Vec<RangeInclusive<u32>>),
}

/// The server's octets are not IMAP, or more of it than is bearable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// No response begins or goes on like this.
    #[error("an unintelligible response")]
    Garbage,
    /// A line has no end.
    #[error("a line that is too long")]
    LineTooLong,
    /// A literal claims to be larger than any message popgate takes.
    #[error("a literal that is too large")]
    LiteralTooLarge,
}

/// Literals in responses for the decoder, together.
const DECODER_LITERALS: u64 = 64 * 1024;

/// Cuts the server's octets into items.
#[derive(Debug)]
pub(super) struct Framer {
    limits: Limits,
    /// Octets of the unfinished line in which no LF was found.
    scanned: usize,
    /// A literal that has not come to its end.
    literal: Option<Literal>,
    /// A response whose last line announced a literal.
    open: Option<Open>,
}

#[derive(Debug)]
struct Literal {
    left: u64,
    to: LiteralUse,
}

#[derive(Debug)]
enum Open {
    Fetch(Fetch),
    /// For the decoder; what of it has come so far.
    Vetted(Vec<u8>),
    Dropped,
}

impl Framer {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            scanned: 0,
            literal: None,
            open: None,
        }
    }

    /// Takes what is complete out of `inbound` and appends it to `items`.
    pub fn advance(
        &mut self,
        inbound: &mut BytesMut,
        items: &mut VecDeque<Item>,
    ) -> Result<(), WireError> {
        loop {
            if self.literal.is_some() {
                if !self.take_literal(inbound, items) {
                    return Ok(());
                }
                continue;
            }
            let Some(line) = self.take_line(inbound)? else {
                return Ok(());
            };
            self.line(line.strip_suffix(b"\r").unwrap_or(&line), items)?;
        }
    }

    /// Whether a response has begun and not ended.
    pub fn is_mid_response(&self) -> bool {
        self.open.is_some() || self.literal.is_some()
    }

    /// The next line without its LF.
    fn take_line(&mut self, inbound: &mut BytesMut) -> Result<Option<BytesMut>, WireError> {
        match memchr::memchr(b'\n', &inbound[self.scanned..]) {
            Some(at) => {
                let end = self.scanned + at;
                if end > self.limits.line {
                    return Err(WireError::LineTooLong);
                }
                self.scanned = 0;
                let mut line = inbound.split_to(end + 1);
                line.truncate(end);
                Ok(Some(line))
            }
            None if inbound.len() > self.limits.line => Err(WireError::LineTooLong),
            None => {
                self.scanned = inbound.len();
                Ok(None)
            }
        }
    }

    /// Moves octets of the current literal on. False: more must come first.
    fn take_literal(&mut self, inbound: &mut BytesMut, items: &mut VecDeque<Item>) -> bool {
        let Some(literal) = &mut self.literal else {
            return true;
        };
        let here = usize::try_from(literal.left)
            .unwrap_or(usize::MAX)
            .min(inbound.len());
        if here > 0 {
            let octets = inbound.split_to(here);
            literal.left -= here as u64;
            match (literal.to, &mut self.open) {
                (LiteralUse::Body, _) => items.push_back(Item::Data(Data::Chunk(octets.freeze()))),
                (_, Some(Open::Vetted(text))) => text.extend_from_slice(&octets),
                _ => {}
            }
        }
        if literal.left > 0 {
            return false;
        }
        if literal.to == LiteralUse::Body {
            items.push_back(Item::Data(Data::BodyEnd));
        }
        self.literal = None;
        true
    }

    fn line(&mut self, line: &[u8], items: &mut VecDeque<Item>) -> Result<(), WireError> {
        match self.open.take() {
            None => self.first_line(line, items),
            Some(Open::Fetch(fetch)) => self.fetch_line(fetch, line, items),
            Some(Open::Vetted(text)) => self.vetted_line(text, line, items),
            Some(Open::Dropped) => self.dropped_line(line),
        }
    }

    fn first_line(&mut self, line: &[u8], items: &mut VecDeque<Item>) -> Result<(), WireError> {
        if line.first() == Some(&b'+') {
            items.push_back(vetted(line));
            return Ok(());
        }
        let Some(rest) = line.strip_prefix(b"* ") else {
            let (_, rest) = word(line);
            let (status, _) = word(rest);
            if !is_one_of(status, &[b"OK", b"NO", b"BAD"]) {
                return Err(WireError::Garbage);
            }
            items.push_back(vetted(line));
            return Ok(());
        };
        let (first, rest) = word(rest);
        if let Some(seq) = number(first) {
            let (keyword, rest) = word(rest);
            if is_one_of(keyword, &[b"FETCH"]) {
                let seq = u32::try_from(seq).map_err(|_| WireError::Garbage)?;
                return self.fetch_line(Fetch::new(seq), rest, items);
            }
            if is_one_of(keyword, &[b"EXISTS"]) {
                items.push_back(vetted(line));
            // GNU mailutils writes EXPUNGED.
            } else if is_one_of(keyword, &[b"EXPUNGE", b"EXPUNGED"]) {
                items.push_back(vetted(format!("* {seq} EXPUNGE").as_bytes()));
            }
            return Ok(());
        }
        if is_one_of(
            first,
            &[b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH", b"CAPABILITY"],
        ) {
            items.push_back(vetted(line));
            Ok(())
        } else if is_one_of(first, &[b"LIST"]) {
            self.vetted_line(Vec::new(), line, items)
        } else if is_one_of(first, &[b"SEARCH"]) {
            items.push_back(Item::Data(Data::Found(search(rest)?)));
            Ok(())
        } else if is_one_of(first, &[b"ESEARCH"]) {
            items.push_back(Item::Data(Data::Found(esearch(rest)?)));
            Ok(())
        } else {
            self.dropped_line(line)
        }
    }

    fn fetch_line(
        &mut self,
        mut fetch: Fetch,
        line: &[u8],
        items: &mut VecDeque<Item>,
    ) -> Result<(), WireError> {
        if let Some((octets, to)) = fetch.line(line, items)? {
            self.begin_literal(octets, to, self.limits.literal)?;
            self.open = Some(Open::Fetch(fetch));
        }
        Ok(())
    }

    fn vetted_line(
        &mut self,
        mut text: Vec<u8>,
        line: &[u8],
        items: &mut VecDeque<Item>,
    ) -> Result<(), WireError> {
        text.extend_from_slice(line);
        if text.len() > self.limits.line {
            return Err(WireError::LineTooLong);
        }
        match trailing_literal(line) {
            Some(octets) => {
                self.begin_literal(octets, LiteralUse::Discard, DECODER_LITERALS)?;
                text.extend_from_slice(b"\r\n");
                self.open = Some(Open::Vetted(text));
            }
            None => items.push_back(vetted(&text)),
        }
        Ok(())
    }

    fn dropped_line(&mut self, line: &[u8]) -> Result<(), WireError> {
        if let Some(octets) = trailing_literal(line) {
            self.begin_literal(octets, LiteralUse::Discard, self.limits.literal)?;
            self.open = Some(Open::Dropped);
        }
        Ok(())
    }

    fn begin_literal(&mut self, left: u64, to: LiteralUse, most: u64) -> Result<(), WireError> {
        if left > most {
            return Err(WireError::LiteralTooLarge);
        }
        self.literal = Some(Literal { left, to });
        Ok(())
    }
}

/// The text as a response for the decoder: printable ASCII but for the line
/// ends in front of literals. Where octets are replaced, none is added, so that
/// literals keep their length.
fn vetted(text: &[u8]) -> Item {
    let printable = |octet: &u8| match octet {
        b'\r' | b'\n' | 0x20..=0x7e => *octet,
        _ => b'?',
    };
    let trimmed = text.trim_ascii_end();
    // A continuation may be "+ " and nothing else.
    let text = if trimmed == b"+" { b"+ " } else { trimmed };
    let mut response: Vec<u8> = text.iter().map(printable).collect();
    response.extend_from_slice(b"\r\n");
    Item::Vetted(Bytes::from(response))
}

/// The first word, and what follows the space behind it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

fn is_one_of(word: &[u8], keywords: &[&[u8]]) -> bool {
    keywords
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// A literal announced at the end of a line that is not read item by item.
fn trailing_literal(line: &[u8]) -> Option<u64> {
    if line.last() != Some(&b'}') {
        return None;
    }
    let open = memchr::memrchr(b'{', line)?;
    announced(&line[open..])
}

/// `SEARCH 2 84 882`, possibly with `(MODSEQ n)` behind it.
fn search(mut rest: &[u8]) -> Result<Vec<RangeInclusive<u32>>, WireError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (first, after) = word(rest);
        rest = after;
        if first.first() == Some(&b'(') {
            break;
        }
        if !first.is_empty() {
            let uid = uid(first)?;
            found.push(uid..=uid);
        }
    }
    Ok(found)
}

/// `ESEARCH (TAG "x") UID ALL 2,10:11` (RFC 4731 §3.1).
fn esearch(mut rest: &[u8]) -> Result<Vec<RangeInclusive<u32>>, WireError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (first, after) = word(rest);
        rest = after;
        if first.eq_ignore_ascii_case(b"ALL") {
            let (set, after) = word(rest);
            rest = after;
            for range in set.split(|octet| *octet == b',') {
                let mut ends = range.splitn(2, |octet| *octet == b':');
                let first = uid(ends.next().unwrap_or_default())?;
                let last = ends.next().map_or(Ok(first), uid)?;
                found.push(first.min(last)..=first.max(last));
            }
        }
    }
    Ok(found)
}

fn uid(digits: &[u8]) -> Result<u32, WireError> {
    number(digits)
        .and_then(|uid| u32::try_from(uid).ok())
        .ok_or(WireError::Garbage)
}
