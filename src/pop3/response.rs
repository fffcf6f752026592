//! Status lines: `+OK` and `-ERR` (RFC 1939 §3), with the response codes of
//! RFC 2449 §8, RFC 3206 §4 and RFC 6856 §5.

use std::borrow::Cow;
use std::fmt;

/// The longest status line, in octets with CRLF (RFC 2449 §4).
const LONGEST: usize = 512;

/// Why a command failed, for the client's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// The user name, password or token is wrong (RFC 3206 §4). Clients forget
    /// the password they stored, so an outage must never carry it.
    Auth,
    /// Another session has the maildrop (RFC 2449 §8.1.2).
    InUse,
    /// The last login was too recent (RFC 2449 §8.1.1).
    LoginDelay,
    /// A failure that may pass without anybody's doing (RFC 3206 §4).
    SysTemp,
    /// A failure that somebody has to mend (RFC 3206 §4).
    SysPerm,
    /// The message needs UTF-8 mode (RFC 6856 §5).
    Utf8,
}

impl ResponseCode {
    /// The code as it is sent, in its brackets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "[AUTH]",
            Self::InUse => "[IN-USE]",
            Self::LoginDelay => "[LOGIN-DELAY]",
            Self::SysTemp => "[SYS/TEMP]",
            Self::SysPerm => "[SYS/PERM]",
            Self::Utf8 => "[UTF8]",
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One status line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    positive: bool,
    code: Option<ResponseCode>,
    text: Cow<'static, str>,
}

impl Response {
    /// `+OK` and a text.
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            positive: true,
            code: None,
            text: text.into(),
        }
    }

    /// `-ERR` and a text.
    pub fn err(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            positive: false,
            code: None,
            text: text.into(),
        }
    }

    /// The same with a response code.
    pub fn with_code(mut self, code: ResponseCode) -> Self {
        self.code = Some(code);
        self
    }

    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        self.positive
    }

    /// Its response code.
    pub fn code(&self) -> Option<ResponseCode> {
        self.code
    }

    /// Appends the line with its CRLF: at most 512 octets, printable ASCII.
    /// Whatever the text holds, it stays one line, and only a response code
    /// looks like one (RFC 2449 §6.4).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(if self.positive { b"+OK" } else { b"-ERR" });
        if let Some(code) = self.code {
            out.push(b' ');
            out.extend_from_slice(code.as_str().as_bytes());
        }
        if !self.text.is_empty() {
            out.push(b' ');
            let room = LONGEST - 2 - (out.len() - start);
            let text_start = out.len();
            out.extend(self.text.chars().take(room).map(printable));
            if self.code.is_none() && out.get(text_start) == Some(&b'[') {
                out[text_start] = b'(';
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn printable(character: char) -> u8 {
    if matches!(character, ' '..='~') {
        character as u8
    } else {
        b'?'
    }
}

/// A response that says no: it cannot be made positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Response);

impl Refusal {
    /// `-ERR` with a code, where one applies, and a text.
    pub fn new(code: Option<ResponseCode>, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Response {
            positive: false,
            code,
            text: text.into(),
        })
    }

    /// Its response code.
    pub fn code(&self) -> Option<ResponseCode> {
        self.0.code
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        refusal.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(response: Response) -> String {
        let mut out = Vec::new();
        response.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn status_lines() {
        assert_eq!(written(Response::ok("")), "+OK\r\n");
        assert_eq!(
            written(Response::ok("popgate ready")),
            "+OK popgate ready\r\n"
        );
        let refusal = Refusal::new(Some(ResponseCode::SysTemp), "later");
        assert_eq!(written(refusal.into()), "-ERR [SYS/TEMP] later\r\n");
        assert_eq!(
            written(Response::err("").with_code(ResponseCode::InUse)),
            "-ERR [IN-USE]\r\n"
        );
    }

    #[test]
    fn every_code() {
        use ResponseCode::*;
        let codes = [Auth, InUse, LoginDelay, SysTemp, SysPerm, Utf8].map(ResponseCode::as_str);
        let expected = [
            "[AUTH]",
            "[IN-USE]",
            "[LOGIN-DELAY]",
            "[SYS/TEMP]",
            "[SYS/PERM]",
            "[UTF8]",
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn text_cannot_break_out_of_its_line() {
        assert_eq!(
            written(Response::err("a\r\n+OK b\0c\u{e4}")),
            "-ERR a??+OK b?c?\r\n"
        );
    }

    #[test]
    fn text_cannot_pose_as_a_response_code() {
        assert_eq!(written(Response::err("[AUTH] no")), "-ERR (AUTH] no\r\n");
    }

    #[test]
    fn a_line_has_at_most_512_octets() {
        for text in ["x".repeat(2000), "ä".repeat(2000)] {
            let line = written(Response::err(text).with_code(ResponseCode::Auth));
            assert_eq!(line.len(), 512);
            assert!(line.ends_with("\r\n"));
        }
    }
}
