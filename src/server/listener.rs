//! Listening sockets, and how many connections they let in.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::client::Client;
use super::config::Security;
use super::connection::{self, Context};
use super::guard::network::{SIZES, networks};
use super::record::{Record, shown};
use crate::metrics::{ConnectionLimit, Counted, SessionEnd};

/// How long to wait when the process has run out of descriptors.
const BREATHER: Duration = Duration::from_millis(100);
/// The log says no more often than this that it has.
const COMPLAINTS: Duration = Duration::from_secs(10);
/// Silence before the kernel asks whether a client is still there: a dead one
/// must not hold its maildrop for ever.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Octets that the kernel takes ahead of what the client's window lets go.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;
/// How long it may take until a connection is gone that makes room for another.
const ROOM: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that is bound and listens.
pub(super) struct Listener {
    socket: StdListener,
    security: Security,
}

impl Listener {
    /// Binds and listens at `address`. `[::]` is for IPv4 too, unless that has
    /// a listener of its own (`only_v6`).
    pub fn bind(address: SocketAddr, security: Security, only_v6: bool) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for old connections to be forgotten.
        socket.set_reuse_address(true)?;
        if only_v6 {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: socket.into(),
            security,
        })
    }

    /// Where it listens; the port is the real one.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts connections until the gateway is to stop.
    pub async fn accept(
        self,
        context: Arc<Context>,
        admission: Arc<Admission>,
        sessions: TaskTracker,
    ) -> io::Result<()> {
        let socket = TcpListener::from_std(self.socket)?;
        let security = Arc::new(self.security);
        let mut complained = None;
        loop {
            let accepted = tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                accepted = socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // A client that left before it was let in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if complained.is_none_or(|at: Instant| at.elapsed() >= COMPLAINTS) {
                        warn!(%error, "cannot accept connections");
                        complained = Some(Instant::now());
                    }
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let (context, security) = (Arc::clone(&context), Arc::clone(&security));
            match admission.admit(peer.ip()) {
                Ok(ticket) => {
                    sessions.spawn(session(context, stream, peer, security, ticket));
                }
                // Who waits for the answer to a wrong guess makes room.
                Err(ConnectionLimit::Connections) if context.held_up.make_room() => {
                    let admission = Arc::clone(&admission);
                    sessions.spawn(async move {
                        match admission.admit_soon(peer.ip()).await {
                            Ok(ticket) => session(context, stream, peer, security, ticket).await,
                            Err(limit) => turn_away(&context, stream, peer, &security, limit),
                        }
                    });
                }
                Err(limit) => turn_away(&context, stream, peer, &security, limit),
            }
        }
    }
}

/// A connection that was let in.
async fn session(
    context: Arc<Context>,
    stream: TcpStream,
    peer: SocketAddr,
    security: Arc<Security>,
    ticket: Ticket,
) {
    let counted = Counted::new(&context.metrics.sessions_active);
    let halt = context.halt.clone();
    tokio::select! {
        () = welcome(context, stream, peer, &security) => {}
        () = halt.cancelled() => {}
    }
    drop((counted, ticket));
}

/// A connection that was not.
fn turn_away(
    context: &Context,
    stream: TcpStream,
    peer: SocketAddr,
    security: &Security,
    limit: ConnectionLimit,
) {
    let refused = &context.metrics.connections_refused;
    refused.get_or_create(&limit).inc();
    refuse(stream, security);
    debug!(client = %peer, limit = limit.as_str(), "connection refused");
}

/// A connection begins: TLS first, where that is the custom of the port.
async fn welcome(context: Arc<Context>, stream: TcpStream, peer: SocketAddr, security: &Security) {
    // Answers go out in one write and are wanted now.
    let _ = stream.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let socket = socket2::SockRef::from(&stream);
    let _ = socket.set_tcp_keepalive(&keepalive);
    // A slow reader shows here, and not only megabytes later.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
    let slowest = context.config.limits.slowest_reader;
    let mut record = Record::new(Arc::clone(&context), peer);
    let (client, certificates, tls_active) = match security {
        Security::Stls(certificates) => {
            let client = Client::new(Either::Left(stream), slowest);
            (client, certificates.clone(), false)
        }
        Security::ImplicitTls(certificates) => {
            let accept = TlsAcceptor::from(certificates.server_config()).accept(stream);
            let accept = timeout(context.config.timeouts.handshake, accept);
            let accepted = match context.shutdown.run_until_cancelled(accept).await {
                Some(accepted) => accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
                None => return record.end(SessionEnd::Shutdown),
            };
            match accepted {
                Ok(stream) => {
                    let client = Client::new(Either::Right(Box::new(stream)), slowest);
                    (client, None, true)
                }
                Err(error) => {
                    debug!(client = %peer, reason = shown(&error.to_string()), "TLS handshake failed");
                    context.metrics.tls_handshake_failures.inc();
                    return record.end(SessionEnd::Tls);
                }
            }
        }
    };
    connection::serve(context, client, peer, certificates, tls_active, record).await;
}

