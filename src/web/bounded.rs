//! Bounds on HTTP connections: how many, and for how long; and TLS on them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// Connections at once. For one more, that goes which has been quiet, or in the middle
/// of a request, for longest; where all are being answered, it waits.
pub(super) const CONNECTIONS: usize = 32;

/// The same where there are pages: a browser takes a few.
pub(super) const CONNECTIONS_WITH_PAGES: usize = 96;

/// How long a connection lives, whatever happens on it; a TLS handshake is part
/// of it. Only pages make it longer ([`Peer::extend`]).
pub(super) const LIFETIME: Duration = Duration::from_secs(10);

/// A listener whose connections are few and short.
pub(super) struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    /// Those that there are, and some that were.
    open: Vec<Weak<Life>>,
    tls: Option<TlsAcceptor>,
}

impl Bounded {
    pub(super) fn new(
        listener: TcpListener,
        connections: usize,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(connections)),
            open: Vec::with_capacity(connections),
            tls: tls.map(TlsAcceptor::from),
        }
    }

    /// Ends the connection that has not asked anything for longest: silence must not keep
    /// others out, nor half a request.
    fn make_room(&self) {
        let open = self.open.iter().filter_map(Weak::upgrade);
        let quiet = open.filter_map(|life| life.quiet_since().map(|since| (since, life)));
        if let Some((_, life)) = quiet.min_by_key(|(since, _)| *since) {
            life.over();
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let permits = Arc::clone(&self.permits);
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.make_room();
                // The semaphore is never closed.
                permits.acquire_owned().await.ok()
            }
        };
        let life = Arc::new(Life::new());
        self.open.retain(|life| life.strong_count() > 0);
        self.open.push(Arc::downgrade(&life));
        let stream = match &self.tls {
            // The handshake is part of the first read: it keeps nobody waiting.
            Some(acceptor) => Stream::Handshake(Box::new(acceptor.accept(stream))),
            None => Stream::Plain(stream),
        };
        (
            Connection {
                stream,
                timer: Box::pin(tokio::time::sleep_until(life.end())),
                life,
                _permit: permit,
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// How long a connection lives.
#[derive(Debug)]
struct Life {
    times: Mutex<Times>,
    /// Of whoever reads and writes on it.
    waker: AtomicWaker,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    end: Instant,
    /// `None`: somebody is being answered.
    quiet_since: Option<Instant>,
}

impl Life {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            times: Mutex::new(Times {
                end: now + LIFETIME,
                quiet_since: Some(now),
            }),
            waker: AtomicWaker::new(),
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Instant {
        self.times().end
    }

    /// Changes the times, unless they are over: a life that has ended does not begin
    /// again, although its request may just have been read, or be answered still.
    fn change(&self, change: impl FnOnce(&mut Times, Instant)) {
        let now = Instant::now();
        let mut times = self.times();
        if times.end > now {
            change(&mut times, now);
        }
    }

    fn quiet_since(&self) -> Option<Instant> {
        let Times { end, quiet_since } = *self.times();
        // Not once more what has been ended.
        quiet_since.filter(|_| end > Instant::now())
    }

    fn over(&self) {
        self.change(|times, now| times.end = now);
        self.waker.wake();
    }
}

/// Who is at the other end of a connection, and how long it lives.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    life: Arc<Life>,
}

impl Peer {
    /// The head of a request is there: it has the time of any other, on whatever
    /// connection it came.
    pub(super) fn asked(&self) {
        self.extend(LIFETIME);
    }

    /// All of it is there, and it is being answered.
    pub(super) fn heard(&self) {
        self.life.change(|times, _| times.quiet_since = None);
    }

    /// The connection ends so much later than now, and no sooner than it would
    /// have.
    pub(super) fn extend(&self, time: Duration) {
        self.life
            .change(|times, now| times.end = times.end.max(now + time));
    }

    /// The request is answered. The connection ends so much later than now.
    pub(super) fn answered(&self, time: Duration) {
        self.life.change(|times, now| {
            *times = Times {
                end: now + time,
                quiet_since: Some(now),
            }
        });
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self {
            address: *stream.remote_addr(),
            life: Arc::clone(&stream.io().life),
        }
    }
}

/// A connection that fails when its time is over.
pub(super) struct Connection {
    stream: Stream,
    timer: Pin<Box<Sleep>>,
    life: Arc<Life>,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Stream {
    Plain(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.life.waker.register(context.waker());
        loop {
            let end = self.life.end();
            // Not by the timer, which is up to a millisecond late.
            if end <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.timer.deadline() != end {
                self.timer.as_mut().reset(end);
            }
            // The end may have been put off meanwhile.
            if self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }

    /// Does the rest of the handshake, where there is one.
    fn open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        if let Stream::Handshake(accept) = &mut self.stream {
            let stream = ready!(Pin::new(accept.as_mut()).poll(context))?;
            self.stream = Stream::Tls(Box::new(stream));
        }
        Poll::Ready(Ok(()))
    }
}

/// Calls a method of the stream that is there once the handshake is done.
macro_rules! forward {
    ($self:ident, $context:ident, $method:ident $(, $argument:expr)?) => {{
        ready!($self.open($context))?;
        match &mut $self.stream {
            Stream::Plain(stream) => Pin::new(stream).$method($context $(, $argument)?),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($context $(, $argument)?),
            Stream::Handshake(_) => Poll::Pending,
        }
    }};
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, context, poll_read, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        forward!(self, context, poll_write, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, context, poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // Nothing was said yet.
            Stream::Handshake(_) => Poll::Ready(Ok(())),
        };
        if ended.is_pending() {
            // TLS says that it ends, and nobody reads that.
            self.check(context)?;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    type TlsClient = tokio_rustls::client::TlsStream<TcpStream>;

    /// A connection, and its client.
    async fn over_tls() -> (Connection, TlsClient) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let ring = || Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![certificate.der().clone()];
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(ring())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(ring())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = Bounded::new(listener, 1, Some(Arc::new(server)));
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let connect = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = "localhost".try_into().unwrap();
            connector.connect(name, stream).await.unwrap()
        };
        let accept = async {
            let (mut connection, _) = Listener::accept(&mut listener).await;
            connection.flush().await.unwrap();
            connection
        };
        let (connection, client) = tokio::join!(accept, connect);
        (connection, client)
    }

    /// There is no room for TLS to say that it ends, and there never will be.
    #[tokio::test]
    async fn who_reads_nothing_does_not_stay_at_the_end_of_tls() {
        let (mut connection, _client) = over_tls().await;
        let full = poll_fn(|context| {
            while let Poll::Ready(written) =
                Pin::new(&mut connection).poll_write(context, &[0; 16 * 1024])
            {
                written.unwrap();
            }
            Poll::Ready(Pin::new(&mut connection).poll_shutdown(context))
        });
        assert!(tokio::task::unconstrained(full).await.is_pending());
        connection.life.over();
        let error = connection.shutdown().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// An end comes while a request is read, or answered, on another thread.
    #[tokio::test(start_paused = true)]
    async fn what_has_ended_does_not_begin_again() {
        let changes: [fn(&Peer); 4] = [
            Peer::asked,
            Peer::heard,
            |peer| peer.extend(LIFETIME),
            |peer| peer.answered(LIFETIME),
        ];
        for change in changes {
            let peer = Peer {
                address: SocketAddr::from(([127, 0, 0, 1], 1)),
                life: Arc::new(Life::new()),
            };
            change(&peer);
            assert!(peer.life.end() > Instant::now());
            peer.life.over();
            change(&peer);
            assert!(peer.life.end() <= Instant::now());
            assert_eq!(peer.life.quiet_since(), None);
        }
    }
}
