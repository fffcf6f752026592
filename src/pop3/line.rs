//! Framing of what a client sends: lines of bounded length.

use std::fmt;

use memchr::memchr;
use zeroize::Zeroize as _;

/// The longest command line in octets, line end included. RFC 2449 §4 asks for
/// 255; passwords and user names are sometimes longer.
pub const COMMAND: usize = 512;

/// The longest line of a SASL exchange: an answer, or an AUTH command with its
/// initial response. Tokens are long; RFC 4422 leaves the limit to the server.
pub const EXCHANGE: usize = 16 * 1024;

/// What kind of line the session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expects {
    /// A command: at most 512 octets, 16 KiB when it begins with `AUTH `.
    Command,
    /// An answer within a SASL exchange: at most 16 KiB.
    Continuation,
}

/// One line, or the fact that it was too long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A line without its line end.
    Line(&'a [u8]),
    /// A line longer than its limit; nothing of it is kept.
    TooLong,
}

impl fmt::Debug for Framed<'_> {
    /// Shows no octet of the line: it may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "Line({} octets)", line.len()),
            Self::TooLong => f.write_str("TooLong"),
        }
    }
}

/// Octets from the client, and the lines in them.
///
/// CRLF ends a line; a bare LF does so too, since simple clients send it. Once
/// [`next`] has returned `None`, the buffer holds less than one line of the
/// greatest length. Lines are wiped once the next call shows that they were
/// dealt with.
///
/// [`next`]: LineBuffer::next
#[derive(Default)]
pub struct LineBuffer {
    octets: Vec<u8>,
    /// Where the octets begin that belong to no frame yet.
    start: usize,
    /// How many of the octets before `start` are wiped.
    wiped: usize,
    /// The rest of a line that was too long is being thrown away.
    swallowing: bool,
}

