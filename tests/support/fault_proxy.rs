//! A TCP proxy that breaks what passes through it, at a chosen place: one in
//! each direction of a connection.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Which way octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the one who connected (the gateway).
    ToServer,
    /// From the server (the upstream).
    ToClient,
}

/// What is done to a connection.
#[derive(Clone, Debug)]
pub enum Fault {
    /// At a place in the stream, something happens to the connection.
    At(Direction, Place, Action),
    /// Octets are written in pieces of this many.
    Slice(Direction, usize),
    /// Each piece is held back for so long.
    Delay(Direction, Duration),
}

/// A place in one direction's stream.
#[derive(Clone, Debug)]
pub enum Place {
    /// Behind so many octets.
    Behind(u64),
    /// At the n-th appearance (from 1) of these octets, in front of or behind it.
    Pattern {
        octets: &'static str,
        nth: usize,
        behind: bool,
    },
}

impl Place {
    /// In front of the first appearance of these octets.
    pub fn before(octets: &'static str) -> Self {
        Self::Pattern {
            octets,
            nth: 1,
            behind: false,
        }
    }

    /// Behind the first appearance of these octets.
    pub fn after(octets: &'static str) -> Self {
        Self::Pattern {
            octets,
            nth: 1,
            behind: true,
        }
    }
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Both sides see an orderly end (FIN).
    Cut,
    /// Both sides see a reset (RST).
    Reset,
    /// Nothing more passes in this direction; the connection stays open.
    Stall,
}

/// The proxy. Its connections end when this is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    plan: Box<dyn Fn(usize) -> Vec<Fault> + Send + Sync>,
    stopped: AtomicBool,
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    acted: AtomicU64,
}

