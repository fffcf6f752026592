//! FETCH responses (RFC 3501 §7.4.2), read piece by piece as they arrive.
//!
//! They are the only responses that may be large, so they never reach the
//! decoder: rows of a listing become [`Row`]s, message text becomes chunks.
//! Nesting is counted, not followed, so that depth costs no stack.

use std::collections::VecDeque;

use bytes::Bytes;

use super::framing::{Data, Item, WireError};

/// What a FETCH response told of one message, message text apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Message sequence number.
    pub seq: u32,
    /// UID, where the response named it.
    pub uid: Option<u32>,
    /// RFC822.SIZE in octets.
    pub octets: Option<u64>,
    /// Whether FLAGS held `\Deleted`.
    pub deleted: Option<bool>,
    /// Whether message text came with it.
    pub with_body: bool,
}

/// The start of a message's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyStart {
    /// Message sequence number.
    pub seq: u32,
    /// UID, where it stood in front of the text.
    pub uid: Option<u32>,
    /// Which part it is.
    pub section: Section,
    /// The first octet's place (`BODY[]<origin>`), where the answer is partial.
    pub origin: Option<u64>,
    /// Octets to come.
    pub octets: u64,
}

/// The parts of a message that popgate asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// `BODY[]`.
    Whole,
    /// `BODY[HEADER]`.
    Header,
}

/// Where a literal's octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LiteralUse {
    Body,
    Discard,
}

/// Parentheses deeper than this are no mail server's.
const DEEPEST: u32 = 100;
/// The longest name of a data item, section included.
const LONGEST_NAME: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Uid,
    Size,
    Flags,
    Body {
        section: Section,
        origin: Option<u64>,
    },
    Other,
}

/// A FETCH response under way.
#[derive(Debug)]
pub(super) struct Fetch {
    row: Row,
    depth: u32,
    name: Option<Name>,
    closed: bool,
}

impl Fetch {
    pub fn new(seq: u32) -> Self {
        Self {
            row: Row {
                seq,
                ..Row::default()
            },
            depth: 0,
            name: None,
            closed: false,
        }
    }

    /// Reads a line, or the rest of one behind a literal, without its line
    /// end. Returns the literal that it announces; `None` means that the
    /// response is complete, and its row is in `items`.
    pub fn line(
        &mut self,
        line: &[u8],
        items: &mut VecDeque<Item>,
    ) -> Result<Option<(u64, LiteralUse)>, WireError> {
        let mut at = 0;
        while let Some(&octet) = line.get(at) {
            match octet {
                b' ' => at += 1,
                _ if self.closed => return Err(WireError::Garbage),
                b'(' => {
                    if self.depth == 1 && self.name.is_none() || self.depth >= DEEPEST {
                        return Err(WireError::Garbage);
                    }
                    self.depth += 1;
                    if self.depth == 2 && self.name == Some(Name::Flags) {
                        self.row.deleted = Some(false);
                    }
                    at += 1;
                }
                b')' => {
                    at += 1;
                    self.depth = self.depth.checked_sub(1).ok_or(WireError::Garbage)?;
                    match self.depth {
                        0 => self.closed = true,
                        1 => self.name = None,
                        _ => {}
                    }
                }
                _ if self.depth == 0 => return Err(WireError::Garbage),
                b'"' if self.name.is_some() => at = self.quoted(line, at, items)?,
                b'{' | b'~' if self.name.is_some() => {
                    if let Some(octets) = announced(&line[at..]) {
                        return Ok(Some((octets, self.literal(octets, items))));
                    }
                    at = self.atom(line, at)?;
                }
                _ if self.depth == 1 && self.name.is_none() => at = self.item_name(line, at)?,
                _ => at = self.atom(line, at)?,
            }
        }
        if !self.closed {
            return Err(WireError::Garbage);
        }
        items.push_back(Item::Data(Data::Row(self.row)));
        Ok(None)
    }

    fn item_name(&mut self, line: &[u8], at: usize) -> Result<usize, WireError> {
        let mut end = at;
        let mut bracket = false;
        while let Some(&octet) = line.get(end) {
            match octet {
                b'[' => bracket = true,
                b']' => bracket = false,
                b' ' if !bracket => break,
                b'(' | b')' if !bracket => break,
                _ => {}
            }
            end += 1;
        }
        if end - at > LONGEST_NAME {
            return Err(WireError::Garbage);
        }
        self.name = Some(parse_name(&line[at..end]));
        Ok(end)
    }

