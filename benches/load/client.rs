//! A POP3 client that waits for each answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// Longer than any goal.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// A server to connect to.
pub struct Target {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub fn new(address: SocketAddr, tls: bool) -> anyhow::Result<Self> {
        let tls = if tls { Some(trusting()?) } else { None };
        Ok(Self { address, tls })
    }
}

/// Certificates here are made for one run, on loopback.
fn trusting() -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

/// A session.
pub struct Client {
    stream: BufReader<Stream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects, and logs in by USER and PASS.
    pub fn login(target: &Target, user: &str, password: &str) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).context("connecting")?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(LONGEST_SILENCE))?;
        let stream = match &target.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let connection = ClientConnection::new(Arc::clone(config), name)?;
                Stream::Tls(Box::new(StreamOwned::new(connection, tcp)))
            }
        };
        let mut client = Self {
            stream: BufReader::with_capacity(1 << 16, stream),
            line: Vec::new(),
        };
        client.answer()?;
        client.ask(&format!("USER {user}"))?;
        client.ask(&format!("PASS {password}"))?;
        Ok(client)
    }

    /// Sends octets as they are.
    pub fn send(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        match self.stream.get_mut() {
            Stream::Plain(stream) => stream.write_all(octets)?,
            Stream::Tls(stream) => {
                stream.write_all(octets)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    fn read_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        if !self.line.ends_with(b"\r\n") {
            bail!("cut off after {:?}", String::from_utf8_lossy(&self.line));
        }
        Ok(())
    }

    /// The first line of an answer, which must be `+OK`.
    pub fn answer(&mut self) -> anyhow::Result<()> {
        self.read_line()?;
        if !self.line.starts_with(b"+OK") {
            bail!("{}", String::from_utf8_lossy(&self.line).trim_end());
        }
        Ok(())
    }

    /// Sends a command and waits for its first line.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<()> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.answer()
    }

    /// The lines of a multi-line answer, as the server meant them. Returns their
    /// octets, with CRLF.
    pub fn lines(&mut self, mut each: impl FnMut(&[u8])) -> anyhow::Result<u64> {
        let mut octets = 0;
        loop {
            self.read_line()?;
            if self.line == b".\r\n" {
                return Ok(octets);
            }
            let line = self.line.strip_prefix(b".").unwrap_or(&self.line);
            octets += line.len() as u64;
            each(line);
        }
    }

    /// STAT: messages, octets.
    pub fn stat(&mut self) -> anyhow::Result<(usize, u64)> {
        self.ask("STAT")?;
        let line = String::from_utf8_lossy(&self.line).into_owned();
        let mut words = line.split_ascii_whitespace().skip(1);
        let messages = words.next().context("STAT without a count")?.parse()?;
        let octets = words.next().context("STAT without octets")?.parse()?;
        Ok((messages, octets))
    }

    /// LIST or UIDL: what stands behind each number.
    pub fn listing(&mut self, command: &str, mut each: impl FnMut(&[u8])) -> anyhow::Result<usize> {
        self.ask(command)?;
        let mut lines = 0;
        self.lines(|line| {
            lines += 1;
            let line = line.strip_suffix(b"\r\n").unwrap_or(line);
            if let Some(blank) = line.iter().position(|octet| *octet == b' ') {
                each(&line[blank + 1..]);
            }
        })?;
        Ok(lines)
    }
}
