//! The client's side of a connection: its stream, with or without TLS, what it
//! has sent, and what is to be sent to it.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::pop3::LineBuffer;

/// Octets read from the client at a time.
const READ: usize = 2048;
/// A client may have sent so many octets ahead before more are left in the
/// socket.
const AHEAD: usize = 16 * 1024;
/// Answers are gathered up to this size before they are written.
const GATHERED: usize = 16 * 1024;
/// What a slow reader is granted for each write, on top of its rate.
const GRACE: Duration = Duration::from_secs(10);

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A client's connection.
pub(super) struct Client {
    /// None only while TLS begins.
    stream: Option<Stream>,
    pub lines: LineBuffer,
    out: Vec<u8>,
    ended: bool,
    slowest: u64,
}

/// Why a client can no longer be talked to.
#[derive(Debug)]
pub(super) enum Gone {
    /// It closed the connection, or the connection broke.
    Disconnected,
    /// It reads more slowly than is allowed.
    SlowReader,
}

impl Client {
    /// A client that must read at least `slowest` octets a second.
    pub fn new(stream: Stream, slowest: u64) -> Self {
        Self {
            stream: Some(stream),
            lines: LineBuffer::new(),
            out: Vec::new(),
            ended: false,
            slowest: slowest.max(1),
        }
    }

    /// Where answers are gathered.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes what was gathered, if that is enough to be worth a write.
    pub async fn flush_if_large(&mut self) -> Result<(), Gone> {
        if self.out.len() >= GATHERED {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Writes what was gathered.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(Gone::Disconnected)?;
        let patience = GRACE + Duration::from_secs(self.out.len() as u64 / self.slowest);
        let write = async {
            stream.write_all(&self.out).await?;
            stream.flush().await
        };
        let written = timeout(patience, write).await;
        if self.out.capacity() > 4 * GATHERED {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone::Disconnected),
            Err(_) => Err(Gone::SlowReader),
        }
    }

    /// Waits for octets from the client, until `deadline` (`Ok(false)`).
    /// Cancel-safe.
    pub async fn read(&mut self, deadline: Instant) -> Result<bool, Gone> {
        if self.out.is_empty() {
            // A connection at rest keeps no buffer.
            self.out = Vec::new();
        }
        match timeout_at(deadline, self.fill()).await {
            Err(_) => Ok(false),
            Ok(Ok(0) | Err(_)) => Err(Gone::Disconnected),
            Ok(Ok(_)) => Ok(true),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let Some(stream) = self.stream.as_mut() else {
            return Ok(0);
        };
        let mut arrived = zeroize::Zeroizing::new([0; READ]);
        let read = stream.read(&mut *arrived).await?;
        self.ended = read == 0;
        self.lines.push(&arrived[..read]);
        Ok(read)
    }

    /// Does the work unless the client goes away meanwhile (`None`). A client
    /// that has only closed its sending side and still has commands waiting
    /// stays.
    pub async fn stays_while<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let listens = !self.ended && self.lines.len() < AHEAD;
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                read = self.fill(), if listens => {
                    let gone = !matches!(read, Ok(1..));
                    if gone && !self.lines.has_line() {
                        return None;
                    }
                    self.ended |= gone;
                }
            }
        }
    }

    /// Begins TLS. Fails where the client sent anything in plaintext behind
    /// its STLS: that may have been injected (RFC 2595 §4).
    pub async fn start_tls(
        &mut self,
        config: Arc<rustls::ServerConfig>,
        patience: Duration,
    ) -> io::Result<()> {
        if !self.lines.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.lines = LineBuffer::new();
        let Some(Stream::Left(stream)) = self.stream.take() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let accept = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(patience, accept)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        self.stream = Some(Stream::Right(Box::new(stream)));
        Ok(())
    }

    /// Ends the connection in order: all that was answered arrives.
    pub async fn close(&mut self) {
        if self.flush().await.is_ok()
            && let Some(stream) = self.stream.as_mut()
        {
            let _ = timeout(GRACE, stream.shutdown()).await;
        }
    }

    /// Breaks the connection off, so that no client takes what it has for
    /// whole: no dot, no TLS close_notify, and a reset instead of an end.
    pub fn abort(&mut self) {
        let tcp = match self.stream.take() {
            Some(Stream::Left(tcp)) => tcp,
            Some(Stream::Right(tls)) => tls.into_inner().0,
            None => return,
        };
        let _ = socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
    }
}
