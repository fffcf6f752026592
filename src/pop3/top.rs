//! What belongs to TOP (RFC 1939 §7): the header, the blank line, and so many
//! lines of the body.

use memchr::memchr_iter;

/// Finds the end of the first lines of a message that passes by in pieces.
#[derive(Debug)]
pub struct TopLimiter {
    place: Place,
    /// Lines of the body that are still to come.
    lines: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the header; of the current line there is only this so far.
    Header(Line),
    Body,
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Nothing,
    Cr,
    Text,
}

impl TopLimiter {
    /// For the header and `lines` lines of the body.
    pub fn new(lines: u64) -> Self {
        Self {
            place: Place::Header(Line::Nothing),
            lines,
        }
    }

    /// How many octets at the start of the next piece belong to what was asked
    /// for. Once it is less than the piece has, no later piece counts.
    pub fn take(&mut self, chunk: &[u8]) -> usize {
        match self.place {
            Place::Header(line) => self.take_header(chunk, line),
            Place::Body => self.take_body(chunk),
            Place::Complete => 0,
        }
    }

    /// Whether everything that was asked for has passed.
    pub fn is_complete(&self) -> bool {
        self.place == Place::Complete
    }

    fn take_header(&mut self, chunk: &[u8], mut before: Line) -> usize {
        let mut start = 0;
        for lf in memchr_iter(b'\n', chunk) {
            if after(before, &chunk[start..lf]) != Line::Text {
                let body = lf + 1;
                self.place = if self.lines == 0 {
                    Place::Complete
                } else {
                    Place::Body
                };
                return body + self.take(&chunk[body..]);
            }
            before = Line::Nothing;
            start = lf + 1;
        }
        self.place = Place::Header(after(before, &chunk[start..]));
        chunk.len()
    }

    fn take_body(&mut self, chunk: &[u8]) -> usize {
        for lf in memchr_iter(b'\n', chunk) {
            self.lines -= 1;
            if self.lines == 0 {
                self.place = Place::Complete;
                return lf + 1;
            }
        }
        chunk.len()
    }
}

/// What a line consists of once `more` has followed.
fn after(line: Line, more: &[u8]) -> Line {
    match (line, more) {
        (line, b"") => line,
        (Line::Nothing, b"\r") => Line::Cr,
        _ => Line::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(message: &str, lines: u64) -> (&str, bool) {
        let mut limiter = TopLimiter::new(lines);
        let end = limiter.take(message.as_bytes());
        assert_eq!(limiter.take(b"more\r\n") == 0, limiter.is_complete());
        (&message[..end], end < message.len())
    }

    #[test]
    fn lines_are_counted_behind_the_blank_line() {
        let message = "A: b\r\n\r\none\r\n\r\nthree\r\n";
        assert_eq!(top(message, 0), ("A: b\r\n\r\n", true));
        assert_eq!(top(message, 1), ("A: b\r\n\r\none\r\n", true));
        assert_eq!(top(message, 2), ("A: b\r\n\r\none\r\n\r\n", true));
        assert_eq!(top(message, 3), (message, false));
        assert_eq!(top(message, u64::MAX), (message, false));
    }

    #[test]
    fn line_ends_of_any_kind() {
        assert_eq!(top("A: b\n\nbody\n", 0), ("A: b\n\n", true));
        assert_eq!(top("A: b\r\n\nbody\n", 0), ("A: b\r\n\n", true));
        assert_eq!(top("A: b\n\r\nbody\n", 0), ("A: b\n\r\n", true));
    }

    #[test]
    fn messages_without_header_or_body() {
        assert_eq!(top("\r\nbody\r\nbody\r\n", 1), ("\r\nbody\r\n", true));
        assert_eq!(top("A: b\r\n", 0), ("A: b\r\n", false));
        assert_eq!(top("", 0), ("", false));
    }

    #[test]
    fn a_line_with_more_than_its_end_is_not_blank() {
        assert_eq!(
            top("A: b\r\n \r\n\r\r\n\r\nbody", 0),
            ("A: b\r\n \r\n\r\r\n\r\n", true)
        );
    }
}
