//! A small IMAP client that knows nothing of popgate's: it fills mailboxes and
//! tells what is in them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// A message as a mailbox holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    pub uid: u32,
    /// Sorted; without `\Recent`, which depends on who looks first.
    pub flags: Vec<String>,
    pub octets: Vec<u8>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "UID {} {:?} ({} octets)",
            self.uid,
            self.flags,
            self.octets.len()
        )
    }
}

/// One response: its text, and the octets of its literals.
pub struct Response {
    pub text: String,
    pub literals: Vec<Vec<u8>>,
}

/// An IMAP session in the clear on 127.0.0.1.
pub struct ImapClient {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl ImapClient {
    /// Connects and logs in.
    pub fn login(port: u16, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Self {
            stream: BufReader::new(stream),
            tag: 0,
        };
        let greeting = client.response();
        assert!(
            greeting.text.starts_with("* OK"),
            "greeting: {}",
            greeting.text
        );
        client.ok(&format!("LOGIN {user} {password}"));
        client
    }

    /// Sends a command and returns its responses, the tagged one last.
    pub fn command(&mut self, command: &str) -> Vec<Response> {
        self.tag += 1;
        let line = format!("t{} {command}\r\n", self.tag);
        self.stream.get_mut().write_all(line.as_bytes()).unwrap();
        self.rest()
    }

    /// The same, where it must end in OK.
    pub fn ok(&mut self, command: &str) -> Vec<Response> {
        let responses = self.command(command);
        assert_ok(command, &responses);
        responses
    }

    /// Deletes a mailbox. Cyrus keeps what is deleted under a name with the second
    /// in it, and refuses a second one within it.
    pub fn delete_mailbox(&mut self, mailbox: &str) {
        let command = format!("DELETE {mailbox}");
        for _ in 0..30 {
            let responses = self.command(&command);
            let last = &responses.last().unwrap().text;
            if !last.contains("already exists") {
                return assert_ok(&command, &responses);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{command}: its name is taken all the time");
    }

    /// Appends a message (CRLF line ends).
    pub fn append(&mut self, mailbox: &str, message: &[u8]) {
        self.append_as(mailbox, message);
    }

    /// The same, as received at a time (`01-Jan-2026 00:00:00 +0000`).
    pub fn append_at(&mut self, mailbox: &str, time: &str, message: &[u8]) {
        self.append_as(&format!("{mailbox} \"{time}\""), message);
    }

    fn append_as(&mut self, how: &str, message: &[u8]) {
        self.tag += 1;
        let command = format!("t{} APPEND {how} {{{}}}\r\n", self.tag, message.len());
        self.stream.get_mut().write_all(command.as_bytes()).unwrap();
        loop {
            let response = self.response();
            if response.text.starts_with('+') {
                break;
            }
            assert!(response.text.starts_with("* "), "APPEND: {}", response.text);
        }
        self.stream.get_mut().write_all(message).unwrap();
        self.stream.get_mut().write_all(b"\r\n").unwrap();
        assert_ok("APPEND", &self.rest());
    }

    /// All messages of a mailbox, in the order of UIDs. Changes nothing.
    pub fn dump(&mut self, mailbox: &str) -> Vec<Stored> {
        let opened = self.ok(&format!("EXAMINE {mailbox}"));
        // Cyrus answers NO to FETCH 1:* in an empty mailbox.
        if opened.iter().any(|response| response.text == "* 0 EXISTS") {
            return Vec::new();
        }
        let mut messages: Vec<Stored> = self
            .ok("UID FETCH 1:* (UID FLAGS BODY.PEEK[])")
            .into_iter()
            .filter(|response| response.text.contains(" FETCH ("))
            .map(stored)
            .collect();
        messages.sort_by_key(|message| message.uid);
        messages
    }

    /// Adds flags to messages of a mailbox: `\Deleted`, for another client.
    pub fn add_flags(&mut self, mailbox: &str, uids: &str, flags: &str) {
        self.ok(&format!("SELECT {mailbox}"));
        self.ok(&format!("UID STORE {uids} +FLAGS ({flags})"));
    }

    /// Removes messages for good, as another client would.
    pub fn expunge(&mut self, mailbox: &str, uids: &str) {
        self.add_flags(mailbox, uids, "\\Deleted");
        self.ok(&format!("UID EXPUNGE {uids}"));
    }

    fn rest(&mut self) -> Vec<Response> {
        let tag = format!("t{} ", self.tag);
        let mut responses = Vec::new();
        loop {
            let response = self.response();
            let last = response.text.starts_with(&tag);
            responses.push(response);
            if last {
                return responses;
            }
        }
    }

    fn response(&mut self) -> Response {
        let mut response = Response {
            text: String::new(),
            literals: Vec::new(),
        };
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line).unwrap();
            assert!(
                line.ends_with(b"\r\n"),
                "the server closed: {:?}",
                response.text
            );
            line.truncate(line.len() - 2);
            response.text.push_str(&String::from_utf8_lossy(&line));
            let Some(length) = literal_length(&response.text) else {
                return response;
            };
            let mut literal = vec![0; length];
            self.stream.read_exact(&mut literal).unwrap();
            response.literals.push(literal);
        }
    }
}

fn literal_length(line: &str) -> Option<usize> {
    let (_, length) = line.strip_suffix('}')?.rsplit_once('{')?;
    length.parse().ok()
}

fn assert_ok(command: &str, responses: &[Response]) {
    let last = &responses.last().unwrap().text;
    let status = last.split(' ').nth(1);
    assert_eq!(status, Some("OK"), "{command}: {last}");
}

/// The UID in an answer to FETCH, and the flags, sorted, without `\Recent`.
pub(super) fn uid_and_flags(response: &Response) -> (u32, Vec<String>) {
    let after = |name: &str| {
        let at = response
            .text
            .find(name)
            .unwrap_or_else(|| panic!("no {name}: {}", response.text));
        &response.text[at + name.len()..]
    };
    let uid: String = after("UID ")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let flags = after("FLAGS (").split(')').next().unwrap();
    let mut flags: Vec<String> = flags
        .split_whitespace()
        .filter(|flag| !flag.eq_ignore_ascii_case("\\Recent"))
        .map(str::to_owned)
        .collect();
    flags.sort();
    (uid.parse().unwrap(), flags)
}

fn stored(mut response: Response) -> Stored {
    let (uid, flags) = uid_and_flags(&response);
    // A server may send an empty body as a quoted string.
    Stored {
        uid,
        flags,
        octets: response.literals.pop().unwrap_or_default(),
    }
}
