//! A link between two programs: each direction is held back by half a round
//! trip, octets stay in order, and the bandwidth is what it is said to be. The
//! TCP handshake's round trip is charged, too: the far end is connected to 1.5
//! round trips after the near one, so that a greeting is there after two, as over
//! a long line. Slow start and loss are not modelled.
//!
//! The control port answers a line with what was counted so far: octets up and
//! down, connections, round trips (octets up that follow octets down), and heads
//! of HTTP requests. The line `cut` ends one connection first.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::work::lock;

/// Four threads a connection, with little on their stacks.
const STACK: usize = 192 << 10;
const CHUNK: usize = 64 << 10;
/// Chunks on their way, at most: more than any bandwidth times delay here.
const ON_THE_WAY: usize = 1024;

#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
    trips: AtomicU64,
    requests: AtomicU64,
    cut: AtomicU64,
    /// Those that are open, both ends.
    ends: Mutex<BTreeMap<u64, (TcpStream, TcpStream)>>,
}

impl Counts {
    fn to_json(&self) -> Value {
        let value = |count: &AtomicU64| count.load(Relaxed);
        json!({
            "up": value(&self.up), "down": value(&self.down),
            "connections": value(&self.connections), "most_open": value(&self.most_open),
            "open": value(&self.open), "trips": value(&self.trips),
            "requests": value(&self.requests), "cut": value(&self.cut),
        })
    }

    /// Ends a connection, young ones and old ones in turn.
    fn cut(&self) {
        let ends = lock(&self.ends);
        let turn = self.cut.load(Relaxed) as usize * 7919;
        if let Some((near, far)) = ends.values().nth(turn % ends.len().max(1)) {
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
            self.cut.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Clone, Copy)]
struct Line {
    half: Duration,
    /// Octets a second.
    bandwidth: Option<f64>,
}

/// Octets, and when they arrive. None at all: the end.
type Chunk = (Instant, Vec<u8>);

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().stack_size(STACK).spawn(work)
}

/// What is looked at as octets go up.
struct Watch {
    counts: Arc<Counts>,
    /// Whether the last octets went down.
    answered: Arc<AtomicBool>,
    /// The last octets, in case a head's end is cut in two.
    tail: Vec<u8>,
}

impl Watch {
    fn up(&mut self, octets: &[u8]) {
        const MARK: &[u8] = b" HTTP/1.1\r\n";
        self.counts.up.fetch_add(octets.len() as u64, Relaxed);
        if self.answered.swap(false, Relaxed) {
            self.counts.trips.fetch_add(1, Relaxed);
        }
        self.tail.extend_from_slice(octets);
        let heads = memchr::memmem::find_iter(&self.tail, MARK).count() as u64;
        self.counts.requests.fetch_add(heads, Relaxed);
        // Shorter than the mark: nothing counts twice.
        let keep = self.tail.len().saturating_sub(MARK.len() - 1);
        self.tail.drain(..keep);
    }

    fn down(&mut self, octets: &[u8]) {
        self.counts.down.fetch_add(octets.len() as u64, Relaxed);
        self.answered.store(true, Relaxed);
    }
}

fn read(
    mut from: TcpStream,
    to: &SyncSender<Chunk>,
    line: Line,
    not_before: Instant,
    mut seen: impl FnMut(&[u8]),
) {
    let mut free = Instant::now();
    let mut buffer = vec![0; CHUNK];
    loop {
        let octets = from.read(&mut buffer).unwrap_or(0);
        let chunk = &buffer[..octets];
        if !chunk.is_empty() {
            seen(chunk);
        }
        free = free.max(Instant::now());
        if let Some(bandwidth) = line.bandwidth {
            free += Duration::from_secs_f64(octets as f64 / bandwidth);
        }
        let due = (free + line.half).max(not_before);
        if to.send((due, chunk.to_vec())).is_err() || octets == 0 {
            return;
        }
    }
}

fn write(mut to: TcpStream, from: &Receiver<Chunk>) {
    while let Ok((due, chunk)) = from.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if chunk.is_empty() || to.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn connection(
    near: TcpStream,
    to: SocketAddr,
    line: Line,
    counts: &Arc<Counts>,
) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    let arrives = Instant::now() + line.half * 3;
    let number = counts.connections.fetch_add(1, Relaxed);
    let answered = Arc::new(AtomicBool::new(false));
    let watch = || Watch {
        counts: Arc::clone(counts),
        answered: Arc::clone(&answered),
        tail: Vec::new(),
    };
    let (up, up_end) = sync_channel(ON_THE_WAY);
    let (down, down_end) = sync_channel(ON_THE_WAY);
    let (from, mut watching) = (near.try_clone()?, watch());
    let going_up = spawn(move || read(from, &up, line, arrives, |octets| watching.up(octets)))?;
    thread::sleep(arrives.saturating_duration_since(Instant::now()));
    let far = match TcpStream::connect(to) {
        Ok(far) => far,
        Err(error) => {
            let _ = near.shutdown(Shutdown::Both);
            return Err(error);
        }
    };
    far.set_nodelay(true)?;
    lock(&counts.ends).insert(number, (near.try_clone()?, far.try_clone()?));
    let open = counts.open.fetch_add(1, Relaxed) + 1;
    counts.most_open.fetch_max(open, Relaxed);
    let (from, mut watching) = (far.try_clone()?, watch());
    let going_down = spawn(move || read(from, &down, line, arrives, |o| watching.down(o)))?;
    let into = far.try_clone()?;
    let sending = spawn(move || write(into, &up_end))?;
    write(near.try_clone()?, &down_end);
    // The far end is done: a near one that never closes its half is not waited for.
    let _ = near.shutdown(Shutdown::Both);
    for thread in [going_up, going_down, sending] {
        let _ = thread.join();
    }
    lock(&counts.ends).remove(&number);
    counts.open.fetch_sub(1, Relaxed);
    Ok(())
}

fn answer(stream: &TcpStream, counts: &Counts) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    if line.trim_end() == "cut" {
        counts.cut();
    }
    let mut stream = stream;
    writeln!(stream, "{}", counts.to_json())
}

/// Ends with whoever started it, however that ended.
fn follow_parent() -> std::io::Result<()> {
    let parent = parent_id();
    spawn(move || {
        while parent_id() == parent {
            thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(0);
    })?;
    Ok(())
}

/// Serves until it is ended.
pub fn serve(
    listen: SocketAddr,
    to: SocketAddr,
    control: SocketAddr,
    rtt: f64,
    mbit: f64,
) -> anyhow::Result<Value> {
    follow_parent()?;
    let line = Line {
        half: Duration::from_secs_f64(rtt / 2000.0),
        bandwidth: (mbit > 0.0).then_some(mbit * 125_000.0),
    };
    let counts = Arc::new(Counts::default());
    let (listener, control) = (TcpListener::bind(listen)?, TcpListener::bind(control)?);
    let counted = Arc::clone(&counts);
    spawn(move || {
        for stream in control.incoming().flatten() {
            let _ = answer(&stream, &counted);
        }
    })?;
    for near in listener.incoming() {
        let (near, counts) = (near?, Arc::clone(&counts));
        spawn(move || {
            if let Err(error) = connection(near, to, line, &counts) {
                eprintln!("link: {error}");
            }
        })?;
    }
    Ok(Value::Null)
}
