//! Commands, built from typed tokens: nothing that came from outside can
//! become protocol (RFC 3501 §9).

use zeroize::{Zeroize, Zeroizing};

use crate::upstream::UpstreamError;

/// The longest string that is sent quoted instead of as a literal.
const LONGEST_QUOTED: usize = 500;

/// A command without its tag. Wiped when dropped: it may hold a password.
pub(super) struct Command {
    /// What goes out in one piece; between two pieces the server must ask for
    /// the literal that follows.
    pieces: Vec<Zeroizing<Vec<u8>>>,
    unasked: usize,
}

/// A string that does not go into a command: with NUL it could not, with CR or
/// LF it would be taken for another line by whoever reads less well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsendable;

impl Command {
    /// A command that begins with a keyword of ours.
    pub fn new(keyword: &'static str) -> Self {
        let first = Zeroizing::new(keyword.as_bytes().to_vec());
        Self {
            pieces: vec![first],
            unasked: 0,
        }
    }

    /// The server takes literals of up to so many octets without being asked
    /// (RFC 7888).
    pub fn with_unasked_literals(mut self, octets: usize) -> Self {
        self.unasked = octets;
        self
    }

    /// Whether it opens a mailbox: SELECT or EXAMINE.
    pub fn selects(&self) -> bool {
        let opens = |first: &Zeroizing<Vec<u8>>| {
            first.starts_with(b"SELECT ") || first.starts_with(b"EXAMINE ")
        };
        self.pieces.first().is_some_and(opens)
    }

    /// Appends a space and words of ours.
    pub fn word(mut self, word: &'static str) -> Self {
        self.append(b" ");
        self.append(word.as_bytes());
        self
    }

    /// Appends a space and a UID set, which is digits, commas and colons by
    /// construction.
    pub fn set(mut self, set: &super::uid_set::UidSet) -> Self {
        self.append(b" ");
        self.append(set.to_string().as_bytes());
        self
    }

    /// Appends a space, these UIDs and all from `first` on.
    pub fn uids_and_beyond(mut self, uids: &[u32], first: u32) -> Self {
        let mut set = String::from(" ");
        for uid in uids {
            set.push_str(&format!("{uid},"));
        }
        set.push_str(&format!("{first}:*"));
        self.append(set.as_bytes());
        self
    }

    /// Appends `(QRESYNC (uid_validity modseq))` (RFC 7162 §3.2.5).
    pub fn since(mut self, uid_validity: u32, modseq: u64) -> Self {
        self.append(format!(" (QRESYNC ({uid_validity} {modseq}))").as_bytes());
        self
    }

    /// Appends a space and a keyword of a message, which is ours.
    pub fn flag(mut self, change: &'static str, flag: &'static str) -> Self {
        self.append(format!(" {change} ({flag})").as_bytes());
        self
    }

    /// Appends a space and data items of ours in parentheses.
    pub fn items(mut self, items: &str) -> Self {
        self.append(format!(" ({items})").as_bytes());
        self
    }

    /// Appends a space and a range of message sequence numbers.
    pub fn messages(mut self, first: u32, last: u32) -> Self {
        self.append(format!(" {first}:{last}").as_bytes());
        self
    }

    /// Appends a space and what [`base64()`] made.
    pub fn base64(mut self, encoded: &str) -> Self {
        self.append(b" ");
        self.append(encoded.as_bytes());
        self
    }

    /// Appends `(UID BODY.PEEK[section]<first.octets>)`.
    pub fn peek(mut self, section: &'static str, part: Option<(u64, u64)>) -> Self {
        let part = part.map_or(String::new(), |(first, octets)| {
            format!("<{first}.{octets}>")
        });
        self.append(format!(" (UID BODY.PEEK[{section}]{part})").as_bytes());
        self
    }

    /// Appends `("name" "popgate" "x-originating-ip" "address")`.
    pub fn identity(mut self, client: std::net::IpAddr) -> Self {
        let client = client.to_canonical();
        let pairs = format!(" (\"name\" \"popgate\" \"x-originating-ip\" \"{client}\")");
        self.append(pairs.as_bytes());
        self
    }

