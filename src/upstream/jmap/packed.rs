//! The listing of a mailbox as it is kept between logins: packed, in blocks of
//! which only those that change are written again. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use super::emails::{Email, Emails};
use super::ids::{self, Ids, LONGEST};
use super::keywords::{Keyword, Keywords};
use crate::upstream::snapshots::{Block, Snapshot};

/// Emails of a block.
const FULL: usize = 512;
/// The form of what is packed here.
const FORM: u8 = 1;

/// Whose listing a snapshot is, and of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub account: String,
    pub mailbox: String,
    /// Of the Emails (RFC 8620 §5.1): what is packed holds for it, or for later.
    pub state: String,
    /// Whether it tells what is hidden by its keyword.
    pub keywords: bool,
    pub count: u32,
}

/// An Email with the mailboxes that it is in now.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Placed {
    pub id: Box<str>,
    blob_id: Box<str>,
    size: u64,
    received_at: Box<str>,
    #[serde(default)]
    keywords: Keywords,
    #[serde(deserialize_with = "ids::set")]
    mailbox_ids: Ids,
}

/// What has changed, by id: what the Email is now, or that it is no more.
pub(super) type Changes = HashMap<Box<str>, Option<Placed>>;

impl Head {
    /// What a snapshot says of itself. None where it is none of ours.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        let mut reader = Reader::new(&snapshot.head);
        if reader.octet()? != FORM {
            return None;
        }
        let keywords = reader.octet()? != 0;
        let count = u32::try_from(reader.number()?).ok()?;
        let mut text = || {
            let length = usize::try_from(reader.number()?).ok()?;
            String::from_utf8(reader.octets(length)?.to_vec()).ok()
        };
        Some(Self {
            account: text()?,
            mailbox: text()?,
            state: text()?,
            keywords,
            count,
        })
    }

    fn write(&self) -> Vec<u8> {
        let mut head = vec![FORM, u8::from(self.keywords)];
        number(u64::from(self.count), &mut head);
        for text in [&self.account, &self.mailbox, &self.state] {
            number(text.len() as u64, &mut head);
            head.extend_from_slice(text.as_bytes());
        }
        head
    }
}

/// Packs a whole listing.
pub(super) fn pack(head: Head, emails: &Emails) -> Snapshot {
    let mut blocks = Blocks::default();
    for email in emails.iter() {
        blocks.push(email);
    }
    blocks.finish(head)
}

/// The listing that a snapshot and what has changed since then make, and the
/// snapshot that is to be kept of it. None where the snapshot is damaged.
pub(super) fn refresh(
    snapshot: &Snapshot,
    state: &str,
    changes: &Changes,
) -> Option<(Emails, Snapshot)> {
    let mut head = Head::of(snapshot)?;
    let mut emails = Emails::default();
    let mut blocks = Blocks::default();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut count = 0;
    for (at, block) in &snapshot.blocks {
        let before = emails.len();
        let mut is_changed = false;
        let mut rows = Rows::new(block.octets());
        while let Some(row) = rows.next()? {
            count += 1;
            let email = row.email();
            let now = match changes.get_key_value(email.id) {
                None => email,
                Some((id, now)) => {
                    seen.insert(id);
                    match now.as_ref().and_then(|now| now.in_mailbox(&head.mailbox)) {
                        None => {
                            is_changed = true;
                            continue;
                        }
                        Some(now) => now,
                    }
                }
            };
            is_changed |= now != email;
            if !emails.append(now, 0) {
                return None;
            }
        }
        if is_changed {
            let rows = (before..emails.len()).filter_map(|place| emails.get(place));
            blocks.put(*at, rows);
        } else {
            blocks.keep(*at, block.clone(), emails.len() - before);
        }
    }
    if count != head.count {
        return None;
    }
    let added = changes.iter().filter(|(id, _)| !seen.contains(&***id));
    let added = added.filter_map(|(_, now)| now.as_ref()?.in_mailbox(&head.mailbox));
    let mut added: Vec<Email<'_>> = added.collect();
    added.sort_unstable_by_key(|email| (email.received_at, email.id));
    for email in added {
        if !emails.append(email, 0) {
            return None;
        }
        blocks.push(email);
    }
    let places = 0..emails.len();
    emails.arrange(places);
    state.clone_into(&mut head.state);
    let snapshot = if blocks.are_scattered(emails.len()) {
        pack(head, &emails)
    } else {
        blocks.finish(head)
    };
    Some((emails, snapshot))
}

