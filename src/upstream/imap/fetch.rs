//! FETCH responses (RFC 3501 §7.4.2), read piece by piece as they arrive.
//!
//! They are the only responses that may be large, so they never reach the
//! decoder: rows of a listing become [`Row`]s, message text becomes chunks.
//! Nesting is counted, not followed, so that depth costs no stack.

use std::collections::VecDeque;

use bytes::Bytes;

use super::framing::{Data, Item, WireError};

/// What a FETCH response told of one message, message text apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Message sequence number.
    pub seq: u32,
    /// UID, where the response named it.
    pub uid: Option<u32>,
    /// RFC822.SIZE in octets.
    pub octets: Option<u64>,
    /// What FLAGS held.
    pub flags: Option<Flags>,
    /// What only some listings ask for.
    pub details: Option<Box<Details>>,
    /// Whether message text came with it.
    pub with_body: bool,
}

/// The flags that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `\Deleted`
    pub deleted: bool,
    /// `\Seen`
    pub seen: bool,
    /// [`HIDDEN`]
    pub hidden: bool,
}

/// The keyword of messages that are not shown by POP3 any more; Dovecot's
/// documentation suggests it for its own `pop3_deleted_flag`.
pub(super) const HIDDEN: &str = "$POP3Deleted";

/// Data items that listings ask for where they are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// INTERNALDATE in seconds since 1970.
    pub arrival: Option<i64>,
    /// X-GUID (Dovecot).
    pub guid: Option<Box<str>>,
    /// EMAILID (RFC 8474 §5.1).
    pub email_id: Option<Box<str>>,
    /// X-GM-MSGID (Gmail).
    pub gmail_id: Option<u64>,
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
    /// To [`Fetch::value`].
    Value,
    Discard,
}

/// Parentheses deeper than this are no mail server's.
const DEEPEST: u32 = 100;
/// The longest name of a data item, section included.
const LONGEST_NAME: usize = 4096;
/// The longest id of a message (RFC 8474 §4), or name of a Maildir file.
const LONGEST_ID: u64 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Uid,
    Size,
    Flags,
    Arrival,
    Guid,
    EmailId,
    GmailId,
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
    /// The value of a data item that comes as a literal.
    value: Option<(Name, Vec<u8>)>,
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
            value: None,
            closed: false,
        }
    }

    /// Octets of a literal that is [`LiteralUse::Value`].
    pub fn value(&mut self, octets: &[u8]) {
        if let Some((_, value)) = &mut self.value {
            value.extend_from_slice(octets);
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
        if let Some((name, value)) = self.value.take() {
            self.detail(name, &value);
        }
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
                        self.row.flags = Some(Flags::default());
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
        let row = std::mem::take(&mut self.row);
        items.push_back(Item::Data(Data::Row(row)));
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
            (2, Some(Name::Flags)) => self.flag(atom),
            (1, Some(name @ (Name::Guid | Name::GmailId))) | (2, Some(name @ Name::EmailId)) => {
                self.detail(name, atom)
            }
            _ => {}
        }
        if self.depth == 1 {
            self.name = None;
        }
        Ok(at + length)
    }

    fn flag(&mut self, flag: &[u8]) {
        let is = |name: &str| flag.eq_ignore_ascii_case(name.as_bytes());
        if let Some(flags) = &mut self.row.flags {
            flags.deleted |= is("\\Deleted");
            flags.seen |= is("\\Seen");
            flags.hidden |= is(HIDDEN);
        }
    }

    /// The value of a data item. What makes no sense is as if it were not there.
    fn detail(&mut self, name: Name, value: &[u8]) {
        let id = || {
            let short = value.len() as u64 <= LONGEST_ID;
            let text = std::str::from_utf8(value).ok();
            text.filter(|text| short && !text.is_empty() && !text.eq_ignore_ascii_case("NIL"))
                .map(Box::from)
        };
        let details = self.row.details.get_or_insert_default();
        match name {
            Name::Arrival => details.arrival = super::date::seconds(value),
            Name::Guid => details.guid = id(),
            Name::EmailId => details.email_id = id(),
            Name::GmailId => details.gmail_id = number(value),
            Name::Uid | Name::Size | Name::Flags | Name::Body { .. } | Name::Other => {}
        }
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
        if let Some(name @ (Name::Arrival | Name::Guid)) = self.name
            && self.depth == 1
        {
            self.detail(name, &text);
            self.name = None;
            return Ok(end + 1);
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
        let (section, origin) = match self.name.take() {
            Some(Name::Body { section, origin }) => (section, origin),
            Some(name @ Name::Guid) if octets <= LONGEST_ID => {
                self.value = Some((name, Vec::new()));
                return LiteralUse::Value;
            }
            _ => return LiteralUse::Discard,
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
        b"INTERNALDATE" => Name::Arrival,
        b"X-GUID" => Name::Guid,
        b"EMAILID" => Name::EmailId,
        b"X-GM-MSGID" => Name::GmailId,
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
