//! A TCP proxy that passes everything on, and remembers what was sent.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub struct Recorder {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    stopped: AtomicBool,
    received: AtomicU64,
    sent: Mutex<Vec<u8>>,
}

impl Recorder {
    /// In front of a port of 127.0.0.1.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            stopped: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Octets from the server so far.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// The lines sent to the server so far, without their tags; where there is
    /// no TLS.
    pub fn commands(&self) -> Vec<String> {
        let sent = self.shared.sent.lock().unwrap();
        let text = String::from_utf8_lossy(&sent);
        let command = |line: &str| match line.split_once(' ') {
            Some((_tag, command)) => command.to_owned(),
            None => line.to_owned(),
        };
        text.split_terminator("\r\n").map(command).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server)) else {
                continue;
            };
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
            }
            let (from_client, to_client) = (client.try_clone().unwrap(), client);
            let (from_server, to_server) = (server.try_clone().unwrap(), server);
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                pass(from_client, to_server, |octets| {
                    shared.sent.lock().unwrap().extend_from_slice(octets);
                });
            });
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                pass(from_server, to_client, |octets| {
                    let octets = u64::try_from(octets.len()).unwrap();
                    shared.received.fetch_add(octets, Ordering::SeqCst);
                });
            });
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        note(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Neither side may wait for the other.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