    fn atom(&mut self, line: &[u8], at: usize) -> Result<usize, WireError> {
        let rest = &line[at..];
        let length = rest
            .iter()
            .position(|octet| matches!(octet, b' ' | b'(' | b')'))
            .unwrap_or(rest.len());
        let atom = &rest[..length];
        match (self.depth, self.name) {
            (1, Some(Name::Uid)) => {
                let uid = number(atom).and_then(|uid| u32::try_from(uid).ok());
                let uid = uid.filter(|uid| *uid != 0).ok_or(WireError::Garbage)?;
                if self.row.uid.replace(uid).is_some_and(|other| other != uid) {
                    return Err(WireError::Garbage);
                }
            }
            (1, Some(Name::Size)) => {
                self.row.octets = Some(number(atom).ok_or(WireError::Garbage)?);
            }
            (2, Some(Name::Flags)) if atom.eq_ignore_ascii_case(b"\\Deleted") => {
                self.row.deleted = Some(true);
            }
            _ => {}
        }
        if self.depth == 1 {
            self.name = None;
        }
        Ok(at + length)
    }

    /// A quoted string; message text may come as one.
    fn quoted(
        &mut self,
        line: &[u8],
        at: usize,
        items: &mut VecDeque<Item>,
    ) -> Result<usize, WireError> {
        let mut text = Vec::new();
        let mut end = at + 1;
        loop {
            match *line.get(end).ok_or(WireError::Garbage)? {
                b'"' => break,
                b'\\' => {
                    end += 1;
                    text.push(*line.get(end).ok_or(WireError::Garbage)?);
                }
                octet => text.push(octet),
            }
            end += 1;
        }
        if self.literal(text.len() as u64, items) == LiteralUse::Body {
            if !text.is_empty() {
                items.push_back(Item::Data(Data::Chunk(Bytes::from(text))));
            }
            items.push_back(Item::Data(Data::BodyEnd));
        }
        Ok(end + 1)
    }

    /// A string value begins: is it message text?
    fn literal(&mut self, octets: u64, items: &mut VecDeque<Item>) -> LiteralUse {
        if self.depth != 1 {
            return LiteralUse::Discard;
        }
        let Some(Name::Body { section, origin }) = self.name.take() else {
            return LiteralUse::Discard;
        };
        self.row.with_body = true;
        let Row { seq, uid, .. } = self.row;
        let start = BodyStart {
            seq,
            uid,
            section,
            origin,
            octets,
        };
        items.push_back(Item::Data(Data::BodyStart(start)));
        LiteralUse::Body
    }
}

fn parse_name(name: &[u8]) -> Name {
    let name = name.to_ascii_uppercase();
    match name.as_slice() {
        b"UID" => Name::Uid,
        b"RFC822.SIZE" => Name::Size,
        b"FLAGS" => Name::Flags,
        b"RFC822" => Name::Body {
            section: Section::Whole,
            origin: None,
        },
        b"RFC822.HEADER" => Name::Body {
            section: Section::Header,
            origin: None,
        },
        other => body_name(other).unwrap_or(Name::Other),
    }
}

/// `BODY[]`, `BODY[HEADER]`, either with `<origin>`.
fn body_name(name: &[u8]) -> Option<Name> {
    let rest = name.strip_prefix(b"BODY[")?;
    let (section, rest) = match rest.strip_prefix(b"HEADER]") {
        Some(rest) => (Section::Header, rest),
        None => (Section::Whole, rest.strip_prefix(b"]")?),
    };
    let origin = match rest {
        b"" => None,
        _ => Some(number(rest.strip_prefix(b"<")?.strip_suffix(b">")?)?),
    };
    Some(Name::Body { section, origin })
}

/// `{n}`, `{n+}` or `~{n}` as the end of a line (RFC 3501 §4.3, RFC 3516).
pub(super) fn announced(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"~").unwrap_or(text);
    let text = text.strip_prefix(b"{")?.strip_suffix(b"}")?;
    number(text.strip_suffix(b"+").unwrap_or(text))
}

/// Digits as a number.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
