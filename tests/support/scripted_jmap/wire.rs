//! HTTP/1.1 by hand, so that a test can break it anywhere.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::PATIENCE;
use super::super::tls::Stream;
use super::account::{Account, SHARED};
use super::{API, Answer, DOWNLOAD, SESSION, Shared, methods};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The connection, from 0.
    pub connection: usize,
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The JMAP calls in it: methods and arguments.
    pub fn calls(&self) -> Vec<(String, Value)> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let calls = body["methodCalls"].as_array().cloned().unwrap_or_default();
        let named = calls.into_iter().map(|mut call| {
            let name = call[0].as_str().unwrap_or_default().to_owned();
            (name, call[1].take())
        });
        named.collect()
    }

    /// Whether this method is called in it.
    pub fn has_call(&self, method: &str) -> bool {
        self.calls().iter().any(|(name, _)| name == method)
    }

    /// Who asks, if the credentials are good.
    fn user(&self) -> Option<String> {
        let (scheme, rest) = self.header("authorization")?.split_once(' ')?;
        match scheme {
            "Basic" => {
                let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
                let (user, password) = pair.split_once(':')?;
                (password == format!("pw-{user}")).then(|| user.to_owned())
            }
            "Bearer" => rest.strip_prefix("tok-").map(str::to_owned),
            _ => None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub framing: Framing,
    pub end: End,
}

/// How the client is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length.
    Length,
    /// By a length that is not the true one.
    Claimed(u64),
    /// In chunks of so many octets.
    Chunked(usize),
    /// By the end of the connection.
    Close,
}

/// What happens after how much of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it is sent, and the connection goes on.
    Whole,
    /// An orderly end behind so many octets.
    Cut(usize),
    /// A reset behind so many octets.
    Reset(usize),
    /// Nothing more behind so many octets.
    Hang(usize),
    /// Not even a head.
    Silence,
    /// The body again and again, for as long as the client takes it.
    Endless,
    /// So many octets at a time, with a pause behind each, for as long as the
    /// client takes it.
    Drip(usize, Duration),
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            framing: Framing::Length,
            end: End::Whole,
        }
    }

    pub fn json(value: &Value) -> Self {
        Self::of(value.to_string()).header("Content-Type", "application/json")
    }

    pub fn of(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::status(200)
        }
    }

    pub fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).header("Location", location)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn framed(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    pub fn ending(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Sends it. Returns whether the connection goes on.
    fn write_to(&self, stream: &mut Stream) -> io::Result<bool> {
        if self.end == End::Silence {
            let _ = stream.read(&mut [0]);
            return Ok(false);
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match self.framing {
            Framing::Length => format!("Content-Length: {}\r\n", self.body.len()),
            Framing::Claimed(octets) => format!("Content-Length: {octets}\r\n"),
            Framing::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::Close => "Connection: close\r\n".to_owned(),
        };
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        let sent = match self.end {
            End::Cut(octets) | End::Reset(octets) | End::Hang(octets) => {
                octets.min(self.body.len())
            }
            End::Whole | End::Endless | End::Drip(..) | End::Silence => self.body.len(),
        };
        match self.end {
            End::Drip(octets, pause) => {
                for piece in self.body.chunks(octets) {
                    self.write_piece(piece, stream)?;
                    stream.flush()?;
                    std::thread::sleep(pause);
                }
            }
            End::Endless => loop {
                self.write_piece(&self.body, stream)?;
            },
            _ => self.write_piece(&self.body[..sent], stream)?,
        }
        if matches!(self.framing, Framing::Chunked(_))
            && matches!(self.end, End::Whole | End::Drip(..))
        {
            stream.write_all(b"0\r\n\r\n")?;
        }
        stream.flush()?;
        match self.end {
            End::Reset(_) => {
                let socket = socket2::SockRef::from(stream.socket());
                socket.set_linger(Some(Duration::ZERO))?;
                Ok(false)
            }
            End::Cut(_) => Ok(false),
            End::Hang(_) => {
                let _ = stream.read(&mut [0]);
                Ok(false)
            }
            _ => Ok(self.framing != Framing::Close),
        }
    }

    fn write_piece(&self, piece: &[u8], stream: &mut Stream) -> io::Result<()> {
        let Framing::Chunked(octets) = self.framing else {
            return stream.write_all(piece);
        };
        for chunk in piece.chunks(octets) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        Ok(())
    }
}

/// Serves one connection to its end.
pub(super) fn serve(shared: &Shared, socket: TcpStream, connection: usize) {
    let _ = socket.set_nodelay(true);
    let _ = socket.set_read_timeout(Some(PATIENCE));
    let _ = socket.set_write_timeout(Some(PATIENCE));
    let stream = match &shared.tls {
        Some(config) => Stream::accept_tls(socket, config.clone()),
        None => Ok(Stream::Plain(socket)),
    };
    let Ok(stream) = stream else { return };
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = read(&mut stream, connection) {
        shared.journal.lock().unwrap().push(request.clone());
        match answer(shared, &request) {
            Some(reply) => match reply.write_to(stream.get_mut()) {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            },
            None => {
                let socket = socket2::SockRef::from(stream.get_ref().socket());
                let _ = socket.set_linger(Some(Duration::ZERO));
                return;
            }
        }
    }
}

fn read(stream: &mut BufReader<Stream>, connection: usize) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next(), words.next());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request {
        connection,
        method: method.unwrap_or_default(),
        path: path.unwrap_or_default(),
        headers,
        body,
    }))
}

