//! The client's side of a connection: its stream, with or without TLS, what it
//! has sent, and what is to be sent to it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use zeroize::Zeroize as _;

use crate::pop3::LineBuffer;

/// Octets read from the client at a time.
const READ: usize = 2048;
/// A client may have sent so many octets ahead before more are left in the
/// socket.
const AHEAD: usize = 16 * 1024;
/// Answers are gathered up to this size before they are written.
const GATHERED: usize = 16 * 1024;
/// What a slow reader is granted for each write, on top of its rate: kernels
/// report room in large steps.
const GRACE: Duration = Duration::from_secs(30);
/// Answers wait no longer than this for the next one, to leave together.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client that will send nothing more is taken to be listening
/// still, while there is nothing for it.
const LISTENING: Duration = Duration::from_secs(10);
/// How long TLS may take to say that it ends.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a client sends behind the end is read for so long, and so much of it:
/// left unread, it would have the kernel take the last answers back.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 1024 * 1024;

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A client's connection. Dropped without [`Client::close`] it is broken off.
pub(super) struct Client {
    /// None while TLS begins, and after the end.
    stream: Option<Stream>,
    pub lines: LineBuffer,
    out: Vec<u8>,
    /// How often `out` was written.
    flushes: u64,
    ended: bool,
    slowest: u64,
}

/// A place in what is to be sent.
pub(super) struct Mark {
    flushes: u64,
    octets: usize,
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
            flushes: 0,
            ended: false,
            slowest: slowest.max(1),
        }
    }

    /// Whether TLS protects it.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream, Some(Stream::Right(_)))
    }

    /// Where answers are gathered.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Where the next answer begins, to be taken back if it comes to nothing.
    pub fn mark(&self) -> Mark {
        Mark {
            flushes: self.flushes,
            octets: self.out.len(),
        }
    }

    /// Takes back what was gathered since `mark`, if none of it was written.
    pub fn take_back(&mut self, mark: &Mark) -> bool {
        let possible = self.flushes == mark.flushes;
        if possible {
            self.out.truncate(mark.octets);
        }
        possible
    }

    /// Writes what was gathered, if that is enough to be worth a write.
    pub async fn flush_if_large(&mut self) -> Result<(), Gone> {
        if self.out.len() >= GATHERED {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Writes what was gathered. A client that does not take it is gone, and
    /// the connection broken off.
    pub async fn flush(&mut self) -> Result<(), Gone> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.flushes += 1;
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
        let gone = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => Gone::Disconnected,
            Err(_) => Gone::SlowReader,
        };
        self.abort();
        Err(gone)
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
            Ok(Ok(0)) => Err(Gone::Disconnected),
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => {
                self.abort();
                Err(Gone::Disconnected)
            }
        }
    }

    /// Takes in what has come; 0 at the end. Cancel-safe.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let Some(stream) = self.stream.as_mut() else {
            return Ok(0);
        };
        let lines = &mut self.lines;
        let octets = poll_fn(|cx| {
            // On the stack, so that no connection at rest has it.
            let mut arrived = [0; READ];
            let mut buffer = ReadBuf::new(&mut arrived);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            lines.push(buffer.filled());
            let octets = buffer.filled().len();
            arrived.zeroize();
            io::Result::Ok(octets).into()
        })
        .await?;
        self.ended = octets == 0;
        Ok(octets)
    }

    /// Does the work unless the client goes away meanwhile (`None`). A client
    /// that has only closed its sending side and still has commands waiting
    /// stays.
    pub async fn stays_while<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.stays_listening(work, Duration::ZERO).await
    }

    /// Does the work for the client, who is listening. If it takes a while,
    /// what was answered so far leaves at once, and a client that goes away
    /// does not go unnoticed.
    pub async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        if let Ok(done) = timeout(PAUSE, work.as_mut()).await {
            return Ok(done);
        }
        self.flush().await?;
        let done = self.stays_listening(work, LISTENING).await;
        done.ok_or(Gone::Disconnected)
    }

    /// A client that has closed its sending side, with nothing waiting, may
    /// have closed all of it; only writing would show. It is given `listening`.
    async fn stays_listening<T>(
        &mut self,
        work: impl Future<Output = T>,
        listening: Duration,
    ) -> Option<T> {
        let mut work = pin!(work);
        loop {
            if self.ended && !self.lines.has_line() {
                return timeout(listening, work).await.ok();
            }
            let listens = !self.ended && self.lines.len() < AHEAD;
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                read = self.fill(), if listens => {
                    if read.is_err() {
                        self.abort();
                        return None;
                    }
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
        let stream = match self.stream.take() {
            Some(Stream::Left(stream)) => stream,
            other => {
                self.stream = other;
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let accept = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(patience, accept)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        self.stream = Some(Stream::Right(Box::new(stream)));
        Ok(())
    }

    /// Ends the connection in order: all that was answered arrives, and TLS
    /// says that this is the end. `linger` where the client may have more to
    /// say than is wanted.
    pub async fn close(&mut self, linger: bool) {
        if self.flush().await.is_err() {
            return;
        }
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let _ = timeout(FAREWELL, stream.shutdown()).await;
        if linger && !self.ended {
            let _ = timeout(LINGER, discard(&mut stream)).await;
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

impl Drop for Client {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Reads until the client is done, too.
async fn discard(stream: &mut Stream) {
    let mut total = 0;
    while total < LINGER_OCTETS {
        let read = poll_fn(|cx| {
            let mut unwanted = [0; READ];
            let mut buffer = ReadBuf::new(&mut unwanted);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            io::Result::Ok(buffer.filled().len()).into()
        });
        match read.await {
            Ok(octets @ 1..) => total += octets,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connected() -> (Client, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap());
        let (other, accepted) = tokio::join!(other, listener.accept());
        let stream = Either::Left(accepted.unwrap().0);
        (Client::new(stream, 500), other.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_gone() {
        let (mut client, _other) = connected().await;
        client.out().resize(16 * 1024 * 1024, b'x');
        assert!(matches!(client.flush().await, Err(Gone::SlowReader)));
        assert!(client.out().is_empty());
        // And stays so.
        client.out().push(b'x');
        assert!(matches!(client.flush().await, Err(Gone::Disconnected)));
    }

    #[tokio::test]
    async fn answers_do_not_wait_for_long_work() {
        let (mut client, mut other) = connected().await;
        client.out().extend_from_slice(b"+OK\r\n");
        // Work that ends when the answer has arrived.
        let work = async {
            let mut answer = [0; 5];
            tokio::io::AsyncReadExt::read_exact(&mut other, &mut answer)
                .await
                .unwrap();
            answer
        };
        assert_eq!(client.attend(work).await.unwrap(), *b"+OK\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_only_stopped_sending_is_waited_for_a_while() {
        let (mut client, mut other) = connected().await;
        other.shutdown().await.unwrap();
        let work = tokio::time::sleep(LISTENING / 2);
        assert!(client.attend(work).await.is_ok());
        let work = std::future::pending::<()>();
        assert!(client.attend(work).await.is_err());
        // During a login it is not.
        let work = tokio::time::sleep(PAUSE);
        assert!(client.stays_while(work).await.is_none());
    }
}
