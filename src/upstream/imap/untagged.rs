//! Untagged responses that popgate reads itself, FETCH apart: CAPABILITY, LIST,
//! NAMESPACE, MYRIGHTS, SEARCH, ESEARCH and VANISHED. Pure: a whole response in,
//! its meaning out.
//!
//! The decoder is not asked for them: it takes no CAPABILITY without IMAP4rev1
//! (an IMAP4rev2 server has none), no LIST with extended data, no ESEARCH, and of
//! a VANISHED only the first 8 KiB would be shown to it.

use std::ops::RangeInclusive;

use super::fetch::{HIDDEN, number};
use super::framing::{WireError, word};
use crate::maildrop::SpecialUse;

/// A mailbox in a LIST response (RFC 3501 §7.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub delimiter: Option<String>,
    pub uses: Vec<SpecialUse>,
    pub is_selectable: bool,
}

impl Vanished {
    /// How many messages these are, where it stands for EXPUNGE.
    pub fn count(&self) -> u32 {
        let count = |range: &RangeInclusive<u32>| u64::from(range.end() - range.start()) + 1;
        let all: u64 = self.uids.iter().map(count).sum();
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

/// A NAMESPACE response (RFC 2342 §5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    pub personal: Vec<Namespace>,
    /// Of other users.
    pub others: Vec<Namespace>,
    pub shared: Vec<Namespace>,
}

/// What the names of some mailboxes begin with, and how levels are separated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub prefix: String,
    pub delimiter: Option<String>,
}

/// A VANISHED response (RFC 7162 §3.2.10): these UIDs have no messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vanished {
    /// It answers QRESYNC or `UID FETCH … VANISHED`: the messages, if there were
    /// any, had gone before, and sequence numbers stay. Otherwise it stands for
    /// EXPUNGE, and counts as many messages as it has UIDs.
    pub is_earlier: bool,
    /// As told: in any order, and UIDs that never were included.
    pub uids: Vec<RangeInclusive<u32>>,
}

/// Namespaces of a kind that are kept.
const MOST_NAMESPACES: usize = 10;

/// Capabilities that are kept of one response, and the longest name.
const MOST_CAPABILITIES: usize = 500;
const LONGEST_CAPABILITY: usize = 100;