    /// Appends a space and a string: quoted where that can hold it, else as a
    /// literal (RFC 3501 §4.3).
    pub fn string(mut self, text: &[u8]) -> Result<Self, Unsendable> {
        if text.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
            return Err(Unsendable);
        }
        self.append(b" ");
        if text.len() <= LONGEST_QUOTED && text.iter().all(|octet| (0x20..0x7f).contains(octet)) {
            self.append_quoted(text);
        } else {
            let unasked = text.len() <= self.unasked;
            let plus = if unasked { "+" } else { "" };
            self.append(format!("{{{}{plus}}}\r\n", text.len()).as_bytes());
            if !unasked {
                self.pieces.push(Zeroizing::new(Vec::new()));
            }
            self.append(text);
        }
        Ok(self)
    }

    /// Appends a space and the name of a mailbox. As far as it is ASCII it is
    /// quoted however long it is: what waits for leave to send a literal cannot
    /// be sent ahead.
    pub fn mailbox(mut self, name: &str) -> Result<Self, UpstreamError> {
        if name.bytes().all(|octet| (0x20..0x7f).contains(&octet)) {
            self.append(b" ");
            self.append_quoted(name.as_bytes());
            return Ok(self);
        }
        self.string(name.as_bytes())
            .map_err(|_| UpstreamError::protocol("a mailbox name with NUL or line ends"))
    }

    fn append_quoted(&mut self, text: &[u8]) {
        self.append(b"\"");
        for octet in text {
            if matches!(octet, b'"' | b'\\') {
                self.append(b"\\");
            }
            self.append(std::slice::from_ref(octet));
        }
        self.append(b"\"");
    }

    fn append(&mut self, octets: &[u8]) {
        if let Some(last) = self.pieces.last_mut() {
            append(last, octets);
        }
    }

    /// Whether it goes out in one piece: the server need not be asked first.
    pub fn goes_unasked(&self) -> bool {
        self.pieces.len() == 1
    }

    /// The pieces to send, each behind the server's leave to go on.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| piece.as_slice())
    }
}

/// Appends `octets`; where `text` must move to grow, what is left behind is
/// wiped.
pub(super) fn append(text: &mut Zeroizing<Vec<u8>>, octets: &[u8]) {
    if text.capacity() - text.len() < octets.len() {
        let mut grown = Vec::with_capacity((text.len() + octets.len()) * 2);
        grown.extend_from_slice(text);
        text.zeroize();
        **text = grown;
    }
    text.extend_from_slice(octets);
}

/// Base64 with padding (RFC 4648 §4), wiped when dropped.
pub(super) fn base64(octets: &[u8]) -> Zeroizing<String> {
    use base64::Engine as _;
    Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(command: Command) -> Vec<String> {
        command
            .pieces()
            .map(|piece| String::from_utf8_lossy(piece).into_owned())
            .collect()
    }

    #[test]
    fn strings_are_quoted_where_that_can_hold_them() {
        let login = Command::new("LOGIN")
            .string(b"al ice")
            .unwrap()
            .string(b"a\"b\\c")
            .unwrap();
        assert_eq!(text(login), [r#"LOGIN "al ice" "a\"b\\c""#]);
    }

    #[test]
    fn other_strings_are_literals_that_the_server_must_ask_for() {
        let login = Command::new("LOGIN")
            .string("ä".as_bytes())
            .unwrap()
            .string(b"x\ty")
            .unwrap();
        assert_eq!(text(login), ["LOGIN {2}\r\n", "ä {3}\r\n", "x\ty"]);
    }

    #[test]
    fn some_literals_need_no_leave() {
        let login = Command::new("LOGIN").with_unasked_literals(3);
        let login = login.string("ä".as_bytes()).unwrap().string(b"b").unwrap();
        assert_eq!(text(login), ["LOGIN {2+}\r\nä \"b\""]);
        let login = Command::new("LOGIN").with_unasked_literals(3);
        let login = login.string("äö".as_bytes()).unwrap();
        assert_eq!(text(login), ["LOGIN {4}\r\n", "äö"]);
    }

    #[test]
    fn what_could_be_taken_for_protocol_is_refused() {
        for text in ["a\0b", "a\rb", "a\nb", "a\r\nP2 DELETE INBOX"] {
            assert!(Command::new("LOGIN").string(text.as_bytes()).is_err());
        }
    }
}
