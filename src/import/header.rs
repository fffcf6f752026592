//! What tells one message from another across servers: its header, without
//! what servers add to it or leave out.

use std::fmt;

use ring::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY};

/// Fields that servers write for themselves, or rewrite: the same message has
/// them on one server and not on another.
const OF_THE_SERVER: &[&str] = &[
    "Content-Length",
    "Return-Path",
    "Status",
    "X-IMAP",
    "X-IMAPbase",
    "X-Keywords",
    "X-Message-Flag",
    "X-Status",
    "X-UID",
    "X-UIDL",
    "X-Yahoo-Newman-Property",
];

/// What some servers send in the place of NUL.
const IN_PLACE_OF_NUL: u8 = 0x80;

/// The SHA-1 of a message's header as [`HeaderHash::of`] reads it. It names
/// messages; nothing is proven by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderHash([u8; 20]);

impl HeaderHash {
    /// The hash of a message's header, which ends at the first empty line or
    /// with `header` itself. `None` where nothing is left to tell the message
    /// from another one.
    ///
    /// Left out are the fields that belong to the server (any case of letters,
    /// with their continuation lines), lines that are no header field, and
    /// blanks at the ends of lines. CRLF and LF end a line alike.
    pub fn of(header: &[u8]) -> Option<Self> {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        let mut anything = false;
        // Whether the field that a line may continue is one that counts.
        let mut counts = false;
        for line in header.split(|octet| *octet == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.first() {
                None => break,
                Some(b' ' | b'\t') => {}
                Some(_) => counts = name(line).is_some_and(is_of_the_message),
            }
            let line = line.trim_ascii_end();
            if counts && !line.is_empty() {
                update(&mut context, line);
                context.update(b"\r\n");
                anything = true;
            }
        }
        anything.then(|| Self::from(&context.finish()))
    }

    /// Reads the forty hex digits that [`HeaderHash`] prints.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return None;
        }
        let mut hash = [0; 20];
        for (octet, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
            *octet = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(hash))
    }
}

impl From<&Digest> for HeaderHash {
    fn from(digest: &Digest) -> Self {
        let mut hash = [0; 20];
        for (octet, of_digest) in hash.iter_mut().zip(digest.as_ref()) {
            *octet = *of_digest;
        }
        Self(hash)
    }
}

impl fmt::Display for HeaderHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for HeaderHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderHash({self})")
    }
}

/// The name of the field that begins on `line`: printable octets before a
/// colon, blanks between the two allowed (RFC 5322 §2.2, §4.5.8).
fn name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some(name)
}

fn is_of_the_message(name: &[u8]) -> bool {
    !OF_THE_SERVER
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

fn update(context: &mut Context, line: &[u8]) {
    for (index, part) in line.split(|octet| *octet == 0).enumerate() {
        if index > 0 {
            context.update(&[IN_PLACE_OF_NUL]);
        }
        context.update(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &str = "From: a@example.org\r\nSubject: one\r\n two\r\nDate: now\r\n";

    fn hash(header: &str) -> Option<HeaderHash> {
        HeaderHash::of(header.as_bytes())
    }

    #[test]
    fn it_is_the_sha_1_of_the_lines() {
        let expected = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        let mut context = expected;
        context.update(PLAIN.as_bytes());
        assert_eq!(hash(PLAIN), Some(HeaderHash::from(&context.finish())));
    }

    #[test]
    fn what_servers_add_makes_no_difference() {
        for same in [
            "From: a@example.org\nSubject: one\n two\nDate: now\n",
            "From: a@example.org\r\nSubject: one\r\n two\r\nDate: now",
            "From: a@example.org\r\nSubject: one\r\n two\r\nDate: now\r\n\r\nA body: here\r\n",
            "From: a@example.org\r\nSubject: one \t\r\n two\r\n  \r\nDate: now\r\n",
            "Return-Path: <a@example.org>\r\nFrom: a@example.org\r\nSubject: one\r\n two\r\nX-UID: 7\r\nDate: now\r\nStatus: RO\r\n",
            "From: a@example.org\r\nSubject: one\r\n two\r\nCONTENT-LENGTH: 5\r\nx-uidl: a\r\n b\r\n\tc\r\nDate: now\r\n",
            "From a@example.org Wed Nov 25 10:00:00 2026\r\nFrom: a@example.org\r\nSubject: one\r\n two\r\nDate: now\r\n",
            ">From a@example.org Wed Nov 25\r\n folded: too\r\nFrom: a@example.org\r\nSubject: one\r\n two\r\nno field\r\nDate: now\r\n",
            " continues: nothing\r\nFrom: a@example.org\r\nSubject: one\r\n two\r\n: no name\r\nDate: now\r\n",
            "From: a@example.org\r\nX-Status : A\r\nSubject: one\r\n two\r\nDate: now\r\n",
        ] {
            assert_eq!(hash(same), hash(PLAIN), "{same:?}");
        }
    }

    #[test]
    fn what_the_sender_wrote_does() {
        for other in [
            "From: a@example.org\r\nSubject: one\r\n twO\r\nDate: now\r\n",
            "From: a@example.org\r\nSubject: one\r\nDate: now\r\n",
            "From: a@example.org\r\nSubject: one two\r\nDate: now\r\n",
            "Subject: one\r\n two\r\nFrom: a@example.org\r\nDate: now\r\n",
            "From: a@example.org\r\nSubject: one\r\n two\r\nDate: now\r\nX-Statuses: 1\r\n",
        ] {
            assert_ne!(hash(other), hash(PLAIN), "{other:?}");
            assert!(hash(other).is_some());
        }
    }

    #[test]
    fn nul_is_what_servers_replace_it_by() {
        assert_eq!(
            HeaderHash::of(b"Subject: a\0b\0\r\n"),
            HeaderHash::of(b"Subject: a\x80b\x80\r\n")
        );
    }

    #[test]
    fn nothing_left_is_no_hash() {
        for empty in [
            "",
            "\r\n",
            "\nFrom: a\n",
            "Status: RO\r\n",
            "no field\r\n\r\n",
            "X-UID: 1\r\n 2\r\n",
        ] {
            assert_eq!(hash(empty), None, "{empty:?}");
        }
    }

    #[test]
    fn only_forty_hex_digits_are_read() {
        let printed = hash(PLAIN).unwrap().to_string();
        assert_eq!(HeaderHash::parse(&printed), hash(PLAIN));
        for bad in [
            "",
            &printed[1..],
            &format!("{printed}0"),
            &format!("+{}", &printed[1..]),
            &format!("{}\u{e9}", &printed[2..]),
        ] {
            assert_eq!(HeaderHash::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_a_header(header: Vec<u8>) {
            let hash = HeaderHash::of(&header);
            if let Some(hash) = hash {
                prop_assert_eq!(HeaderHash::parse(&hash.to_string()), Some(hash));
            }
            let lf: Vec<u8> = header.iter().copied().filter(|octet| *octet != b'\r').collect();
            let mut crlf = Vec::new();
            for octet in &lf {
                if *octet == b'\n' {
                    crlf.push(b'\r');
                }
                crlf.push(*octet);
            }
            prop_assert_eq!(HeaderHash::of(&lf), HeaderHash::of(&crlf));
        }
    }
}