/// `CAPABILITY IMAP4rev2 AUTH=PLAIN`: the names, as the server wrote them.
pub(super) fn capabilities(rest: &[u8]) -> Vec<String> {
    rest.split(|octet| *octet == b' ')
        .filter(|name| !name.is_empty() && name.len() <= LONGEST_CAPABILITY)
        .take(MOST_CAPABILITIES)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

/// `LIST (\Noselect) "/" name`, literals in place. What follows the name is
/// extended data (RFC 5258 §3.5), which nobody here asked for.
pub(super) fn list(text: &[u8]) -> Result<Listed, WireError> {
    let mut reader = Reader(text);
    let attributes = reader.attributes()?;
    let delimiter = match reader.string()? {
        (quoted, true) => Some(quoted),
        (atom, false) if atom.eq_ignore_ascii_case(b"NIL") => None,
        _ => return Err(WireError::Garbage),
    };
    let (name, _) = reader.string()?;
    let has = |attribute: &str| {
        attributes
            .iter()
            .any(|it| it.eq_ignore_ascii_case(attribute.as_bytes()))
    };
    let uses = SpecialUse::ALL
        .into_iter()
        .filter(|it| has(&format!("\\{}", it.role())));
    // A name in no known charset cannot be written back.
    let is_text = std::str::from_utf8(&name).is_ok();
    Ok(Listed {
        name: String::from_utf8_lossy(&name).into_owned(),
        delimiter: delimiter.map(|it| String::from_utf8_lossy(&it).into_owned()),
        uses: uses.collect(),
        is_selectable: is_text && !has("\\Noselect") && !has("\\NonExistent"),
    })
}

/// `NAMESPACE (("" "/")) (("~" "/")) NIL`.
pub(super) fn namespace(text: &[u8]) -> Result<Namespaces, WireError> {
    let mut reader = Reader(text);
    Ok(Namespaces {
        personal: reader.namespaces()?,
        others: reader.namespaces()?,
        shared: reader.namespaces()?,
    })
}

/// `MYRIGHTS INBOX lrswi` (RFC 4314 §3.8): the rights.
pub(super) fn my_rights(text: &[u8]) -> Result<String, WireError> {
    let mut reader = Reader(text);
    reader.string()?;
    let (rights, _) = reader.string()?;
    Ok(String::from_utf8_lossy(&rights).into_owned())
}

/// `FLAGS (\Answered $POP3Deleted)` (RFC 3501 §7.2.6): whether the keyword of
/// hidden messages is among them.
pub(super) fn is_hiding(text: &[u8]) -> bool {
    let mut words = text.split(|octet| matches!(octet, b' ' | b'(' | b')'));
    words.any(|word| word.eq_ignore_ascii_case(HIDDEN.as_bytes()))
}

/// Reads strings and lists off the front of a response.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn skip_spaces(&mut self) {
        while let Some(rest) = self.0.strip_prefix(b" ") {
            self.0 = rest;
        }
    }

    fn attributes(&mut self) -> Result<Vec<&'a [u8]>, WireError> {
        self.skip_spaces();
        let rest = self.0.strip_prefix(b"(").ok_or(WireError::Garbage)?;
        let end = memchr::memchr(b')', rest).ok_or(WireError::Garbage)?;
        self.0 = rest.get(end + 1..).unwrap_or_default();
        Ok(rest[..end].split(|octet| *octet == b' ').collect())
    }

    /// Takes `expected` off the front, if it is there.
    fn takes(&mut self, expected: &[u8]) -> bool {
        self.skip_spaces();
        let start = self.0.get(..expected.len());
        let there = start.is_some_and(|start| start.eq_ignore_ascii_case(expected));
        if there {
            self.0 = self.0.get(expected.len()..).unwrap_or_default();
        }
        there
    }

    fn namespaces(&mut self) -> Result<Vec<Namespace>, WireError> {
        if self.takes(b"NIL") {
            return Ok(Vec::new());
        }
        let mut namespaces = Vec::new();
        if !self.takes(b"(") {
            return Err(WireError::Garbage);
        }
        while !self.takes(b")") {
            if !self.takes(b"(") {
                return Err(WireError::Garbage);
            }
            let prefix = self.text()?;
            let delimiter = match self.takes(b"NIL") {
                true => None,
                false => Some(self.text()?),
            };
            self.skip_to_end_of_list()?;
            if namespaces.len() < MOST_NAMESPACES {
                namespaces.push(Namespace { prefix, delimiter });
            }
        }
        Ok(namespaces)
    }

    /// A quoted string or literal as text.
    fn text(&mut self) -> Result<String, WireError> {
        match self.string()? {
            (text, true) => String::from_utf8(text).map_err(|_| WireError::Garbage),
            _ => Err(WireError::Garbage),
        }
    }

    /// Passes over the rest of a list that was entered, lists in it included.
    fn skip_to_end_of_list(&mut self) -> Result<(), WireError> {
        let mut depth = 1u32;
        while depth > 0 {
            if self.takes(b"(") {
                depth += 1;
            } else if self.takes(b")") {
                depth -= 1;
            } else if matches!(self.0.first(), Some(b'"' | b'{')) {
                self.string()?;
            } else {
                self.0 = self.0.get(1..).ok_or(WireError::Garbage)?;
            }
        }
        Ok(())
    }

    /// A quoted string or literal (true), or an atom (false).
    fn string(&mut self) -> Result<(Vec<u8>, bool), WireError> {
        self.skip_spaces();
        match self.0.first() {
            Some(b'"') => Ok((self.quoted()?, true)),
            Some(b'{') => Ok((self.literal()?, true)),
            Some(_) => {
                let (atom, rest) = word(self.0);
                self.0 = rest;
                Ok((atom.to_vec(), false))
            }
            None => Err(WireError::Garbage),
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, WireError> {
        let mut text = Vec::new();
        let mut octets = self.0.iter().enumerate().skip(1);
        while let Some((at, octet)) = octets.next() {
            match octet {
                b'"' => {
                    self.0 = self.0.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                b'\\' => text.push(*octets.next().ok_or(WireError::Garbage)?.1),
                _ => text.push(*octet),
            }
        }
        Err(WireError::Garbage)
    }

    fn literal(&mut self) -> Result<Vec<u8>, WireError> {
        let end = memchr::memchr(b'\n', self.0).ok_or(WireError::Garbage)?;
        let octets = super::fetch::announced(self.0[..end].trim_ascii_end())
            .and_then(|octets| usize::try_from(octets).ok())
            .ok_or(WireError::Garbage)?;
        let start = end + 1;
        let end = start.checked_add(octets).ok_or(WireError::Garbage)?;
        let text = self.0.get(start..end).ok_or(WireError::Garbage)?.to_vec();
        self.0 = self.0.get(end..).unwrap_or_default();
        Ok(text)
    }
}

/// `SEARCH 2 84 882`, possibly with `(MODSEQ n)` behind it.
pub(super) fn search(mut rest: &[u8]) -> Result<Vec<RangeInclusive<u32>>, WireError> {
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
pub(super) fn esearch(mut rest: &[u8]) -> Result<Vec<RangeInclusive<u32>>, WireError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (first, after) = word(rest);
        rest = after;
        if first.eq_ignore_ascii_case(b"ALL") {
            let (set, after) = word(rest);
            rest = after;
            uid_set(set, &mut found)?;
        }
    }
    Ok(found)
}

/// `VANISHED (EARLIER) 41,43:116`, or without `(EARLIER)`.
pub(super) fn vanished(rest: &[u8]) -> Result<Vanished, WireError> {
    let mut vanished = Vanished::default();
    let mut words = rest
        .split(|octet| *octet == b' ')
        .filter(|it| !it.is_empty());
    let mut set = words.next();
    if set.is_some_and(|word| word.eq_ignore_ascii_case(b"(EARLIER)")) {
        vanished.is_earlier = true;
        set = words.next();
    }
    match (set, words.next()) {
        (Some(set), None) => uid_set(set, &mut vanished.uids)?,
        _ => return Err(WireError::Garbage),
    }
    Ok(vanished)
}

/// `2,10:11`, the ends of a range in any order (RFC 3501 §9).
fn uid_set(set: &[u8], found: &mut Vec<RangeInclusive<u32>>) -> Result<(), WireError> {
    for range in set.split(|octet| *octet == b',') {
        let mut ends = range.splitn(2, |octet| *octet == b':');
        let first = uid(ends.next().unwrap_or_default())?;
        let last = ends.next().map_or(Ok(first), uid)?;
        found.push(first.min(last)..=first.max(last));
    }
    Ok(())
}

fn uid(digits: &[u8]) -> Result<u32, WireError> {
    number(digits)
        .and_then(|uid| u32::try_from(uid).ok())
        .ok_or(WireError::Garbage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(name: &str, delimiter: Option<&str>, is_trash: bool, is_selectable: bool) -> Listed {
        Listed {
            name: name.to_owned(),
            delimiter: delimiter.map(str::to_owned),
            uses: if is_trash {
                vec![SpecialUse::Trash]
            } else {
                Vec::new()
            },
            is_selectable,
        }
    }

    #[test]
    fn mailboxes_in_every_form() {
        let slash = Some("/");
        for (text, expected) in [
            (r#"() "/" Trash"#, listed("Trash", slash, false, true)),
            (
                r#"(\HasNoChildren \trash) NIL "Trash""#,
                listed("Trash", None, true, true),
            ),
            (
                r#"(\NOSELECT) "\\" x"#,
                listed("x", Some("\\"), false, false),
            ),
            (
                r#"(\NonExistent) "/" "a\"b\\c""#,
                listed("a\"b\\c", slash, false, false),
            ),
            (
                "(\\Trash) \"/\" {7}\r\nTrash  ",
                listed("Trash  ", slash, true, true),
            ),
            ("() \"/\" {0}\r\n", listed("", slash, false, true)),
            (
                r#"(\Trash) "/" "Bin" ("OLDNAME" ("Trash"))"#,
                listed("Bin", slash, true, true),
            ),
            (
                "() \"/\" Gr\u{fc}n",
                listed("Gr\u{fc}n", slash, false, true),
            ),
            (
                r#"( \Trash )  "."  INBOX.Trash"#,
                listed("INBOX.Trash", Some("."), true, true),
            ),
        ] {
            assert_eq!(list(text.as_bytes()), Ok(expected), "{text}");
        }
        assert!(!list(b"(\\Trash) \"/\" Gr\xfcn").unwrap().is_selectable);
    }

    #[test]
    fn what_is_no_mailbox() {
        for text in [
            "",
            "(",
            "()",
            "() \"/\"",
            "() / Trash",
            "() \"/\" \"Trash",
            "() \"/\" {6}\r\nTrash",
            "\\Trash \"/\" Trash",
        ] {
            assert_eq!(list(text.as_bytes()), Err(WireError::Garbage), "{text}");
        }
    }

    #[test]
    fn mailboxes_with_several_uses() {
        let mailbox = list(br#"(\Junk \ARCHIVE \x) "/" "Attic""#).unwrap();
        assert_eq!(mailbox.uses, [SpecialUse::Archive, SpecialUse::Junk]);
    }

    #[test]
    fn namespaces_in_every_form() {
        let of = |prefix: &str, delimiter: &str| Namespace {
            prefix: prefix.to_owned(),
            delimiter: (!delimiter.is_empty()).then(|| delimiter.to_owned()),
        };
        let found = namespace(b"((\"\" \"/\")) NIL NIL").unwrap();
        assert_eq!(found.personal, [of("", "/")]);
        assert_eq!((found.others, found.shared), (Vec::new(), Vec::new()));
        // RFC 2342 §5, with an extension.
        let found = namespace(
            b"((\"\" \"/\")(\"#mh/\" \"/\" \"X-PARAM\" (\"FLAG1\" \"FLAG2)\"))) ((\"~\" NIL)) nil",
        )
        .unwrap();
        assert_eq!(found.personal, [of("", "/"), of("#mh/", "/")]);
        assert_eq!(found.others, [of("~", "")]);
        let found = namespace(b"NIL (({5}\r\nuser. \".\")) ((\"\" \".\"))").unwrap();
        assert_eq!(found.others, [of("user.", ".")]);
        for text in [
            "",
            "NIL",
            "NIL NIL",
            "((\"\" \"/\") NIL NIL",
            "(x) NIL NIL",
            "() NIL ((\"a\" b)",
        ] {
            assert_eq!(
                namespace(text.as_bytes()),
                Err(WireError::Garbage),
                "{text}"
            );
        }
        let many = format!("({}) NIL NIL", "(\"a\" \"/\")".repeat(1000));
        assert_eq!(
            namespace(many.as_bytes()).unwrap().personal.len(),
            MOST_NAMESPACES
        );
    }

    #[test]
    fn rights() {
        assert_eq!(my_rights(b"INBOX lrs").as_deref(), Ok("lrs"));
        assert_eq!(my_rights(b"\"a b\" \"\"").as_deref(), Ok(""));
        assert_eq!(my_rights(b"INBOX"), Err(WireError::Garbage));
    }

    #[test]
    fn capabilities_are_words() {
        let names = capabilities(b" IMAP4rev2  AUTH=PLAIN odd\"(token ");
        assert_eq!(names, ["IMAP4rev2", "AUTH=PLAIN", "odd\"(token"]);
        let many = "A ".repeat(10_000);
        assert_eq!(capabilities(many.as_bytes()).len(), MOST_CAPABILITIES);
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = list(&octets);
            let _ = capabilities(&octets);
            let _ = search(&octets);
            let _ = esearch(&octets);
            let _ = vanished(&octets);
            let _ = namespace(&octets);
            let _ = my_rights(&octets);
        }

        #[test]
        fn no_list_makes_it_panic(text in "[( )\"\\\\{}0-9a-zA-Z\r\n]{0,60}") {
            let _ = list(text.as_bytes());
            let _ = namespace(text.as_bytes());
        }
    }
}