impl FaultProxy {
    /// In front of `server`, with the faults that `plan` gives for the k-th
    /// connection (from 0).
    pub fn start(
        server: impl Into<SocketAddr>,
        plan: impl Fn(usize) -> Vec<Fault> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: server.into(),
            plan: Box::new(plan),
            stopped: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            acted: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// In front of a port of 127.0.0.1.
    pub fn to_port(port: u16, plan: impl Fn(usize) -> Vec<Fault> + Send + Sync + 'static) -> Self {
        Self::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), plan)
    }

    /// The same, where the first connection has this fault, and no other has any.
    pub fn to_port_once(port: u16, fault: Fault) -> Self {
        Self::to_port(port, move |connection| match connection {
            0 => vec![fault.clone()],
            _ => Vec::new(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// For `--upstream`, where the server speaks IMAP in the clear.
    pub fn plain_url(&self) -> String {
        format!("imap+plain://127.0.0.1:{}", self.port())
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Octets passed on in one direction, over all connections.
    pub fn octets(&self, direction: Direction) -> u64 {
        self.shared.counter(direction).load(Ordering::SeqCst)
    }

    /// How often an [`Action`] was taken.
    pub fn acted(&self) -> u64 {
        self.shared.acted.load(Ordering::SeqCst)
    }

    /// Waits until actions were taken `count` times.
    pub fn wait_until_acted(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.acted() < count {
            assert!(Instant::now() < deadline, "the fault did not come about");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            let number = self.connections.fetch_add(1, Ordering::SeqCst);
            // A server that is down looks down through the proxy, too.
            let Ok(server) = TcpStream::connect(self.server) else {
                continue;
            };
            let link = Arc::new(Link {
                client,
                server,
                over: AtomicBool::new(false),
                shared: Arc::clone(self),
            });
            let faults = (self.plan)(usize::try_from(number).unwrap());
            for direction in [Direction::ToServer, Direction::ToClient] {
                let link = Arc::clone(&link);
                let pump = Pump::new(direction, &faults);
                std::thread::spawn(move || link.run(pump));
            }
        }
    }
}

/// One connection: both sockets, each with one descriptor, so that the last
/// thread that lets go closes them.
struct Link {
    client: TcpStream,
    server: TcpStream,
    over: AtomicBool,
    shared: Arc<Shared>,
}

impl Link {
    fn run(&self, mut pump: Pump) {
        let (mut from, to) = match pump.direction {
            Direction::ToServer => (&self.client, &self.server),
            Direction::ToClient => (&self.server, &self.client),
        };
        // The other thread may end the connection: look up now and then.
        from.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        to.set_nodelay(true).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let mut stalled = false;
        // Something may be due in front of the first octet.
        let mut found = pump.search(&[]);
        loop {
            let (pass, action) = found;
            if self.write(to, &pass, &pump).is_err() {
                return self.end(true);
            }
            if let Some(action) = action {
                match action {
                    Action::Cut => self.end(false),
                    Action::Reset => self.end(true),
                    Action::Stall => stalled = true,
                }
                self.shared.acted.fetch_add(1, Ordering::SeqCst);
            }
            found = loop {
                if self.over.load(Ordering::SeqCst) || self.shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                match from.read(&mut buffer) {
                    Ok(0) => {
                        if !stalled {
                            let _ = self.write(to, &std::mem::take(&mut pump.held), &pump);
                            let _ = to.shutdown(Shutdown::Write);
                        }
                        return;
                    }
                    Ok(_) if stalled => {}
                    Ok(count) => break pump.search(&buffer[..count]),
                    Err(error) if would_block(&error) => {}
                    Err(_) => return self.end(true),
                }
            };
        }
    }

    fn write(&self, mut to: &TcpStream, octets: &[u8], pump: &Pump) -> std::io::Result<()> {
        let piece = pump.slice.unwrap_or(usize::MAX).min(octets.len()).max(1);
        for piece in octets.chunks(piece) {
            if let Some(delay) = pump.delay {
                std::thread::sleep(delay);
            }
            to.write_all(piece)?;
            let count = u64::try_from(piece.len()).unwrap();
            self.shared
                .counter(pump.direction)
                .fetch_add(count, Ordering::SeqCst);
        }
        Ok(())
    }

    fn end(&self, reset: bool) {
        for socket in [&self.client, &self.server] {
            if reset {
                let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            } else {
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
        self.over.store(true, Ordering::SeqCst);
    }
}

/// One direction of one connection.
struct Pump {
    direction: Direction,
    /// What is still to come about.
    due: Option<(Place, Action)>,
    slice: Option<usize>,
    delay: Option<Duration>,
    passed: u64,
    /// Octets that may be the beginning of what is looked for.
    held: Vec<u8>,
}

impl Pump {
    fn new(direction: Direction, faults: &[Fault]) -> Self {
        let mut pump = Self {
            direction,
            due: None,
            slice: None,
            delay: None,
            passed: 0,
            held: Vec::new(),
        };
        for fault in faults {
            match fault {
                Fault::At(way, place, action) if *way == direction => {
                    assert!(pump.due.is_none(), "one place in each direction");
                    pump.due = Some((place.clone(), *action));
                }
                Fault::Slice(way, octets) if *way == direction => pump.slice = Some(*octets),
                Fault::Delay(way, time) if *way == direction => pump.delay = Some(*time),
                Fault::At(..) | Fault::Slice(..) | Fault::Delay(..) => {}
            }
        }
        pump
    }

    /// What of the octets read passes on, and what happens behind it.
    fn search(&mut self, read: &[u8]) -> (Vec<u8>, Option<Action>) {
        let mut octets = std::mem::take(&mut self.held);
        octets.extend_from_slice(read);
        let mut hold = 0;
        let end = match &mut self.due {
            None => None,
            Some((Place::Behind(count), _)) => usize::try_from(*count - self.passed)
                .ok()
                .filter(|left| *left <= octets.len()),
            Some((
                Place::Pattern {
                    octets: pattern,
                    nth,
                    behind,
                },
                _,
            )) => {
                let (pattern, behind) = (pattern.as_bytes(), *behind);
                let found: Vec<usize> = memchr::memmem::find_iter(&octets, pattern)
                    .take(*nth)
                    .collect();
                let searched = found.last().map_or(0, |start| start + pattern.len());
                if found.len() == *nth {
                    Some(if behind {
                        searched
                    } else {
                        searched - pattern.len()
                    })
                } else {
                    *nth -= found.len();
                    hold = beginning(&octets[searched..], pattern);
                    None
                }
            }
        };
        let mut action = None;
        match end {
            Some(end) => {
                octets.truncate(end);
                action = self.due.take().map(|(_, action)| action);
            }
            None => self.held = octets.split_off(octets.len() - hold),
        }
        self.passed += u64::try_from(octets.len()).unwrap();
        (octets, action)
    }
}

/// How many octets at the end of `octets` are the beginning of `pattern`.
fn beginning(octets: &[u8], pattern: &[u8]) -> usize {
    let most = octets.len().min(pattern.len() - 1);
    (1..=most)
        .rev()
        .find(|count| pattern.starts_with(&octets[octets.len() - count..]))
        .unwrap_or(0)
}

fn would_block(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