impl Placed {
    /// Whether it can be an Email.
    pub fn fits(&self) -> bool {
        self.email().fits()
    }

    fn email(&self) -> Email<'_> {
        Email {
            id: &self.id,
            blob_id: &self.blob_id,
            received_at: &self.received_at,
            size: self.size,
            folder: 0,
            is_hidden: self.keywords.has(Keyword::Hidden),
        }
    }

    fn in_mailbox(&self, mailbox: &str) -> Option<Email<'_>> {
        let is_there = self.mailbox_ids.iter().any(|it| it == mailbox);
        is_there.then(|| self.email())
    }
}

/// Blocks that are being filled.
#[derive(Default)]
struct Blocks {
    done: BTreeMap<u32, Block>,
    /// The last of them, as far as more fits in.
    last: Vec<u8>,
    at: u32,
    rows: usize,
    received_at: String,
    count: usize,
}

impl Blocks {
    fn push(&mut self, email: Email<'_>) {
        if self.rows == FULL {
            self.close();
        }
        write_row(email, &mut self.last, &mut self.received_at);
        self.rows += 1;
        self.count += 1;
    }

    /// Ends the block that is being filled.
    fn close(&mut self) {
        if self.rows > 0 {
            // No more than it takes, for as long as it is kept.
            let rows = self.last.as_slice().to_vec();
            self.last.clear();
            self.done.insert(self.at, Block::new(rows));
            self.at = self.at.saturating_add(1);
        }
        self.rows = 0;
        self.received_at.clear();
    }

    /// A block of an earlier snapshot, as it is: behind those that are there.
    fn keep(&mut self, at: u32, block: Block, rows: usize) {
        self.count += rows;
        self.done.insert(at, block);
        self.at = at.saturating_add(1);
    }

    /// The same, with other rows.
    fn put<'a>(&mut self, at: u32, rows: impl Iterator<Item = Email<'a>>) {
        let (mut packed, mut received_at, mut count) = (Vec::new(), String::new(), 0);
        for email in rows {
            write_row(email, &mut packed, &mut received_at);
            count += 1;
        }
        if count > 0 {
            packed.shrink_to_fit();
            self.keep(at, Block::new(packed), count);
        }
    }

    /// Whether there are many more blocks than these Emails need.
    fn are_scattered(&self, emails: usize) -> bool {
        self.done.len() > 2 * (emails / FULL) + 16
    }

    fn finish(mut self, head: Head) -> Snapshot {
        self.close();
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        let head = Head { count, ..head };
        Snapshot {
            head: head.write().into(),
            blocks: self.done,
        }
    }
}

/// What is hidden, the text of the three names, the size. Names that look like
/// those of the row before, or like each other, take little.
fn write_row(email: Email<'_>, row: &mut Vec<u8>, received_at: &mut String) {
    row.push(u8::from(email.is_hidden));
    text(email.id.as_bytes(), row);
    let (id, blob) = (email.id.as_bytes(), email.blob_id.as_bytes());
    // Some servers make both of one hash, behind a letter that differs.
    let shared = match (id.split_first(), blob.split_first()) {
        (Some((_, id)), Some((_, blob))) => common(id, blob),
        _ => 0,
    };
    number(shared as u64, row);
    row.extend(blob.first());
    text(blob.get(1 + shared..).unwrap_or_default(), row);
    let shared = common(received_at.as_bytes(), email.received_at.as_bytes());
    number(shared as u64, row);
    text(&email.received_at.as_bytes()[shared..], row);
    email.received_at.clone_into(received_at);
    number(email.size, row);
}

fn common(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.iter().zip(other);
    pairs.take_while(|(one, other)| one == other).count()
}

