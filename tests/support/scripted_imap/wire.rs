//! Commands as they come in: lines with literals, one connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Answer, Shared};
use crate::support::PATIENCE;
use crate::support::tls::Stream;

/// A command of the client.
#[derive(Clone, Debug)]
pub struct Command {
    pub tag: String,
    /// Its name in upper case, with `UID ` in front where it is there.
    pub name: String,
    /// What follows the name, literals in place of their announcement.
    pub arguments: String,
    /// The connection it came on, from 0.
    pub connection: usize,
    /// How many commands of this name came on this connection before it.
    pub nth: usize,
    /// Whether more had come behind it when it was read.
    pub followed: bool,
}

impl Command {
    /// `TAG OK text`, as a line.
    pub fn ok(&self, text: &str) -> String {
        format!("{} OK {text}\r\n", self.tag)
    }

    /// `TAG NO text`, as a line.
    pub fn no(&self, text: &str) -> String {
        format!("{} NO {text}\r\n", self.tag)
    }

    /// `TAG BAD text`, as a line.
    pub fn bad(&self, text: &str) -> String {
        format!("{} BAD {text}\r\n", self.tag)
    }

    /// What overrides are matched against.
    pub fn name_and_arguments(&self) -> String {
        format!("{} {}", self.name, self.arguments)
    }

    /// The arguments, split at blanks outside of parentheses, brackets and
    /// quotes, and without those quotes.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let (mut word, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
        for letter in self.arguments.chars() {
            match letter {
                _ if escaped => {
                    word.push(letter);
                    escaped = false;
                }
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ' ' if !quoted && depth == 0 => words.push(std::mem::take(&mut word)),
                _ => {
                    match letter {
                        '(' | '[' if !quoted => depth += 1,
                        ')' | ']' if !quoted => depth -= 1,
                        _ => {}
                    }
                    word.push(letter);
                }
            }
        }
        words.push(word);
        words
    }
}

