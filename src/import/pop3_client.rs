//! Reads an old POP3 server: its sizes, its unique ids, and the headers it is
//! asked for. What it may send is bounded, and a listing is whole or an error.
//!
//! It cannot delete: there is no DELE among its commands, and QUIT after none
//! changes nothing (RFC 1939 §6). RETR is not there, either: servers may mark
//! what it fetches as read.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::either::Either;
use zeroize::Zeroizing;

use super::matching::Place;
use super::{HeaderHash, Listed, listed};
use crate::sasl::Credentials;
use crate::upstream::transport::{self, Stream};
use crate::upstream::{Reason, UpstreamError};

mod command;
#[cfg(fuzzing)]
pub mod fuzzing;
mod login;
mod wire;

use command::Command;
use login::{Capabilities, capabilities, log_in};
use wire::{Status, Wire};

/// An old POP3 server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its URL, with its port; it holds no credentials.
    pub name: String,
    /// Host name or address; also what the certificate must be for.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// Roots and parameters of TLS. Chain and host name are always verified.
    pub tls: Arc<rustls::ClientConfig>,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// Protection of the connection to an old server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first octet (RFC 8314 §3.3), `pop3s://`.
    ImplicitTls,
    /// STLS, required (RFC 2595 §4), `pop3+stls://`.
    Stls,
    /// None, `pop3+plain://`.
    Cleartext,
}

/// Deadlines at an old server. It may have to read every message to answer
/// UIDL, so they are long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, TLS and greeting together.
    pub connect: Duration,
    /// The longest silence while an answer is due.
    pub silence: Duration,
    /// One answer, from its command to its end.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(300),
            answer: Duration::from_secs(1800),
        }
    }
}

