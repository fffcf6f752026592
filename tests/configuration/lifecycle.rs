//! How popgate starts, reloads and stops.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::Signal;

use crate::process::{Ended, LOOPBACK, PATIENCE, UPSTREAM, get, get_until, pair, serve};

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind(LOOPBACK).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, arguments) in [
        ("pop3", ["--pop3", &address, "--pop3s", LOOPBACK]),
        ("pop3s", ["--pop3", LOOPBACK, "--pop3s", &address]),
        ("http", ["--pop3", LOOPBACK, "--http", &address]),
    ] {
        let Ended { code, stderr, .. } =
            serve(&[&["--upstream", UPSTREAM], &arguments[..]].concat()).run();
        assert_eq!(code, Some(1), "{stderr}");
        let says = format!("popgate: {key}: {address}: address in use\n");
        assert!(stderr.ends_with(&says), "{stderr:?} instead of {says:?}");
    }
}

#[test]
fn it_starts_tells_its_manager_and_stops() {
    for signal in [Signal::TERM, Signal::INT] {
        let manager = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(manager.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let told = || {
            let mut message = [0; 256];
            let octets = socket.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..octets])
                .trim_end()
                .to_owned()
        };
        let running = serve(&[
            "--upstream",
            UPSTREAM,
            "--pop3",
            LOOPBACK,
            "--allow-cleartext",
            "--http",
            LOOPBACK,
        ])
        .env(
            "NOTIFY_SOCKET",
            manager.path().join("notify").to_str().unwrap(),
        )
        .start();
        let http = running.http();
        assert_eq!(told(), "READY=1");
        get_until(http, "/ready", "HTTP/1.1 200 ");
        assert!(get(http, "/live").starts_with("HTTP/1.1 200 "));
        assert!(get(http, "/metrics").contains("\npopgate_sessions_active 0\n"));
        running.signal(signal);
        assert_eq!(told(), "STOPPING=1");
        running.stop();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn it_leaves_no_core_and_takes_all_descriptors() {
    let running = serve(&[
        "--upstream",
        UPSTREAM,
        "--pop3",
        LOOPBACK,
        "--http",
        LOOPBACK,
    ])
    .start();
    running.http();
    let limits = fs::read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let columns = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let mut columns = line[name.len()..].split_whitespace();
        (
            columns.next().unwrap().to_owned(),
            columns.next().unwrap().to_owned(),
        )
    };
    assert_eq!(
        columns("Max core file size"),
        ("0".to_owned(), "0".to_owned())
    );
    let (soft, hard) = columns("Max open files");
    assert_eq!(soft, hard);
    running.stop();
}

#[test]
fn trying_out_is_possible_and_warned_of() {
    let running = serve(&["--upstream", "imap+plain://192.0.2.1", "--pop3s", LOOPBACK]).start();
    running.logs(&[
        " WARN ",
        "PASSWORDS AND MAIL CROSS THE NETWORK",
        "imap+plain://192.0.2.1:143",
    ]);
    running.logs(&[" WARN ", "SELF-SIGNED CERTIFICATE"]);
    running.logs(&["listening"]);
    running.stop();

    let running = serve(&[
        "--upstream",
        UPSTREAM,
        "--pop3",
        LOOPBACK,
        "--log-format",
        "json",
    ])
    .start();
    let line = running.logs(&["NOBODY CAN LOG IN"]);
    assert!(
        line.starts_with("{\"timestamp\":") && line.contains("\"level\":\"WARN\""),
        "{line}"
    );
    running.logs(&["listening"]);
    running.stop();
}

#[test]
fn hang_up_reads_the_certificate_again() {
    let ((cert, key), (new_cert, new_key)) = (pair(2040), pair(2041));
    let running = serve(&[
        "--upstream",
        UPSTREAM,
        "--pop3s",
        LOOPBACK,
        "--http",
        LOOPBACK,
    ])
    .file("cert.pem", &cert)
    .file("key.pem", &key)
    .config("cert = \"cert.pem\"\nkey = \"key.pem\"")
    .start();
    let http = running.http();
    let expires =
        |seconds: u64| format!("popgate_certificate_expiry_timestamp_seconds {seconds}\n");
    get_until(http, "/metrics", &expires(2_208_988_800));
    let put = |folder: &Path, name: &str, text: &str| fs::write(folder.join(name), text).unwrap();

    put(running.folder.path(), "cert.pem", &new_cert);
    running.signal(Signal::HUP);
    running.logs(&[
        " ERROR ",
        "CERTIFICATE NOT RELOADED",
        "do not belong together",
    ]);
    assert!(get(http, "/metrics").contains(&expires(2_208_988_800)));

    put(running.folder.path(), "key.pem", &new_key);
    running.signal(Signal::HUP);
    get_until(http, "/metrics", &expires(2_240_611_200));
    running.stop();
}
