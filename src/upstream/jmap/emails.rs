//! Emails as they are listed (RFC 8621 §4), many of them in little memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use serde::Deserialize;

use super::ids::LONGEST;
use super::keywords::{Keyword, Keywords};
use super::mailboxes::MOST_SOURCES;

/// An Email as the server lists it. But for keywords, none of this ever changes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    pub id: Box<str>,
    pub blob_id: Box<str>,
    pub size: u64,
    pub received_at: Box<str>,
    /// Where they were asked for.
    #[serde(default)]
    pub keywords: Keywords,
}

/// One Email of [`Emails`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Email<'a> {
    pub id: &'a str,
    pub blob_id: &'a str,
    pub received_at: &'a str,
    /// Octets of the blob: exact.
    pub size: u64,
    /// The folder of the maildrop that it was listed from.
    pub folder: u8,
    /// It has the keyword that hides it.
    pub is_hidden: bool,
}

impl Listed {
    /// The same, of no folder in particular.
    pub fn as_email(&self) -> Email<'_> {
        Email {
            id: &self.id,
            blob_id: &self.blob_id,
            received_at: &self.received_at,
            size: self.size,
            folder: 0,
            is_hidden: self.keywords.has(Keyword::Hidden),
        }
    }
}

impl<'a> Email<'a> {
    /// Whether it can be one: no id has more than 255 octets (RFC 8620 §1.2).
    pub fn fits(self) -> bool {
        let fits = |text: &str| (1..=LONGEST).contains(&text.len());
        fits(self.id) && fits(self.blob_id) && fits(self.received_at)
    }

    /// Arrival, to the second and beyond it; equal times are told apart by id,
    /// so that the order is the same each time.
    fn order(self) -> (&'a str, &'a str, &'a str) {
        let received = self.received_at.trim_end_matches('Z');
        let (seconds, fraction) = received.split_once('.').unwrap_or((received, ""));
        (seconds, fraction, self.id)
    }
}

impl Email<'_> {
    /// None where the arrival is not told in whole seconds.
    fn key(self) -> Option<Key> {
        let (seconds, fraction, id) = self.order();
        let mut first = [0; 8];
        for (octet, of_id) in first.iter_mut().zip(id.bytes()) {
            *octet = of_id;
        }
        let second = second(seconds).filter(|_| fraction.is_empty())?;
        Some(Key(second, u64::from_be_bytes(first)))
    }
}

/// Emails with their text end to end in one string: 100,000 take about 10 MB.
#[derive(Debug, Default)]
pub(super) struct Emails {
    text: String,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    start: u32,
    id: u8,
    blob_id: u8,
    received_at: u8,
    /// With [`HIDDEN`] in it.
    folder: u8,
    size: u64,
}

const HIDDEN: u8 = 0x80;
const _: () = assert!(MOST_SOURCES <= HIDDEN as usize);

impl Emails {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Option<Email<'_>> {
        self.rows.get(index).map(|row| self.read(row))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Email<'_>> {
        self.rows.iter().map(|row| self.read(row))
    }

    /// Appends one. False where it does not fit.
    #[must_use]
    pub fn push(&mut self, email: &Listed) -> bool {
        let email = email.as_email();
        email.fits() && self.append(email, 0)
    }

    /// Appends one whose names fit, as listed from this folder. False where there
    /// are too many.
    #[must_use]
    pub fn append(&mut self, email: Email<'_>, folder: u8) -> bool {
        let Ok(start) = u32::try_from(self.text.len()) else {
            return false;
        };
        let length = |text: &str| u8::try_from(text.len()).unwrap_or_default();
        for text in [email.id, email.blob_id, email.received_at] {
            self.text.push_str(text);
        }
        self.rows.push(Row {
            start,
            id: length(email.id),
            blob_id: length(email.blob_id),
            received_at: length(email.received_at),
            folder: folder | if email.is_hidden { HIDDEN } else { 0 },
            size: email.size,
        });
        true
    }

    /// Leaves those at these places, and sorts them by arrival.
    pub fn arrange(&mut self, places: impl Iterator<Item = usize>) {
        let mut order: Vec<(Key, u32)> = places
            .filter_map(|place| {
                let email = self.get(place)?;
                Some((email.key().unwrap_or_default(), u32::try_from(place).ok()?))
            })
            .collect();
        let text = |place: u32| self.get(place as usize).map(Email::order);
        // Without numbers for all, there are none.
        if !order.iter().all(|(key, _)| key.is_some()) {
            order.iter_mut().for_each(|(key, _)| *key = Key::default());
        }
        let compare = |one: &(Key, u32), other: &(Key, u32)| {
            let by_number = one.0.cmp(&other.0);
            by_number.then_with(|| text(one.1).cmp(&text(other.1)))
        };
        if !order.is_sorted_by(|one, next| compare(one, next).is_le()) {
            order.sort_unstable_by(compare);
        }
        let rows = order.into_iter();
        let rows = rows.filter_map(|(_, place)| self.rows.get(place as usize).copied());
        self.rows = rows.collect();
        self.text.shrink_to_fit();
    }

    fn read(&self, row: &Row) -> Email<'_> {
        let part = |start: usize, length: u8| {
            let end = start + usize::from(length);
            (self.text.get(start..end).unwrap_or_default(), end)
        };
        let (id, end) = part(row.start as usize, row.id);
        let (blob_id, end) = part(end, row.blob_id);
        let (received_at, _) = part(end, row.received_at);
        let size = row.size;
        Email {
            id,
            blob_id,
            received_at,
            size,
            folder: row.folder & !HIDDEN,
            is_hidden: row.folder & HIDDEN != 0,
        }
    }
}

