//! Lines of an old server, bounded in length and in time.

use std::io;

use memchr::memchr;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::time::{Instant, timeout_at};

use zeroize::Zeroizing;

use super::{Pop3Error, Said, Timeouts, protocol};
use crate::upstream::Reason;
use crate::upstream::screening::reveals;

/// Octets of a line of a listing or a status. RFC 1939 §3 allows 512.
const LONGEST_LINE: usize = 4096;

const CRLF: &[u8] = b"\r\n";

/// The first line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// `+OK`, and the text behind it.
    Ok(Vec<u8>),
    /// `-ERR`, and the text behind it.
    Err(Vec<u8>),
}

pub(super) struct Wire<S> {
    stream: BufReader<S>,
    timeouts: Timeouts,
    /// When the answer that is due must have ended.
    deadline: Instant,
    line: Vec<u8>,
    /// What was sent that nobody may read in a log.
    secrets: Vec<Zeroizing<Vec<u8>>>,
    /// Whether what comes next is at the beginning of a line, as RFC 1939 §3
    /// understands lines: only there a dot means something.
    at_line: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S, timeouts: Timeouts) -> Self {
        Self {
            stream: BufReader::new(stream),
            timeouts,
            deadline: Instant::now() + timeouts.answer,
            line: Vec::new(),
            secrets: Vec::new(),
            at_line: true,
        }
    }

    /// The stream below, for TLS. Fails where there is more than was asked for.
    pub fn into_stream(self) -> Result<S, Pop3Error> {
        self.expect_silence()?;
        Ok(self.stream.into_inner())
    }

    /// Fails where the server has said more than it was asked for: what comes
    /// next would be taken for the answer to another command.
    pub fn expect_silence(&self) -> Result<(), Pop3Error> {
        if self.stream.buffer().is_empty() {
            Ok(())
        } else {
            Err(protocol("it says more than it was asked for"))
        }
    }

    /// `secret` is about to be sent: a status that quotes it, or a part of it,
    /// is not repeated.
    pub fn conceal(&mut self, secret: &[u8]) {
        self.secrets.push(Zeroizing::new(secret.to_vec()));
    }

    /// Sends command lines.
    pub async fn send(&mut self, lines: &[u8]) -> Result<(), Pop3Error> {
        let sent = async {
            self.stream.write_all(lines).await?;
            self.stream.flush().await
        };
        timeout_at(Instant::now() + self.timeouts.silence, sent)
            .await
            .map_err(|_| Pop3Error::Timeout)?
            .map_err(|error| lost(&error))
    }

    /// The first line of an answer.
    pub async fn status(&mut self) -> Result<Status, Pop3Error> {
        let line = self.first_line().await?;
        match (line.strip_prefix(b"+OK"), line.strip_prefix(b"-ERR")) {
            (Some(text), _) => Ok(Status::Ok(text.trim_ascii().to_vec())),
            (_, Some(text)) => Ok(Status::Err(text.trim_ascii().to_vec())),
            _ => {
                let line = String::from_utf8_lossy(&line);
                let seen = Reason::quoting("neither +OK nor -ERR", &line);
                Err(Pop3Error::Protocol(seen))
            }
        }
    }

    /// The challenge of AUTH, `+ `.
    pub async fn challenge(&mut self) -> Result<Status, Pop3Error> {
        let line = self.first_line().await?;
        match line.strip_prefix(b"-ERR") {
            Some(said) => Ok(Status::Err(said.trim_ascii().to_vec())),
            None if line == b"+" || line.starts_with(b"+ ") => Ok(Status::Ok(Vec::new())),
            None => Err(protocol("AUTH PLAIN is not answered by a challenge")),
        }
    }

    /// A line with which an answer begins, with no secret in it.
    async fn first_line(&mut self) -> Result<Vec<u8>, Pop3Error> {
        self.deadline = Instant::now() + self.timeouts.answer;
        let line = self.whole_line().await?.to_vec();
        let text = String::from_utf8_lossy(&line);
        if !self.secrets.iter().any(|secret| reveals(&text, secret)) {
            return Ok(line);
        }
        let keyword = line.iter().position(u8::is_ascii_whitespace);
        let keyword = match keyword.map_or(&line[..], |end| &line[..end]) {
            known @ (b"+OK" | b"-ERR") => known,
            _ => b"",
        };
        Ok([keyword, b" [it may quote the password]"].concat())
    }

    /// The next line of a listing, without its CRLF; `None` behind the last.
    pub async fn row(&mut self) -> Result<Option<&[u8]>, Pop3Error> {
        let line = self.whole_line().await?;
        match line {
            b"." => Ok(None),
            stuffed => Ok(Some(stuffed.strip_prefix(b".").unwrap_or(stuffed))),
        }
    }

    /// The next line of a message, as it is in the message, with its end;
    /// `None` behind the last.
    pub async fn text(&mut self, longest: usize) -> Result<Option<&[u8]>, Pop3Error> {
        let dot_counts = self.at_line;
        let line = self.line(longest).await?;
        match line.strip_prefix(b".").filter(|_| dot_counts) {
            Some(CRLF) => Ok(None),
            Some(unstuffed) => Ok(Some(unstuffed)),
            None => Ok(Some(line)),
        }
    }

    async fn whole_line(&mut self) -> Result<&[u8], Pop3Error> {
        let line = self.line(LONGEST_LINE).await?;
        line.strip_suffix(CRLF)
            .ok_or_else(|| protocol("a line does not end in CRLF"))
    }

    /// The next octets up to LF.
    async fn line(&mut self, longest: usize) -> Result<&[u8], Pop3Error> {
        self.line.clear();
        loop {
            let silent = Instant::now() + self.timeouts.silence;
            let read = timeout_at(silent.min(self.deadline), self.stream.fill_buf()).await;
            let octets = read
                .map_err(|_| Pop3Error::Timeout)?
                .map_err(|error| lost(&error))?;
            if octets.is_empty() {
                return Err(Pop3Error::Lost(Said::default()));
            }
            let end = memchr(b'\n', octets);
            let taken = end.map_or(octets.len(), |lf| lf + 1);
            if self.line.len() + taken > longest {
                return Err(protocol("a line does not end"));
            }
            self.line.extend_from_slice(&octets[..taken]);
            self.stream.consume(taken);
            if end.is_some() {
                self.at_line = self.line.ends_with(CRLF);
                return Ok(&self.line);
            }
        }
    }
}

fn lost(error: &io::Error) -> Pop3Error {
    Pop3Error::Lost(Said(Some(Reason::quoting("cause", &error.to_string()))))
}