impl LineBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what arrived.
    pub fn push(&mut self, mut arrived: &[u8]) {
        if self.swallowing {
            let Some(end) = memchr(b'\n', arrived) else {
                return;
            };
            self.swallowing = false;
            arrived = &arrived[end + 1..];
        }
        self.forget_framed();
        let needed = self.octets.len() + arrived.len();
        if needed > self.octets.capacity() {
            // A Vec that grows by itself would leave a copy behind, unwiped.
            let mut larger = Vec::with_capacity(needed.next_power_of_two().max(COMMAND));
            larger.extend_from_slice(&self.octets);
            self.octets.zeroize();
            self.octets = larger;
        }
        self.octets.extend_from_slice(arrived);
    }

    /// The next line, judged by what the session expects now. `None`: more
    /// octets are needed.
    pub fn next(&mut self, expects: Expects) -> Option<Framed<'_>> {
        self.wipe();
        let waiting = &self.octets[self.start..];
        let limit = match expects {
            Expects::Command if !begins_with_auth(waiting) => COMMAND,
            Expects::Command | Expects::Continuation => EXCHANGE,
        };
        let within_limit = &waiting[..waiting.len().min(limit)];
        if let Some(end) = memchr(b'\n', within_limit) {
            let line = self.start..self.start + end;
            self.start = line.end + 1;
            let line = &self.octets[line];
            return Some(Framed::Line(line.strip_suffix(b"\r").unwrap_or(line)));
        }
        if waiting.len() < limit {
            self.forget_framed();
            return None;
        }
        match memchr(b'\n', waiting) {
            Some(end) => self.start += end + 1,
            None => {
                self.start = self.octets.len();
                self.swallowing = true;
            }
        }
        self.wipe();
        Some(Framed::TooLong)
    }

    /// Octets that belong to no frame yet.
    pub fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    /// Whether no octet waits to be framed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a complete line waits.
    pub fn has_line(&self) -> bool {
        memchr(b'\n', &self.octets[self.start..]).is_some()
    }

    fn wipe(&mut self) {
        self.octets[self.wiped..self.start].zeroize();
        self.wiped = self.start;
    }

    /// Moves what is not framed to the front and wipes the rest; gives back the
    /// memory that a burst of commands took.
    fn forget_framed(&mut self) {
        if self.start == 0 {
            return;
        }
        let rest = self.octets.len() - self.start;
        self.octets.copy_within(self.start.., 0);
        self.octets[rest..].zeroize();
        self.octets.truncate(rest);
        self.start = 0;
        self.wiped = 0;
        if rest == 0 && self.octets.capacity() > EXCHANGE {
            self.octets = Vec::new();
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

impl fmt::Debug for LineBuffer {
    /// Shows no octet of the lines: they may be passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineBuffer({} octets)", self.len())
    }
}

fn begins_with_auth(line: &[u8]) -> bool {
    line.get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(input: &[u8], expects: Expects) -> Vec<Option<Vec<u8>>> {
        let mut buffer = LineBuffer::new();
        buffer.push(input);
        let mut frames = Vec::new();
        while let Some(frame) = buffer.next(expects) {
            frames.push(match frame {
                Framed::Line(line) => Some(line.to_vec()),
                Framed::TooLong => None,
            });
        }
        frames
    }

    fn line(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn crlf_and_bare_lf_end_a_line() {
        let found = frames(b"STAT\r\nLIST\nQUIT\r\nrest", Expects::Command);
        assert_eq!(found, [line("STAT"), line("LIST"), line("QUIT")]);
    }

    #[test]
    fn other_octets_stay_in_the_line() {
        assert_eq!(
            frames(b"a\rb\0\r\r\n\n", Expects::Command),
            [line("a\rb\0\r"), line("")]
        );
    }

    #[test]
    fn the_limit_of_a_command_line() {
        let command = |octets: usize| {
            let mut line = vec![b'x'; octets - 2];
            line.extend_from_slice(b"\r\nNOOP\r\n");
            line
        };
        let longest = frames(&command(512), Expects::Command);
        assert_eq!(longest, [Some(vec![b'x'; 510]), line("NOOP")]);
        assert_eq!(
            frames(&command(513), Expects::Command),
            [None, line("NOOP")]
        );
        assert_eq!(
            frames(&command(9000), Expects::Command),
            [None, line("NOOP")]
        );
    }

    #[test]
    fn lines_of_an_exchange_may_be_long() {
        let token = "t".repeat(16_000);
        let auth = format!("aUtH XOAUTH2 {token}\r\n");
        let expected = Some(auth.trim_end().as_bytes().to_vec());
        assert_eq!(frames(auth.as_bytes(), Expects::Command), [expected]);
        let answer = format!("{token}\r\n");
        assert_eq!(
            frames(answer.as_bytes(), Expects::Continuation),
            [line(&token)]
        );
        assert_eq!(frames(answer.as_bytes(), Expects::Command), [None]);
        let too_long = format!("{}\r\n", "t".repeat(16_383));
        assert_eq!(frames(too_long.as_bytes(), Expects::Continuation), [None]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut buffer = LineBuffer::new();
        let chunk = [b'x'; 4096];
        let mut too_long = 0;
        for _ in 0..1000 {
            buffer.push(&chunk);
            while let Some(frame) = buffer.next(Expects::Command) {
                assert_eq!(frame, Framed::TooLong);
                too_long += 1;
            }
            assert!(buffer.is_empty());
            assert!(buffer.octets.capacity() <= 8192);
        }
        assert_eq!(too_long, 1);
        buffer.push(b"\r\nNOOP\r\n");
        assert_eq!(buffer.next(Expects::Command), Some(Framed::Line(b"NOOP")));
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut buffer = LineBuffer::new();
        buffer.push(&b"NOOP\r\n".repeat(20_000));
        while buffer.next(Expects::Command).is_some() {}
        assert!(buffer.octets.capacity() <= EXCHANGE);
    }

    #[test]
    fn framed_lines_are_wiped() {
        let mut buffer = LineBuffer::new();
        buffer.push(b"PASS tanstaaf\r\nSTAT\r\n");
        assert!(buffer.next(Expects::Command).is_some());
        assert!(buffer.has_line());
        assert!(buffer.next(Expects::Command).is_some());
        assert_eq!(buffer.octets[..15], [0; 15]);
        assert!(!buffer.has_line());
        assert!(buffer.next(Expects::Command).is_none());
        assert!(buffer.octets.is_empty());
    }

    #[test]
    fn debug_shows_no_password() {
        let mut buffer = LineBuffer::new();
        buffer.push(b"PASS tanstaaf\r\n");
        let mut shown = format!("{buffer:?}");
        shown += &format!("{:?}", buffer.next(Expects::Command));
        assert!(!shown.contains("tanstaaf"), "{shown}");
    }
}
