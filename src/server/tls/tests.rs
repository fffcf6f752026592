#![allow(clippy::unwrap_used)]

use std::fs::rename;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::KeyPair;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;

use super::*;

/// A certificate and its key.
struct Pair {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

fn pair(year: i32) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let cert = params.self_signed(&key).unwrap();
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
        der: cert.der().clone(),
    }
}

/// A folder with `cert.pem` and `key.pem`.
struct Folder(TempDir);

impl Folder {
    fn with(pair: &Pair) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("cert.pem", &pair.cert);
        folder.put("key.pem", &pair.key);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file at once, as tools that renew certificates do.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        rename(self.path("new"), self.path(name)).unwrap();
    }

    fn load(&self) -> Result<Certificates, CertificateError> {
        Certificates::load(&self.path("cert.pem"), &self.path("key.pem"))
    }
}

fn shown(certificates: &Certificates) -> CertificateDer<'static> {
    certificates.current.0.load().key.cert[0].clone()
}

/// A handshake in memory: the server's certificate as the client got it.
fn handshake(
    certificates: &Certificates,
    trusted: &[&Pair],
    alpn: &[&[u8]],
) -> Result<CertificateDer<'static>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.der.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(certificates.server_config()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(client.peer_certificates().unwrap()[0].clone().into_owned())
}

#[test]
fn a_client_gets_the_certificate() {
    let one = pair(2040);
    let certificates = Folder::with(&one).load().unwrap();
    assert_eq!(handshake(&certificates, &[&one], &[]).unwrap(), one.der);
    assert_eq!(certificates.expires_at(), Some(2_208_988_800));
    assert!(!certificates.is_self_signed());
}

#[test]
fn a_client_of_another_protocol_is_refused() {
    let one = pair(2040);
    let certificates = Folder::with(&one).load().unwrap();
    assert!(handshake(&certificates, &[&one], &[b"pop3"]).is_ok());
    assert!(handshake(&certificates, &[&one], &[b"h2", b"pop3"]).is_ok());
    let refused = handshake(&certificates, &[&one], &[b"h2", b"http/1.1"]).unwrap_err();
    assert_eq!(refused, rustls::Error::NoApplicationProtocol);
}

#[test]
fn only_tls_1_2_and_1_3_without_early_data() {
    let certificates = Certificates::self_signed().unwrap();
    let config = certificates.server_config();
    assert_eq!(config.max_early_data_size, 0);
    assert_eq!(config.alpn_protocols, [b"pop3"]);
    assert!(certificates.is_self_signed());
    assert!(certificates.expires_at().is_some());
}

#[test]
fn files_that_cannot_be_used() {
    let (one, two) = (pair(2040), pair(2041));
    let refused = |cert: Option<&str>, key: Option<&str>| {
        let folder = Folder::with(&one);
        for (name, text) in [("cert.pem", cert), ("key.pem", key)] {
            if let Some(text) = text {
                folder.put(name, text);
            }
        }
        folder.load().unwrap_err()
    };
    let certificate = |text: &str, says: &str| match refused(Some(text), None) {
        CertificateError::Certificate(problem) => assert!(problem.contains(says), "{problem}"),
        other => panic!("{other:?}"),
    };
    certificate("", "holds no certificate");
    certificate(&one.key, "holds no certificate");
    certificate(&one.cert[..one.cert.len() / 2], "is not whole PEM");
    certificate(
        &format!("{}{}", one.cert, &two.cert[..60]),
        "is not whole PEM",
    );
    certificate(
        "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
        "is not an X.509 certificate",
    );

    let key = |text: &str, says: &str| match refused(None, Some(text)) {
        CertificateError::Key(problem) => {
            assert!(problem.contains(says), "{problem}");
            assert!(!problem.contains("MIG"), "{problem}");
        }
        other => panic!("{other:?}"),
    };
    key("", "holds no private key");
    key(&one.cert, "holds no private key");
    key(
        &one.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        "must be decrypted first",
    );
    key(&one.key[..one.key.len() / 2], "is not whole PEM");
    key(&one.key.replace("MIG", "MIH"), "key.pem");

    assert!(matches!(
        refused(None, Some(&two.key)),
        CertificateError::Mismatch { .. }
    ));
    let missing = Certificates::load(Path::new("/nowhere/cert"), Path::new("/nowhere/key"));
    assert!(matches!(
        missing.unwrap_err(),
        CertificateError::Certificate(_)
    ));
    let folder = Certificates::load(Path::new("/"), Path::new("/"));
    assert!(matches!(
        folder.unwrap_err(),
        CertificateError::Certificate(_)
    ));
}

