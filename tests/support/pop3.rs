//! A POP3 client that believes nothing: every line must end in CRLF, every
//! reply must begin with `+OK`, `-ERR` or `+ `.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::PATIENCE;
use super::tls::Stream;

/// A connection to a POP3 server.
pub struct Pop3 {
    stream: BufReader<Stream>,
    /// The text of the greeting behind `+OK `.
    pub greeting: String,
}

/// What came of a reply of several lines that did not end.
#[derive(Debug)]
pub struct CutShort {
    /// The octets that came.
    pub received: Vec<u8>,
    /// How the connection ended.
    pub error: io::Error,
}

impl Pop3 {
    /// Connects in the clear and reads the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        Self::greeted(Stream::Plain(socket(address)))
    }

    /// Connects by implicit TLS; the certificate must be for `localhost`.
    pub fn connect_tls(address: SocketAddr, ca_file: &Path) -> Self {
        Self::try_connect_tls(address, ca_file).unwrap()
    }

    /// The same, where the handshake may fail.
    pub fn try_connect_tls(address: SocketAddr, ca_file: &Path) -> io::Result<Self> {
        Ok(Self::greeted(Stream::connect_tls(
            socket(address),
            ca_file,
        )?))
    }

    fn greeted(stream: Stream) -> Self {
        let mut client = Self {
            stream: BufReader::new(stream),
            greeting: String::new(),
        };
        let greeting = client.line();
        let text = greeting.strip_prefix("+OK");
        client.greeting = text
            .unwrap_or_else(|| panic!("greeting: {greeting}"))
            .trim()
            .to_owned();
        client
    }

    /// Goes on under TLS: STLS and the handshake (RFC 2595 §4).
    pub fn start_tls(mut self, ca_file: &Path) -> Self {
        self.expect_ok("STLS");
        self.upgrade(ca_file)
    }

    /// The handshake alone.
    pub fn upgrade(self, ca_file: &Path) -> Self {
        assert!(
            self.stream.buffer().is_empty(),
            "octets in the clear behind STLS"
        );
        let socket = self.stream.into_inner().into_plain();
        let stream = Stream::connect_tls(socket, ca_file).unwrap();
        Self {
            stream: BufReader::new(stream),
            greeting: self.greeting,
        }
    }

    /// Sends a command.
    pub fn send(&mut self, command: &str) {
        self.send_octets(format!("{command}\r\n").as_bytes());
    }

    /// Sends octets as they are, in one write.
    pub fn send_octets(&mut self, octets: &[u8]) {
        self.try_send(octets).unwrap();
    }

    /// The same, to a server that may have closed.
    pub fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(octets)?;
        stream.flush()
    }

    /// Reads one line, without its CRLF.
    pub fn line(&mut self) -> String {
        let line = self.try_line().unwrap();
        String::from_utf8(line.expect("the server closed the connection")).unwrap()
    }

    /// Reads one line, without its CRLF; `None` when the server has closed.
    pub fn try_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{line:?}"),
            ));
        }
        line.truncate(line.len() - 2);
        Ok(Some(line))
    }

    /// Sends a command and reads the first line of its reply.
    pub fn command(&mut self, command: &str) -> String {
        self.send(command);
        self.reply()
    }

    /// Reads the first line of a reply.
    pub fn reply(&mut self) -> String {
        let line = self.line();
        let known = line == "+OK"
            || line == "-ERR"
            || ["+OK ", "-ERR ", "+ "]
                .iter()
                .any(|start| line.starts_with(start));
        assert!(known, "no POP3 reply: {line:?}");
        line
    }

    /// Sends a command that must succeed; the text behind `+OK `.
    pub fn expect_ok(&mut self, command: &str) -> String {
        let reply = self.command(command);
        let text = reply.strip_prefix("+OK");
        text.unwrap_or_else(|| panic!("{command}: {reply}"))
            .trim_start()
            .to_owned()
    }

    /// Sends a command that must be refused; the text behind `-ERR `.
    pub fn expect_err(&mut self, command: &str) -> String {
        let reply = self.command(command);
        let text = reply.strip_prefix("-ERR");
        text.unwrap_or_else(|| panic!("{command}: {reply}"))
            .trim_start()
            .to_owned()
    }

    /// USER and PASS, which must succeed.
    pub fn login(&mut self, user: &str, password: &str) {
        self.expect_ok(&format!("USER {user}"));
        self.expect_ok(&format!("PASS {password}"));
    }

    /// The octets behind a `+OK` line up to the line with the dot, as they were
    /// on the wire: with CRLF, dot-stuffed.
    pub fn multiline(&mut self) -> Vec<u8> {
        self.try_multiline().unwrap()
    }

    /// The same, where the server may close first.
    pub fn try_multiline(&mut self) -> Result<Vec<u8>, CutShort> {
        let mut received = Vec::new();
        loop {
            let start = received.len();
            let read = self.stream.read_until(b'\n', &mut received);
            if let Err(error) = read {
                return Err(CutShort { received, error });
            }
            match &received[start..] {
                b".\r\n" => {
                    received.truncate(start);
                    return Ok(received);
                }
                line if line.ends_with(b"\r\n") => {}
                line if line.ends_with(b"\n") => panic!("a bare LF on the wire: {line:?}"),
                _ => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Err(CutShort { received, error });
                }
            }
        }
    }

    /// A command with a reply of several lines, without dot-stuffing.
    pub fn lines(&mut self, command: &str) -> Vec<String> {
        self.expect_ok(command);
        let octets = unstuff(&self.multiline());
        let text = String::from_utf8(octets).unwrap();
        text.split_terminator("\r\n").map(str::to_owned).collect()
    }

    /// A whole message (RETR), without dot-stuffing.
    pub fn retrieve(&mut self, number: usize) -> Vec<u8> {
        self.expect_ok(&format!("RETR {number}"));
        unstuff(&self.multiline())
    }

    /// The unique ids, in order (UIDL).
    pub fn unique_ids(&mut self) -> Vec<String> {
        self.numbered("UIDL")
    }

    /// The sizes, in order (LIST).
    pub fn sizes(&mut self) -> Vec<usize> {
        self.numbered("LIST")
            .iter()
            .map(|size| size.parse().unwrap())
            .collect()
    }

    fn numbered(&mut self, command: &str) -> Vec<String> {
        let lines = self.lines(command);
        let value = |line: String| line.split_once(' ').unwrap().1.to_owned();
        lines.into_iter().map(value).collect()
    }

    /// QUIT, and the end of the connection.
    pub fn quit(mut self) -> String {
        self.send("QUIT");
        let reply = self.reply();
        self.expect_closed();
        reply
    }

    /// The server must close without another octet.
    pub fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // Without a close_notify, or with a reset: closed all the same.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => panic!("the connection is still open: {error}"),
        }
        let text = String::from_utf8_lossy(&rest);
        assert!(
            rest.is_empty(),
            "the server sent more before it closed: {text:?}"
        );
    }

    /// Reads so many octets and leaves the rest unread.
    pub fn read_some(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.stream.read_exact(&mut octets).unwrap();
        octets
    }

    /// Sends no more (FIN); what the server sends can still be read.
    pub fn shut_down_sending(&mut self) {
        self.stream
            .get_ref()
            .socket()
            .shutdown(Shutdown::Write)
            .unwrap();
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        let socket = self.stream.get_ref().socket();
        socket2::SockRef::from(socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Takes dot-stuffing away (RFC 1939 §3).
pub fn unstuff(octets: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    plain
}
