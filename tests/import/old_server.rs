//! An old POP3 server that does as a test says, and notes what it was told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::support::PATIENCE;

/// A message and its unique id.
type Stored = (Vec<u8>, String);

/// How it is, besides its messages.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// What CAPA says; `None`: it has no CAPA.
    pub capabilities: Option<&'static str>,
    /// Answers to commands, by their beginning, instead of the usual.
    pub answers: Vec<(&'static str, String)>,
    /// It closes the connection, its only one, when it has sent so many octets.
    pub cut: Option<usize>,
}

/// The server. Each user's password is `pw-NAME`, and all have one maildrop.
pub struct OldServer {
    address: SocketAddr,
    told: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
}

impl OldServer {
    /// With these messages, each with its unique id.
    pub fn start(messages: &[(Vec<u8>, &str)], manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let messages: Arc<Vec<Stored>> = Arc::new(
            messages
                .iter()
                .map(|(text, id)| (text.clone(), (*id).to_owned()))
                .collect(),
        );
        let (log, count) = (Arc::clone(&told), Arc::new(AtomicUsize::new(0)));
        let sent = Arc::clone(&count);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (messages, manner) = (Arc::clone(&messages), manner.clone());
                let (log, count) = (Arc::clone(&log), Arc::clone(&count));
                std::thread::spawn(move || {
                    // The client may leave at any time.
                    let _ = serve(socket?, &messages, &manner, &log, &count);
                    Ok::<(), std::io::Error>(())
                });
            }
        });
        Self {
            address,
            told,
            sent,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("pop3+plain://{}", self.address)
    }

    pub fn stls_url(&self) -> String {
        format!("pop3+stls://{}", self.address)
    }

    /// Octets that it has said, or would have.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Every line it was told, in order. Nothing was written to the maildrop.
    pub fn told(&self) -> Vec<String> {
        let told = self.told.lock().unwrap().clone();
        for line in &told {
            let keyword = line.split(' ').next().unwrap().to_ascii_uppercase();
            assert!(
                !["DELE", "RETR", "RSET"].contains(&keyword.as_str()),
                "{line}"
            );
        }
        told
    }
}

fn serve(
    socket: TcpStream,
    messages: &[Stored],
    manner: &Manner,
    log: &Mutex<Vec<String>>,
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut out = Cut {
        socket,
        cut: manner.cut,
        sent,
    };
    out.send(b"+OK ready\r\n")?;
    let mut user = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        log.lock().unwrap().push(line.clone());
        let of_its_own = manner
            .answers
            .iter()
            .find(|(command, _)| line.starts_with(command));
        if let Some((_, answer)) = of_its_own {
            out.send(answer.as_bytes())?;
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let listing = |row: &dyn Fn(usize, &Stored) -> String| {
            let rows = (1..).zip(messages).map(|(number, it)| row(number, it));
            format!("+OK\r\n{}.\r\n", rows.collect::<String>())
        };
        let answer = match words[0] {
            "CAPA" => match manner.capabilities {
                Some(capabilities) => format!("+OK\r\n{capabilities}.\r\n"),
                None => "-ERR unknown\r\n".to_owned(),
            },
            "USER" => {
                words[1].clone_into(&mut user);
                "+OK\r\n".to_owned()
            }
            "PASS" if words[1..].join(" ") == format!("pw-{user}") => "+OK\r\n".to_owned(),
            "PASS" => "-ERR wrong\r\n".to_owned(),
            "STAT" => format!("+OK {} 0\r\n", messages.len()),
            "LIST" => listing(&|number, (text, _)| format!("{number} {}\r\n", text.len())),
            "UIDL" => listing(&|number, (_, id)| format!("{number} {id}\r\n")),
            "TOP" => {
                let number: usize = words[1].parse().unwrap();
                let text = String::from_utf8(messages[number - 1].0.clone()).unwrap();
                let header = text.split("\r\n\r\n").next().unwrap();
                format!("+OK\r\n{header}\r\n\r\n.\r\n")
            }
            "QUIT" => {
                out.send(b"+OK\r\n")?;
                return Ok(());
            }
            _ => "-ERR unknown\r\n".to_owned(),
        };
        out.send(answer.as_bytes())?;
    }
}

/// Sends as many octets as it may.
struct Cut<'a> {
    socket: TcpStream,
    cut: Option<usize>,
    sent: &'a AtomicUsize,
}

impl Cut<'_> {
    fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        let before = self.sent.fetch_add(octets.len(), Ordering::Relaxed);
        let left = self.cut.map_or(usize::MAX, |cut| cut - before);
        self.socket.write_all(&octets[..octets.len().min(left)])?;
        if octets.len() >= left {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}