pub(super) struct Connection<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) number: usize,
    stream: BufReader<Stream>,
    seen: Vec<String>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        socket: TcpStream,
        number: usize,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        shared
            .sockets
            .lock()
            .unwrap()
            .push((number, socket.try_clone()?));
        let stream = match &shared.tls {
            Some(config) if shared.implicit_tls => Stream::accept_tls(socket, Arc::clone(config))?,
            _ => Stream::Plain(socket),
        };
        Ok(Self {
            shared,
            number,
            stream: BufReader::new(stream),
            seen: Vec::new(),
        })
    }

    /// Reads the next command; `None` when the client has closed.
    pub(super) fn read_command(&mut self) -> io::Result<Option<Command>> {
        let mut line = String::new();
        let mut journal = String::new();
        loop {
            let mut part = Vec::new();
            self.stream.read_until(b'\n', &mut part)?;
            if !part.ends_with(b"\r\n") {
                if !part.is_empty() {
                    self.record(&format!(
                        "{journal}{} (cut)",
                        String::from_utf8_lossy(&part)
                    ));
                }
                return Ok(None);
            }
            part.truncate(part.len() - 2);
            let part = String::from_utf8_lossy(&part).into_owned();
            journal.push_str(&part);
            let Some((text, length, waits)) = literal(&part) else {
                line.push_str(&part);
                break;
            };
            if waits {
                self.send(b"+ go ahead\r\n")?;
            } else if !self.shared.announces("LITERAL+") {
                self.record_command(&journal);
                self.send(b"* BYE LITERAL+ was not announced\r\n")?;
                return Ok(None);
            }
            let mut octets = vec![0; length];
            self.stream.read_exact(&mut octets)?;
            let octets = String::from_utf8_lossy(&octets).into_owned();
            let escaped = octets.replace('\\', "\\\\").replace('"', "\\\"");
            line.push_str(&format!("{text}\"{escaped}\""));
            journal.push_str(&format!("\r\n{octets}"));
        }
        let (tag, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (name, arguments) = if first.eq_ignore_ascii_case("UID") {
            let (second, arguments) = after.split_once(' ').unwrap_or((after, ""));
            (format!("UID {}", second.to_ascii_uppercase()), arguments)
        } else {
            (first.to_ascii_uppercase(), after)
        };
        self.record_command(&journal);
        let nth = self.seen.iter().filter(|earlier| **earlier == name).count();
        self.seen.push(name.clone());
        Ok(Some(Command {
            tag: tag.to_owned(),
            name,
            arguments: arguments.to_owned(),
            connection: self.number,
            nth,
            followed: !self.stream.buffer().is_empty(),
        }))
    }

    /// Asks for a line (`+ text`) and reads it.
    pub(super) fn ask_client(&mut self, text: &str) -> io::Result<String> {
        self.send(format!("+ {text}\r\n").as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.ends_with("\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.len() - 2);
        self.record(&format!("+ {line}"));
        Ok(line)
    }

    /// IDLE (RFC 2177): says `news` as it comes, until the client says DONE.
    /// False: it has closed, or said something else.
    pub(super) fn idle(&mut self, mut news: impl FnMut() -> String) -> io::Result<bool> {
        let mut line = Vec::new();
        std::thread::sleep(self.shared.idles_after);
        if self.has_more()? {
            self.record("(something in front of leave to idle)");
        }
        self.send(b"+ idling\r\n")?;
        self.set_patience(IDLE_PAUSE)?;
        let ended = loop {
            let news = news();
            if !news.is_empty() {
                self.send(news.as_bytes())?;
            }
            match self.stream.read_until(b'\n', &mut line) {
                Ok(_) => break line.eq_ignore_ascii_case(b"DONE\r\n"),
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            }
            if self.shared.stopped.load(Ordering::SeqCst) {
                break false;
            }
        };
        self.set_patience(PATIENCE)?;
        if !line.is_empty() {
            self.record(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(ended)
    }

    /// Whether the client has sent more already.
    fn has_more(&self) -> io::Result<bool> {
        let socket = self.stream.get_ref().socket();
        socket.set_nonblocking(true)?;
        let peeked = socket.peek(&mut [0]);
        socket.set_nonblocking(false)?;
        Ok(!self.stream.buffer().is_empty() || peeked.is_ok())
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let socket = self.stream.get_ref().socket();
        socket.set_read_timeout(Some(patience))
    }

    fn record_command(&self, line: &str) {
        self.record(
            line.split_once(' ')
                .map_or(line, |(_, behind_tag)| behind_tag),
        );
    }

    fn record(&self, line: &str) {
        self.shared
            .journal
            .lock()
            .unwrap()
            .push((self.number, line.to_owned()));
    }

    pub(super) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(octets)?;
        stream.flush()
    }

    /// Goes on under TLS. What the client sent ahead of it is dropped.
    pub(super) fn start_tls(self) -> io::Result<Self> {
        let Self {
            shared,
            number,
            stream,
            seen,
        } = self;
        let config = shared.tls.clone().ok_or(io::ErrorKind::Unsupported)?;
        let stream = Stream::accept_tls(stream.into_inner().into_plain(), config)?;
        Ok(Self {
            shared,
            number,
            stream: BufReader::new(stream),
            seen,
        })
    }

    /// Does what a test wants, the usual apart. False: the connection ends.
    pub(super) fn answer(&mut self, answer: &Answer) -> io::Result<bool> {
        match answer {
            Answer::Usual | Answer::UsualThenClose => {}
            Answer::Send(octets) | Answer::SendThenUsual(octets) => self.send(octets)?,
            Answer::Slices(octets, count) => {
                for piece in octets.chunks(*count) {
                    self.send(piece)?;
                }
            }
            Answer::Close(octets) => {
                self.send(octets)?;
                return Ok(false);
            }
            Answer::Reset(octets) => {
                self.send(octets)?;
                let socket = socket2::SockRef::from(self.stream.get_ref().socket());
                socket.set_linger(Some(Duration::ZERO))?;
                self.shared.forget(self.number);
                return Ok(false);
            }
            Answer::Endless(octets, pause) => {
                while !self.shared.stopped.load(Ordering::SeqCst) {
                    self.send(octets)?;
                    std::thread::sleep(*pause);
                }
                return Ok(false);
            }
            Answer::Hang(octets) => {
                self.send(octets)?;
                let mut ignored = [0; 4096];
                while !self.shared.stopped.load(Ordering::SeqCst) {
                    if self.stream.read(&mut ignored)? == 0 {
                        break;
                    }
                }
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How often a client that idles is told what is new.
const IDLE_PAUSE: Duration = Duration::from_millis(5);

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// A line that ends in `{n}` or `{n+}`: the text in front of it, n, and whether
/// the client waits for a `+`.
fn literal(line: &str) -> Option<(&str, usize, bool)> {
    let (text, length) = line.strip_suffix('}')?.rsplit_once('{')?;
    let waits = !length.ends_with('+');
    Some((text, length.trim_end_matches('+').parse().ok()?, waits))
}