/// None for a reset.
fn answer(shared: &Shared, request: &Request) -> Option<Reply> {
    let mut account = shared.account.lock().unwrap();
    let overridden = shared
        .on_request
        .iter()
        .map(|answer| answer(request, &mut account))
        .find(|answer| !matches!(answer, Answer::Usual));
    let usual = |account: &mut Account| usual(shared, request, account);
    match overridden.unwrap_or(Answer::Usual) {
        Answer::Usual => Some(usual(&mut account)),
        Answer::Send(reply) => Some(reply),
        Answer::Change(change) => Some(change(usual(&mut account))),
        Answer::Reset => None,
        Answer::DoThenReset => {
            usual(&mut account);
            None
        }
        Answer::Hang => Some(Reply::status(200).ending(End::Silence)),
    }
}

fn usual(shared: &Shared, request: &Request, account: &mut Account) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/.well-known/jmap" {
        return Reply::redirect(301, SESSION);
    }
    if request.user().is_none() {
        return Reply::status(401).header("WWW-Authenticate", "Basic realm=\"mail\"");
    }
    match (request.method.as_str(), path) {
        ("GET", SESSION) => Reply::json(&account.session()),
        ("POST", API) => match serde_json::from_slice(&request.body) {
            Ok(body) => methods::answer(&body, account, &shared.on_method, &shared.on_answer),
            Err(_) => Reply::status(400),
        },
        ("GET", path) if path.starts_with(DOWNLOAD) => download(path, request, account),
        _ => Reply::status(404),
    }
}

/// RFC 8620 §6.2.
fn download(path: &str, request: &Request, account: &Account) -> Reply {
    let mut parts = path[DOWNLOAD.len()..].split('/');
    let (of, blob) = (parts.next(), parts.next().unwrap_or_default());
    let account = match &account.shared {
        Some((_, shared)) if of == Some(SHARED) => &**shared,
        _ => account,
    };
    let Some(email) = account.emails.iter().find(|email| email.blob == blob) else {
        return Reply::status(404);
    };
    let framing = if account.chunked {
        Framing::Chunked(1000)
    } else {
        Framing::Length
    };
    let range = request.header("range").filter(|_| account.ranges);
    let Some(range) = range.and_then(|it| it.strip_prefix("bytes=")) else {
        return Reply::of(email.octets.clone()).framed(framing);
    };
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = (last.parse::<usize>().unwrap() + 1).min(email.octets.len());
    if first >= end {
        return Reply::status(416);
    }
    let mut reply = Reply::of(email.octets[first..end].to_vec()).framed(framing);
    reply.status = 206;
    let range = format!("bytes {first}-{}/{}", end - 1, email.octets.len());
    reply.header("Content-Range", &range)
}