/// Says why, where that can be said without waiting.
fn refuse(stream: TcpStream, security: &Security) {
    if matches!(security, Security::Stls(_)) {
        // tokio has not yet heard that the socket can be written to.
        if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(b"-ERR [SYS/TEMP] too many connections, try again later\r\n");
        }
    }
}

/// Who may come in: so many connections in all, and from each network.
pub(super) struct Admission {
    all: Arc<Semaphore>,
    most: [u32; SIZES],
    by_network: Mutex<[HashMap<IpAddr, u32>; SIZES]>,
}

/// Leave to be connected, until dropped.
pub(super) struct Ticket {
    admission: Arc<Admission>,
    networks: Option<[IpAddr; SIZES]>,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Lets in `all` connections, of these so many from each network, by its size.
    pub fn new(all: usize, most: [u32; SIZES]) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            most,
            by_network: Mutex::default(),
        })
    }

    fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Ticket, ConnectionLimit> {
        let permit = Arc::clone(&self.all).try_acquire_owned();
        // Nobody makes room for one who is not let in all the same.
        let permit = permit.map_err(|_| match self.is_full(&self.counts(), address) {
            true => ConnectionLimit::PerAddress,
            false => ConnectionLimit::Connections,
        })?;
        self.ticket(permit, address)
    }

    /// The same, when another one is about to make room.
    async fn admit_soon(self: &Arc<Self>, address: IpAddr) -> Result<Ticket, ConnectionLimit> {
        let permit = timeout(ROOM, Arc::clone(&self.all).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok);
        self.ticket(permit.ok_or(ConnectionLimit::Connections)?, address)
    }

    fn ticket(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        address: IpAddr,
    ) -> Result<Ticket, ConnectionLimit> {
        // A front or a mail system on this host speaks for many.
        let networks = (!address.is_loopback()).then(|| networks(address));
        if let Some(networks) = networks {
            let mut counts = self.counts();
            if self.is_full(&counts, address) {
                return Err(ConnectionLimit::PerAddress);
            }
            for (counts, network) in counts.iter_mut().zip(networks) {
                *counts.entry(network).or_default() += 1;
            }
        }
        Ok(Ticket {
            admission: Arc::clone(self),
            networks,
            _permit: permit,
        })
    }

    /// Whether a network of the address has its share.
    fn is_full(&self, counts: &[HashMap<IpAddr, u32>; SIZES], address: IpAddr) -> bool {
        let mut known = counts.iter().zip(networks(address)).zip(self.most);
        let is_full = |((counts, network), most): ((&HashMap<IpAddr, u32>, IpAddr), u32)| {
            counts.get(&network).is_some_and(|count| *count >= most)
        };
        known.any(is_full)
    }

    fn counts(&self) -> MutexGuard<'_, [HashMap<IpAddr, u32>; SIZES]> {
        self.by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(networks) = self.networks else {
            return;
        };
        let mut counts = self.admission.counts();
        for (counts, network) in counts.iter_mut().zip(networks) {
            if let Some(count) = counts.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_share_and_gets_it_back() {
        let admission = Admission::new(10, [2, 3, 4]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = admission.admit(address).ok().unwrap();
        let _second = admission.admit(address).ok().unwrap();
        assert_eq!(
            admission.admit(address).err(),
            Some(ConnectionLimit::PerAddress)
        );
        assert!(admission.admit("192.0.2.2".parse().unwrap()).is_ok());
        drop(first);
        assert!(admission.admit(address).is_ok());
    }

    #[test]
    fn so_has_each_network_around_it() {
        let admission = Admission::new(10, [2, 3, 4]);
        let admit = |address: &str| admission.admit(address.parse().unwrap());
        let mut tickets = Vec::new();
        for near in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            tickets.push(admit(near).ok().unwrap());
        }
        assert_eq!(admit("192.0.2.4").err(), Some(ConnectionLimit::PerAddress));
        tickets.push(admit("192.0.1.1").ok().unwrap());
        assert_eq!(admit("192.0.3.1").err(), Some(ConnectionLimit::PerAddress));
        assert!(admit("198.51.100.1").is_ok());
        drop(tickets);
        assert!(admission.counts().iter().all(HashMap::is_empty));
    }

    #[test]
    fn who_has_his_share_is_told_so_where_there_is_no_room_either() {
        let admission = Admission::new(2, [2, 3, 4]);
        let admit = |address: &str| admission.admit(address.parse().unwrap());
        let _tickets = [admit("192.0.2.1").ok(), admit("192.0.2.1").ok()];
        assert_eq!(admit("192.0.2.1").err(), Some(ConnectionLimit::PerAddress));
        let other = admit("198.51.100.1");
        assert_eq!(other.err(), Some(ConnectionLimit::Connections));
    }

    #[test]
    fn loopback_is_only_held_to_the_limit_for_all() {
        let admission = Admission::new(3, [1, 1, 1]);
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let tickets: Vec<_> = (0..3)
            .map(|_| admission.admit(loopback).ok().unwrap())
            .collect();
        assert_eq!(
            admission.admit(loopback).err(),
            Some(ConnectionLimit::Connections)
        );
        drop(tickets);
        assert!(admission.admit(loopback).is_ok());
    }
}