/// Numbers in the order of Emails, as far as they go: they are compared sooner
/// than text. The second of the arrival, then the beginning of the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64, u64);

impl Key {
    fn is_some(self) -> bool {
        self.0 > 0
    }
}

/// The digits of `2026-01-02T03:04:05` as a number, which is in the order of such
/// texts. None of any other.
fn second(text: &str) -> Option<u64> {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    if text.len() != FORM.len() {
        return None;
    }
    text.bytes()
        .zip(FORM)
        .try_fold(0, |number, (octet, form)| match form {
            b'0' if octet.is_ascii_digit() => Some(number * 10 + u64::from(octet - b'0')),
            b'0' => None,
            form => (octet == *form).then_some(number),
        })
}

/// Where Emails are in [`Emails`], by id.
#[derive(Debug, Default)]
pub(super) struct Places {
    hasher: RandomState,
    /// By the hash of the id: places, and where ids share a hash, those of the
    /// others.
    first: HashMap<u64, u32>,
    others: HashMap<Box<str>, u32>,
}

impl Places {
    /// The place of an Email.
    pub fn of(&self, id: &str, emails: &Emails) -> Option<usize> {
        let is_it = |place: &u32| emails.get(*place as usize).is_some_and(|it| it.id == id);
        let first = self
            .first
            .get(&self.hasher.hash_one(id))
            .filter(|it| is_it(it));
        first
            .or_else(|| self.others.get(id))
            .map(|place| *place as usize)
    }

    /// Puts the Email at `place` in.
    pub fn add(&mut self, id: &str, place: usize) {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let hash = self.hasher.hash_one(id);
        if let std::collections::hash_map::Entry::Vacant(entry) = self.first.entry(hash) {
            entry.insert(place);
        } else {
            self.others.insert(id.into(), place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, received_at: &str) -> Listed {
        Listed {
            id: id.into(),
            blob_id: format!("b{id}").into(),
            size: id.len() as u64,
            received_at: received_at.into(),
            keywords: Keywords::default(),
        }
    }

    fn emails(listed: &[Listed]) -> Emails {
        let mut emails = Emails::default();
        assert!(listed.iter().all(|email| emails.push(email)));
        emails
    }

    #[test]
    fn the_order_is_arrival_and_then_the_id() {
        let mut emails = emails(&[
            listed("m4", "2026-01-02T00:00:01Z"),
            listed("m3", "2026-01-02T00:00:00.5Z"),
            listed("m2", "2026-01-02T00:00:00Z"),
            listed("gone", "2026-01-02T00:00:00Z"),
            listed("m1", "2026-01-02T00:00:00Z"),
        ]);
        emails.arrange([0, 1, 2, 4].into_iter());
        let ids: Vec<&str> = emails.iter().map(|email| email.id).collect();
        assert_eq!(ids, ["m1", "m2", "m3", "m4"]);
        let second = emails.get(1).unwrap();
        assert_eq!((second.blob_id, second.size), ("bm2", 2));
        assert_eq!(second.received_at, "2026-01-02T00:00:00Z");
        assert_eq!((emails.get(4), emails.len()), (None, 4));
    }

    #[test]
    fn times_of_any_form_are_in_the_order_of_their_text() {
        let times = [
            "2026-01-02T00:00:00Z",
            "2026-01-02T00:00:00.5Z",
            "2026-01-02T00:00:01Z",
            "2026-01-02T00:00:60Z",
            "2026-01-03T00:00:00Z",
        ];
        for odd in [None, Some("2026-01-02T00:00:00+01:00"), Some("yesterday")] {
            let all = times.iter().copied().chain(odd).enumerate();
            let listed: Vec<Listed> = all
                .map(|(at, time)| listed(&format!("m{at}"), time))
                .collect();
            let mut emails = emails(&listed);
            emails.arrange([5, 3, 1, 4, 0, 2].into_iter());
            let found: Vec<&str> = emails.iter().map(|it| it.received_at).collect();
            let found = found.into_iter().filter(|it| times.contains(it));
            assert!(found.eq(times), "{odd:?}");
        }
    }

    #[test]
    fn places_are_found_by_id() {
        let time = "2026-01-02T00:00:00Z";
        let emails = emails(&[listed("a", time), listed("b", time)]);
        let mut places = Places::default();
        for (place, email) in emails.iter().enumerate() {
            places.add(email.id, place);
        }
        assert_eq!(places.of("b", &emails), Some(1));
        assert_eq!(places.of("c", &emails), None);
        // As where two ids have one hash.
        let taken = places.hasher.hash_one("c");
        places.first.insert(taken, 0);
        assert_eq!(places.of("c", &emails), None);
        places.add("c", 1);
        assert_eq!(places.others.len(), 1);
        assert_eq!(places.of("c", &emails), Some(1));
        assert_eq!(places.of("a", &emails), Some(0));
    }

    #[test]
    fn what_is_too_long_or_empty_does_not_fit() {
        let mut emails = Emails::default();
        let time = "2026-01-02T00:00:00Z";
        for (id, fits) in [
            ("x".repeat(254), true),
            ("x".repeat(256), false),
            (String::new(), false),
        ] {
            assert_eq!(emails.push(&listed(&id, time)), fits, "{}", id.len());
        }
    }
}