/// Why an old server could not be read, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Pop3Error {
    /// There is no connection, or no TLS on it.
    #[error("{0}")]
    Connection(#[from] UpstreamError),
    /// The server said -ERR to the user name or the password.
    #[error("the login was refused{0}")]
    Login(Said),
    /// The server said -ERR to something else.
    #[error("{0} was refused{1}")]
    Refused(&'static str, Said),
    /// The server lacks what an import needs.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The server broke its protocol, or counts wrong.
    #[error("protocol error: {0}")]
    Protocol(Reason),
    /// The server went silent, or takes for ever.
    #[error("no answer in time")]
    Timeout,
    /// The server closed the connection, or it broke.
    #[error("the connection was lost{0}")]
    Lost(Said),
}

/// What the other side said of it, if anything, ready to be put behind words.
#[derive(Debug, Default)]
pub struct Said(Option<Reason>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl From<Vec<u8>> for Said {
    fn from(text: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&text);
        let text = text.trim();
        Self((!text.is_empty()).then(|| Reason::quoting("the server says", text)))
    }
}

fn protocol(what: &str) -> Pop3Error {
    Pop3Error::Protocol(what.into())
}

/// Messages in one maildrop.
const MOST_MESSAGES: u32 = 5_000_000;

/// Commands sent before the first of them is answered. Together they are small
/// enough to lie in any buffer.
const PIPELINED: usize = 16;

/// Octets of a header that are looked at.
const LONGEST_HEADER: usize = 1024 * 1024;

/// Octets of an answer to TOP: some servers send the body, too.
const LONGEST_TOP: usize = if cfg!(test) { 4 } else { 150 } * 1024 * 1024;

/// QUIT is a courtesy.
const FAREWELL: Duration = Duration::from_secs(5);

/// A session at an old server, in its TRANSACTION state.
pub struct Session<S = Stream> {
    wire: Wire<S>,
    /// `None` where the server has no CAPA.
    capabilities: Option<Capabilities>,
    /// Messages in the maildrop, once it was listed.
    count: usize,
    /// Whether TOP was ever answered.
    has_top: bool,
}

impl Session {
    /// Connects and logs in.
    pub async fn login(config: &Config, credentials: &Credentials) -> Result<Self, Pop3Error> {
        let timeouts = config.timeouts;
        let connected = async {
            let tcp = transport::tcp(&config.host, config.port).await?;
            let stream = match config.security {
                Security::ImplicitTls => transport::tls(tcp, &config.host, &config.tls).await?,
                Security::Stls | Security::Cleartext => Either::Left(tcp),
            };
            let mut wire = Wire::new(stream, timeouts);
            if let Status::Err(said) = wire.status().await? {
                return Err(Pop3Error::Refused("the connection", said.into()));
            }
            if config.security != Security::Stls {
                return Ok(wire);
            }
            request(&mut wire, &Command::Stls).await?;
            // What came in the clear behind its answer is an injection.
            let Either::Left(tcp) = wire.into_stream()? else {
                return Err(protocol("TLS inside TLS"));
            };
            let stream = transport::tls(tcp, &config.host, &config.tls).await?;
            Ok(Wire::new(stream, timeouts))
        };
        let wire = timeout(timeouts.connect, connected)
            .await
            .map_err(|_| Pop3Error::Timeout)??;
        Self::authenticate(wire, credentials).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Goes from the AUTHORIZATION state to TRANSACTION.
    async fn authenticate(mut wire: Wire<S>, credentials: &Credentials) -> Result<Self, Pop3Error> {
        let offered = capabilities(&mut wire).await?;
        log_in(&mut wire, offered, credentials).await?;
        // Some say more once they know the user (RFC 2449 §5).
        let capabilities = match offered {
            Some(_) => capabilities(&mut wire).await?,
            None => None,
        };
        Ok(Self {
            wire,
            capabilities,
            count: 0,
            has_top: false,
        })
    }

    /// Every message with its size and its unique id, in the server's order.
    /// STAT, LIST and UIDL must speak of the same messages.
    pub async fn listing(&mut self) -> Result<Vec<Listed>, Pop3Error> {
        let stat = request(&mut self.wire, &Command::Stat).await?;
        let count = String::from_utf8_lossy(&stat)
            .split_ascii_whitespace()
            .next()
            .and_then(number);
        let count: u32 = count.ok_or_else(|| protocol("STAT does not say how many messages"))?;
        if count > MOST_MESSAGES {
            return Err(protocol("STAT says that there are too many messages"));
        }
        self.count = count as usize;
        if count == 0 {
            return Ok(Vec::new());
        }
        let sizes = self.rows(&Command::List).await?;
        let sizes = sizes.into_iter().map(|rest| {
            let text = String::from_utf8_lossy(&rest);
            let octets = text.split_ascii_whitespace().next().and_then(number);
            octets.ok_or_else(|| protocol("LIST does not say how large a message is"))
        });
        let sizes: Vec<u64> = sizes.collect::<Result<_, _>>()?;
        let ids = self.rows(&Command::Uidl).await.map_err(|error| match error {
            Pop3Error::Refused(..) => Pop3Error::Unsupported(
                "the server does not list its unique ids (UIDL is refused): there is nothing to import",
            ),
            other => other,
        })?;
        Ok(listed(sizes.into_iter().zip(ids)))
    }

    /// The lines of LIST or UIDL, one for each message, in the order of their
    /// numbers, without them.
    async fn rows(&mut self, command: &Command<'_>) -> Result<Vec<Vec<u8>>, Pop3Error> {
        let name = command.name();
        let wrong = |what: &str| Err(protocol(&format!("{name} {what}")));
        request(&mut self.wire, command).await?;
        let mut rows: Vec<(usize, Vec<u8>)> = Vec::new();
        while let Some(line) = self.wire.row().await? {
            let line = line.trim_ascii();
            let end = line
                .iter()
                .position(|octet| !octet.is_ascii_digit())
                .unwrap_or(line.len());
            let (digits, rest) = line.split_at(end);
            let number = std::str::from_utf8(digits).ok().and_then(number::<usize>);
            let separated = rest.is_empty() || rest.starts_with(b" ") || rest.starts_with(b"\t");
            let Some(number) = number.filter(|_| separated) else {
                return wrong("has a line without a message number");
            };
            if number == 0 || number > self.count || rows.len() == self.count {
                return wrong("has a message that STAT does not count");
            }
            rows.push((number, rest.trim_ascii_start().to_vec()));
        }
        rows.sort_by_key(|(number, _)| *number);
        if rows.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return wrong("has a message twice");
        }
        if rows.len() != self.count {
            let (listed, counted) = (rows.len(), self.count);
            return wrong(&format!("has {listed} messages, and STAT counts {counted}"));
        }
        Ok(rows.into_iter().map(|(_, rest)| rest).collect())
    }

    /// The hashes of these messages' headers. One that cannot be had, or says
    /// nothing, is left out. `progress` is told how many there were so far.
    pub async fn headers(
        &mut self,
        places: &[Place],
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<HashMap<Place, HeaderHash>, Pop3Error> {
        const NO_TOP: Pop3Error = Pop3Error::Unsupported(
            "the server has no TOP, and headers must be compared: RETR is not used in its place, as it may mark mail as read",
        );
        if self.capabilities.is_some_and(|offered| !offered.top) {
            return Err(NO_TOP);
        }
        let pipelining = self.capabilities.is_some_and(|offered| offered.pipelining);
        let window = if pipelining { PIPELINED } else { 1 };
        let mut hashes = HashMap::with_capacity(places.len());
        let mut to_send = places.iter();
        let mut batch = Zeroizing::new(String::new());
        for (done, place) in places.iter().enumerate() {
            let sent = places.len() - to_send.len();
            if sent == done {
                self.wire.expect_silence()?;
            }
            // Half a window at a time: few packets, and no pause between.
            if sent == done || sent - done <= window / 2 {
                batch.clear();
                for place in to_send.by_ref().take(window - (sent - done)) {
                    batch.push_str(&Command::Header(*place).line());
                }
                self.wire.send(batch.as_bytes()).await?;
            }
            match self.wire.status().await? {
                Status::Ok(_) => {
                    self.has_top = true;
                    if let Some(hash) = header(&mut self.wire).await? {
                        hashes.insert(*place, hash);
                    }
                }
                Status::Err(_) if self.capabilities.is_none() && !self.has_top => {
                    return Err(NO_TOP);
                }
                // This one cannot be read.
                Status::Err(_) => {}
            }
            progress(done + 1);
        }
        self.wire.expect_silence()?;
        Ok(hashes)
    }

    /// Ends the session. Nothing hangs on it.
    pub async fn quit(mut self) {
        let _ = timeout(FAREWELL, request(&mut self.wire, &Command::Quit)).await;
    }
}

/// Sends a command and waits for its +OK.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    command: &Command<'_>,
) -> Result<Vec<u8>, Pop3Error> {
    wire.expect_silence()?;
    wire.send(command.line().as_bytes()).await?;
    match wire.status().await? {
        Status::Ok(text) => Ok(text),
        Status::Err(said) => Err(Pop3Error::Refused(command.name(), said.into())),
    }
}

/// The hash of the header that an answer to TOP holds, read to its end.
async fn header<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
) -> Result<Option<HeaderHash>, Pop3Error> {
    let mut header = Vec::new();
    let mut octets = 0;
    // Whether the blank line is still to come.
    let mut in_header = true;
    let mut too_long = false;
    while let Some(line) = wire.text(LONGEST_HEADER).await? {
        octets += line.len();
        if octets > LONGEST_TOP {
            return Err(protocol("TOP does not end"));
        }
        in_header &= !matches!(line, b"\r\n" | b"\n");
        too_long |= in_header && octets > LONGEST_HEADER;
        if in_header && !too_long {
            header.extend_from_slice(line);
        }
    }
    Ok(HeaderHash::of(&header).filter(|_| !too_long))
}

/// Digits alone: `parse` would take a sign.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes()
        .all(|octet| octet.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
