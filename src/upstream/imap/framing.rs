//! What an IMAP server sends, cut into responses and literals. Pure: octets in,
//! [`Item`]s out, whatever the slices in which the octets arrive.
//!
//! Three kinds of responses are told apart by their first words:
//! - FETCH, SEARCH, ESEARCH, VANISHED, LIST, NAMESPACE, MYRIGHTS and CAPABILITY
//!   carry what popgate maps: they are read here, with `fetch` and `untagged`.
//! - Those the decoder (async-imap) is to understand: status responses, EXISTS,
//!   EXPUNGE, continuations. They are vetted: one line each, bounded, printable
//!   ASCII.
//! - All others. A client must be ready for any of them at any time (RFC 3501
//!   §2.2.2) and popgate has no use for them: they are dropped.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

use super::config::Limits;
use super::fetch::{BodyStart, Fetch, LiteralUse, Row, announced, number};
use super::untagged::{self, Listed, Namespaces, Vanished};

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
    /// A VANISHED response.
    Vanished(Vanished),
    /// A LIST response.
    List(Listed),
    /// A NAMESPACE response.
    Namespace(Namespaces),
    /// A MYRIGHTS response: the rights.
    MyRights(String),
    /// FLAGS has the keyword of hidden messages.
    Hides,
    /// A CAPABILITY response.
    Capability(Vec<String>),
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

/// The longest response for the decoder: what follows is only text. The decoder
/// begins anew with each 4 KiB, so that its work grows with the square.
const LONGEST_VETTED: usize = 8 * 1024;
/// The longest response that is read whole, literals included.
const LONGEST_WHOLE: usize = 64 * 1024;

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
    /// What of a response has come so far, behind its keyword.
    Whole(Keyword, Vec<u8>),
    Dropped,
}

/// Responses that are read when they have come whole.
#[derive(Clone, Copy, Debug)]
enum Keyword {
    List,
    Namespace,
    MyRights,
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
                (_, Some(Open::Whole(_, text))) => text.extend_from_slice(&octets),
                (LiteralUse::Value, Some(Open::Fetch(fetch))) => fetch.value(&octets),
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
            Some(Open::Whole(keyword, text)) => self.whole_line(keyword, text, line, items),
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
            } else {
                return self.dropped_line(line);
            }
            return Ok(());
        }
        if is_one_of(first, &[b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH"]) {
            items.push_back(vetted(line));
            return Ok(());
        }
        let whole = if is_one_of(first, &[b"LIST"]) {
            Some(Keyword::List)
        } else if is_one_of(first, &[b"NAMESPACE"]) {
            Some(Keyword::Namespace)
        } else if is_one_of(first, &[b"MYRIGHTS"]) {
            Some(Keyword::MyRights)
        } else {
            None
        };
        if let Some(keyword) = whole {
            return self.whole_line(keyword, Vec::new(), rest, items);
        }
        let data = if is_one_of(first, &[b"CAPABILITY"]) {
            Data::Capability(untagged::capabilities(rest))
        } else if is_one_of(first, &[b"SEARCH"]) {
            Data::Found(untagged::search(rest)?)
        } else if is_one_of(first, &[b"ESEARCH"]) {
            Data::Found(untagged::esearch(rest)?)
        } else if is_one_of(first, &[b"VANISHED"]) {
            Data::Vanished(untagged::vanished(rest)?)
        } else if is_one_of(first, &[b"FLAGS"]) && untagged::is_hiding(rest) {
            Data::Hides
        } else {
            return self.dropped_line(line);
        };
        items.push_back(Item::Data(data));
        Ok(())
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

    fn whole_line(
        &mut self,
        keyword: Keyword,
        mut text: Vec<u8>,
        line: &[u8],
        items: &mut VecDeque<Item>,
    ) -> Result<(), WireError> {
        text.extend_from_slice(line);
        if text.len() > LONGEST_WHOLE {
            return Err(WireError::LineTooLong);
        }
        if let Some(octets) = trailing_literal(line) {
            let room = LONGEST_WHOLE - text.len();
            self.begin_literal(octets, LiteralUse::Discard, room as u64)?;
            text.extend_from_slice(b"\r\n");
            self.open = Some(Open::Whole(keyword, text));
            return Ok(());
        }
        items.push_back(Item::Data(match keyword {
            Keyword::List => Data::List(untagged::list(&text)?),
            Keyword::Namespace => Data::Namespace(untagged::namespace(&text)?),
            Keyword::MyRights => Data::MyRights(untagged::my_rights(&text)?),
        }));
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

/// The line as a response for the decoder: printable ASCII, and no longer than
/// is good for it.
fn vetted(line: &[u8]) -> Item {
    let line = line.get(..LONGEST_VETTED).unwrap_or(line).trim_ascii_end();
    // A continuation may be "+ " and nothing else.
    let line = if line == b"+" { b"+ " } else { line };
    let mut response: Vec<u8> = line.iter().map(printable).collect();
    response.extend_from_slice(b"\r\n");
    Item::Vetted(Bytes::from(response))
}

/// What is shown of an octet of status text.
pub(super) fn printable(octet: &u8) -> u8 {
    match octet {
        0x20..=0x7e => *octet,
        _ => b'?',
    }
}

/// The first word, and what follows the space behind it.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
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

#[cfg(test)]
mod tests;