/// A number in as many octets as it takes, seven bits in each.
fn number(mut value: u64, packed: &mut Vec<u8>) {
    while value >= 0x80 {
        packed.push(0x80 | (value & 0x7F) as u8);
        value >>= 7;
    }
    packed.push(value as u8);
}

/// Text: its first octet as it is and the rest, where that is hexadecimal, at
/// half its length.
fn text(text: &[u8], packed: &mut Vec<u8>) {
    let length = (text.len() as u64) << 1;
    let rest = text.get(1..).unwrap_or_default();
    let is_hex = |octet: &u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    if rest.len() < 8 || rest.len() % 2 != 0 || !rest.iter().all(is_hex) {
        number(length, packed);
        packed.extend_from_slice(text);
        return;
    }
    number(length | 1, packed);
    packed.extend(text.first());
    let value = |digit: u8| {
        if digit <= b'9' {
            digit - b'0'
        } else {
            digit - b'a' + 10
        }
    };
    let pairs = rest.chunks_exact(2);
    packed.extend(pairs.map(|pair| value(pair[0]) << 4 | value(pair[1])));
}

/// Reads what was packed. None at whatever was not.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(packed: &'a [u8]) -> Self {
        Self(packed)
    }

    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octets(&mut self, count: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(octets)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            value |= u64::from(octet & 0x7F) << shift;
            if octet < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Appends a text.
    fn text(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let number = self.number()?;
        let length = usize::try_from(number >> 1).ok()?;
        if length > LONGEST {
            return None;
        }
        if number & 1 == 0 {
            text.extend_from_slice(self.octets(length)?);
            return Some(());
        }
        text.push(self.octet()?);
        for pair in self.octets(length.checked_sub(1)? / 2)? {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            text.push(DIGITS[usize::from(pair >> 4)]);
            text.push(DIGITS[usize::from(pair & 0xF)]);
        }
        Some(())
    }
}

/// The rows of a block, one after the other.
struct Rows<'a> {
    reader: Reader<'a>,
    id: Vec<u8>,
    blob_id: Vec<u8>,
    received_at: Vec<u8>,
}

/// A row that was read.
struct Row<'a> {
    id: &'a str,
    blob_id: &'a str,
    received_at: &'a str,
    size: u64,
    is_hidden: bool,
}

impl Row<'_> {
    fn email(&self) -> Email<'_> {
        Email {
            id: self.id,
            blob_id: self.blob_id,
            received_at: self.received_at,
            size: self.size,
            folder: 0,
            is_hidden: self.is_hidden,
        }
    }
}

impl<'a> Rows<'a> {
    fn new(packed: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(packed),
            id: Vec::new(),
            blob_id: Vec::new(),
            received_at: Vec::new(),
        }
    }

    /// The next row: `Some(None)` behind the last, `None` where there should be
    /// one and is not.
    fn next(&mut self) -> Option<Option<Row<'_>>> {
        let reader = &mut self.reader;
        if reader.0.is_empty() {
            return Some(None);
        }
        let is_hidden = reader.octet()? != 0;
        self.id.clear();
        reader.text(&mut self.id)?;
        let shared = usize::try_from(reader.number()?).ok()?;
        self.blob_id.clear();
        self.blob_id.push(reader.octet()?);
        let of_id = self.id.get(1..)?.get(..shared)?;
        self.blob_id.extend_from_slice(of_id);
        reader.text(&mut self.blob_id)?;
        let shared = usize::try_from(reader.number()?).ok()?;
        if shared > self.received_at.len() {
            return None;
        }
        self.received_at.truncate(shared);
        reader.text(&mut self.received_at)?;
        let size = reader.number()?;
        let text = |octets: &'_ Vec<u8>| (1..=LONGEST).contains(&octets.len());
        if ![&self.id, &self.blob_id, &self.received_at]
            .into_iter()
            .all(text)
        {
            return None;
        }
        Some(Some(Row {
            id: std::str::from_utf8(&self.id).ok()?,
            blob_id: std::str::from_utf8(&self.blob_id).ok()?,
            received_at: std::str::from_utf8(&self.received_at).ok()?,
            size,
            is_hidden,
        }))
    }
}

#[cfg(test)]
mod tests;
