//! Bounds on HTTP connections: how many, and for how long; and TLS on them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// Connections at once; more wait in the backlog.
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
            tls: tls.map(TlsAcceptor::from),
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Instant::now() + LIFETIME;
        let stream = match &self.tls {
            // The handshake is part of the first read: it keeps nobody waiting.
            Some(acceptor) => Stream::Handshake(Box::new(acceptor.accept(stream))),
            None => Stream::Plain(stream),
        };
        (
            Connection {
                stream,
                timer: Box::pin(tokio::time::sleep_until(end)),
                end: End(Arc::new(Mutex::new(end))),
                _permit: permit,
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// When a connection ends.
#[derive(Clone, Debug)]
struct End(Arc<Mutex<Instant>>);

impl End {
    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who is at the other end of a connection, and how long it lives.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    end: End,
}

impl Peer {
    /// The connection ends so much later than now, and no sooner than it would
    /// have.
    pub(super) fn extend(&self, time: Duration) {
        let mut end = self.end.0.lock().unwrap_or_else(PoisonError::into_inner);
        *end = (*end).max(Instant::now() + time);
    }

    /// The connection ends so much later than now.
    pub(super) fn end_in(&self, time: Duration) {
        *self.end.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self {
            address: *stream.remote_addr(),
            end: stream.io().end.clone(),
        }
    }
}

/// A connection that fails when its time is over.
pub(super) struct Connection {
    stream: Stream,
    timer: Pin<Box<Sleep>>,
    end: End,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Stream {
    Plain(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        loop {
            let end = self.end.get();
            if self.timer.deadline() != end {
                self.timer.as_mut().reset(end);
            }
            match self.timer.as_mut().poll(context) {
                Poll::Pending => return Ok(()),
                // It may have been put off meanwhile.
                Poll::Ready(()) if self.end.get() > Instant::now() => {}
                Poll::Ready(()) => return Err(io::ErrorKind::TimedOut.into()),
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
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // Nothing was said yet.
            Stream::Handshake(_) => Poll::Ready(Ok(())),
        }
    }
}