#[test]
fn neither_debug_nor_errors_show_a_key() {
    let one = pair(2040);
    let folder = Folder::with(&one);
    let secret: String = one.key.lines().nth(1).unwrap().to_owned();
    let certificates = folder.load().unwrap();
    assert!(!format!("{certificates:?}").contains(&secret));
    folder.put(
        "key.pem",
        &format!("{secret}\n{}", one.key.replace("-----END", "----END")),
    );
    let error = folder.load().unwrap_err();
    assert!(!format!("{error:?} {error}").contains(&secret[..8]));
}

#[test]
fn reload_takes_a_good_pair_and_keeps_it_over_a_bad_one() {
    let (one, two) = (pair(2040), pair(2041));
    let folder = Folder::with(&one);
    let certificates = folder.load().unwrap();
    folder.put("key.pem", &two.key);
    certificates.reload();
    assert_eq!(shown(&certificates), one.der);
    assert_eq!(handshake(&certificates, &[&one], &[]).unwrap(), one.der);
    folder.put("cert.pem", &two.cert);
    certificates.reload();
    assert_eq!(handshake(&certificates, &[&two], &[]).unwrap(), two.der);
    fs::remove_file(folder.path("cert.pem")).unwrap();
    certificates.reload();
    assert_eq!(handshake(&certificates, &[&two], &[]).unwrap(), two.der);
    assert_eq!(certificates.expires_at(), Some(2_240_611_200));
}

#[test]
fn what_does_not_fit_is_reported_once_and_tried_again() {
    let (one, two) = (pair(2040), pair(2041));
    let folder = Folder::with(&one);
    let certificates = folder.load().unwrap();
    assert!(certificates.look(None).is_none());
    folder.put("cert.pem", &two.cert);
    let first = certificates.look(None).unwrap();
    assert!(!first.reported);
    let second = certificates.look(Some(first)).unwrap();
    assert!(second.reported && matches!(second.problem, CertificateError::Mismatch { .. }));
    folder.put("cert.pem", "");
    let third = certificates.look(Some(second)).unwrap();
    assert!(!third.reported && matches!(third.problem, CertificateError::Certificate(_)));
    assert_eq!(shown(&certificates), one.der);
    folder.put("cert.pem", &two.cert);
    folder.put("key.pem", &two.key);
    assert!(certificates.look(Some(third)).is_none());
    assert_eq!(shown(&certificates), two.der);
}

#[tokio::test(start_paused = true)]
async fn watch_follows_files_and_links_until_shutdown() {
    let (one, two, three) = (pair(2040), pair(2041), pair(2042));
    let folder = Folder::with(&one);
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let certificates = Arc::new(folder.load().unwrap());
    let shutdown = CancellationToken::new();
    let watch = tokio::spawn(Arc::clone(&certificates).watch(shutdown.clone()));
    let passed = || tokio::time::sleep(POLL * 3);

    folder.put("cert.pem", &two.cert);
    passed().await;
    assert_eq!(shown(&certificates), one.der, "half of a pair");
    folder.put("key.pem", &two.key);
    passed().await;
    assert_eq!(shown(&certificates), two.der);

    // As Kubernetes mounts secrets: the link moves, not the file.
    let other = Folder::with(&three);
    for (name, path) in [("cert.pem", &cert), ("key.pem", &key)] {
        symlink(other.path(name), folder.path("link")).unwrap();
        rename(folder.path("link"), path).unwrap();
    }
    passed().await;
    assert_eq!(shown(&certificates), three.der);

    shutdown.cancel();
    watch.await.unwrap();
    folder.put("cert.pem", &one.cert);
    folder.put("key.pem", &one.key);
    passed().await;
    assert_eq!(shown(&certificates), three.der, "nobody looks any more");
}

#[test]
fn every_handshake_during_swaps_sees_a_whole_pair() {
    let (one, two) = (pair(2040), pair(2041));
    let folder = Folder::with(&one);
    let certificates = Arc::new(folder.load().unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (certificates, done) = (Arc::clone(&certificates), Arc::clone(&done));
        let texts = [
            (one.cert.clone(), one.key.clone()),
            (two.cert.clone(), two.key.clone()),
        ];
        std::thread::spawn(move || {
            for (cert, key) in texts.iter().cycle().take(40) {
                // Written in pieces, and looked at between them.
                fs::write(folder.path("cert.pem"), &cert[..cert.len() / 2]).unwrap();
                certificates.reload();
                fs::write(folder.path("cert.pem"), cert).unwrap();
                certificates.reload();
                folder.put("key.pem", key);
                certificates.reload();
            }
            done.store(true, Ordering::Relaxed);
        })
    };
    let mut seen = [0, 0];
    while !done.load(Ordering::Relaxed) || seen == [0, 0] {
        let got = handshake(&certificates, &[&one, &two], &[]).unwrap();
        seen[usize::from(got == two.der)] += 1;
    }
    swapping.join().unwrap();
    assert_eq!(shown(&certificates), two.der);
}
