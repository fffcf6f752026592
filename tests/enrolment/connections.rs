//! Connections: kept for browsers, closed for others, and over TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use popgate::server::tls::Certificates;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::support::{Authority, PATIENCE};

/// Reads one answer whose length is told.
fn read_answer(stream: &mut impl std::io::Read) -> String {
    let mut octets = Vec::new();
    loop {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        octets.push(octet[0]);
        if octets.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(octets).unwrap();
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
        .unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn a_browser_keeps_its_connection_and_a_scraper_does_not() {
    let Some(site) = Site::start() else { return };
    let host = site.address;
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..3 {
        let request = format!("GET /enrol HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    stream
        .write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_request_on_a_connection_that_was_kept_has_the_time_of_any_other() {
    let Some(site) = Site::start() else { return };
    let host = site.address;
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /enrol HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut stream);
    // It is kept for 5 seconds; the form is not there before they are over.
    std::thread::sleep(Duration::from_secs(3));
    let form = format!(
        "POST /enrol/start HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\na="
    );
    stream.write_all(form.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    stream.write_all(b"bc").unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn halves_of_forms_keep_nobody_out() {
    let Some(site) = Site::start() else { return };
    let host = site.address;
    let half = format!(
        "POST /enrol/start HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\na="
    );
    // As many as there may be, with pages.
    let mut slow: Vec<TcpStream> = (0..96)
        .map(|_| {
            let mut stream = TcpStream::connect(host).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(half.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(Visitor::new(&site).get("/live").status, 200);
    // For the first of them, and before the time of all was over.
    let mut youngest = slow.pop().unwrap();
    youngest.write_all(b"bc").unwrap();
    let answer = read_answer(&mut youngest);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[test]
fn tls_speaks_http_and_nothing_else_with_the_certificate_of_the_day() {
    let authority = Authority::new();
    let identity = authority.localhost();
    let certificates = Certificates::load(&identity.cert_file(), &identity.key_file()).unwrap();
    let options = Options {
        tls: Some((*certificates.server_config()).clone()),
        ..Options::default()
    };
    let Some(site) = Site::with(options) else {
        return;
    };
    let connect = |protocol: &[u8]| {
        let mut roots = RootCertStore::empty();
        use rustls::pki_types::pem::PemObject as _;
        let ca = rustls::pki_types::CertificateDer::from_pem_file(authority.ca_file());
        roots.add(ca.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(site.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        StreamOwned::new(connection, stream)
    };
    let request = format!("GET /enrol HTTP/1.1\r\nHost: {}\r\n\r\n", site.address);
    let mut browser = connect(b"http/1.1");
    browser.write_all(request.as_bytes()).unwrap();
    let answer = read_answer(&mut browser);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("set-cookie: __Host-popgate="), "{answer}");
    assert!(answer.contains("strict-transport-security: "), "{answer}");
    // Another protocol's client is at the wrong door.
    let mut other = connect(b"pop3");
    assert!(
        other
            .write_all(b"QUIT\r\n")
            .and_then(|()| other.flush())
            .is_err()
    );
    // In the clear nothing is said; others are served meanwhile.
    let mut clear = TcpStream::connect(site.address).unwrap();
    clear.set_read_timeout(Some(PATIENCE)).unwrap();
    clear.write_all(request.as_bytes()).unwrap();
    let mut rest = Vec::new();
    let _ = clear.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/"));
    browser.write_all(request.as_bytes()).unwrap();
    assert!(read_answer(&mut browser).starts_with("HTTP/1.1 200 "));

    let shown = |browser: &StreamOwned<ClientConnection, TcpStream>| {
        let chain = browser.conn.peer_certificates().unwrap();
        chain[0].clone().into_owned()
    };
    let first = shown(&browser);
    let next = authority.localhost();
    std::fs::copy(next.key_file(), identity.key_file()).unwrap();
    std::fs::copy(next.cert_file(), identity.cert_file()).unwrap();
    certificates.reload();
    let mut browser = connect(b"http/1.1");
    browser.write_all(request.as_bytes()).unwrap();
    assert!(read_answer(&mut browser).starts_with("HTTP/1.1 200 "));
    assert_ne!(shown(&browser), first);
}
