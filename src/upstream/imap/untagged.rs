//! Untagged responses that popgate reads itself, FETCH apart: CAPABILITY, LIST,
//! SEARCH and ESEARCH. Pure: a whole response in, its meaning out.
//!
//! The decoder is not asked for them: it takes no CAPABILITY without IMAP4rev1
//! (an IMAP4rev2 server has none), no LIST with extended data, and no ESEARCH.

use std::ops::RangeInclusive;

use super::fetch::number;
use super::framing::{WireError, word};

/// A mailbox in a LIST response (RFC 3501 §7.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: String,
    pub delimiter: Option<String>,
    pub is_trash: bool,
    pub is_selectable: bool,
}

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
    // A name in no known charset cannot be written back.
    let is_text = std::str::from_utf8(&name).is_ok();
    Ok(Listed {
        name: String::from_utf8_lossy(&name).into_owned(),
        delimiter: delimiter.map(|it| String::from_utf8_lossy(&it).into_owned()),
        is_trash: has("\\Trash"),
        is_selectable: is_text && !has("\\Noselect") && !has("\\NonExistent"),
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(name: &str, delimiter: Option<&str>, is_trash: bool, is_selectable: bool) -> Listed {
        Listed {
            name: name.to_owned(),
            delimiter: delimiter.map(str::to_owned),
            is_trash,
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
        }

        #[test]
        fn no_list_makes_it_panic(text in "[( )\"\\\\{}0-9a-zA-Z\r\n]{0,60}") {
            let _ = list(text.as_bytes());
        }
    }
}
