//! Messages as POP3 sends them (RFC 1939 §3): lines that end in CRLF, a dot at
//! the start of a line doubled, and a dot alone behind the last line.

use memchr::{memchr, memchr_iter};

/// What becomes of NUL in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NulPolicy {
    /// It passes.
    #[default]
    Keep,
    /// 0x80 takes its place: Outlook hangs on NUL.
    Replace,
}

const IN_PLACE_OF_NUL: u8 = 0x80;

/// The octet before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// A line end, or none: a line starts here.
    LineEnd,
    Cr,
    Other,
}

/// Turns a message into the lines of a multi-line response, piece by piece.
/// Where the message is cut into pieces makes no difference.
///
/// A bare LF becomes CRLF; a bare CR passes. The octets it counts are those
/// that STAT, LIST and RETR speak of: with CRLF, before dot-stuffing.
#[derive(Debug)]
pub struct DotStuffer {
    nul: NulPolicy,
    last: Last,
    octets: u64,
}

impl DotStuffer {
    /// Ready for the first octet of a message.
    pub fn new(nul: NulPolicy) -> Self {
        Self {
            nul,
            last: Last::LineEnd,
            octets: 0,
        }
    }

    /// Appends the next piece of the message to `out`, encoded.
    pub fn encode(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let (Some(&first), Some(&final_octet)) = (chunk.first(), chunk.last()) else {
            return;
        };
        let encoded_from = out.len();
        out.reserve(chunk.len() + chunk.len() / 32 + 2);
        if self.last == Last::LineEnd && first == b'.' {
            out.push(b'.');
        }
        let mut added = 0;
        // Octets before `copied` are in `out`. Between the few places where
        // something is added, whole runs of lines are copied.
        let mut copied = 0;
        for lf in memchr_iter(b'\n', chunk) {
            let behind_cr = match lf.checked_sub(1) {
                Some(before) => chunk[before] == b'\r',
                None => self.last == Last::Cr,
            };
            if !behind_cr {
                out.extend_from_slice(&chunk[copied..lf]);
                out.push(b'\r');
                copied = lf;
                added += 1;
            }
            if chunk.get(lf + 1) == Some(&b'.') {
                out.extend_from_slice(&chunk[copied..=lf]);
                out.push(b'.');
                copied = lf + 1;
            }
        }
        out.extend_from_slice(&chunk[copied..]);
        self.octets += chunk.len() as u64 + added;
        self.last = match final_octet {
            b'\n' => Last::LineEnd,
            b'\r' => Last::Cr,
            _ => Last::Other,
        };
        if self.nul == NulPolicy::Replace {
            replace_nul(&mut out[encoded_from..]);
        }
    }

    /// Octets of the message so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Ends the message: appends the CRLF that its last line may lack, and the
    /// terminating dot. Returns the octets of the message, that CRLF included.
    ///
    /// An empty message has no line (RFC 1939 §3: a response's lines, then the
    /// dot), so nothing is added to it: LIST says 0 octets, and 0 are sent.
    pub fn finish(mut self, out: &mut Vec<u8>) -> u64 {
        if self.last != Last::LineEnd {
            out.extend_from_slice(b"\r\n");
            self.octets += 2;
        }
        out.extend_from_slice(b".\r\n");
        self.octets
    }
}

fn replace_nul(mut octets: &mut [u8]) {
    while let Some(nul) = memchr(0, octets) {
        octets[nul] = IN_PLACE_OF_NUL;
        octets = &mut octets[nul + 1..];
    }
}

/// The octets that a [`DotStuffer`] would count for a whole message.
pub fn octets_of(message: &[u8]) -> u64 {
    let bare = memchr_iter(b'\n', message)
        .filter(|&lf| {
            lf.checked_sub(1)
                .is_none_or(|before| message[before] != b'\r')
        })
        .count();
    let lacking = if matches!(message.last(), None | Some(b'\n')) {
        0
    } else {
        2
    };
    (message.len() + bare + lacking) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(message: &[u8], nul: NulPolicy) -> (Vec<u8>, u64) {
        let mut stuffer = DotStuffer::new(nul);
        let mut out = Vec::new();
        stuffer.encode(message, &mut out);
        let octets = stuffer.finish(&mut out);
        assert_eq!(octets, octets_of(message));
        (out, octets)
    }

    fn becomes(message: &str, wire: &str, octets: u64) {
        let (out, counted) = stuffed(message.as_bytes(), NulPolicy::Keep);
        assert_eq!(String::from_utf8(out).unwrap(), wire);
        assert_eq!(counted, octets);
    }

    #[test]
    fn line_ends() {
        becomes("a\r\nb\r\n", "a\r\nb\r\n.\r\n", 6);
        becomes("a\nb\n", "a\r\nb\r\n.\r\n", 6);
        becomes("\n\n", "\r\n\r\n.\r\n", 4);
        becomes("a\rb\r\r\n", "a\rb\r\r\n.\r\n", 6);
    }

    #[test]
    fn a_missing_last_line_end() {
        becomes("a", "a\r\n.\r\n", 3);
        becomes("a\r", "a\r\r\n.\r\n", 4);
    }

    #[test]
    fn an_empty_message_is_only_the_dot() {
        becomes("", ".\r\n", 0);
    }

    #[test]
    fn dots() {
        becomes(".", "..\r\n.\r\n", 3);
        becomes(".\r\n..\r\na.\r\n", "..\r\n...\r\na.\r\n.\r\n", 11);
        becomes("\n.\n", "\r\n..\r\n.\r\n", 5);
        becomes("a\r.b\r\n", "a\r.b\r\n.\r\n", 6);
    }

    #[test]
    fn nul_and_8_bit() {
        let (out, octets) = stuffed(b"\0.\xff\r\n\0", NulPolicy::Keep);
        assert_eq!(
            (out.as_slice(), octets),
            (&b"\0.\xff\r\n\0\r\n.\r\n"[..], 8)
        );
        let (out, octets) = stuffed(b"\0.\xff\r\n\0", NulPolicy::Replace);
        assert_eq!(
            (out.as_slice(), octets),
            (&b"\x80.\xff\r\n\x80\r\n.\r\n"[..], 8)
        );
    }
}
