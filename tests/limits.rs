//! What one client, or many, can take from the others: nothing that is not
//! bounded. Connections, descriptors, memory, attempts at passwords, and lines
//! in the log.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::messages::plain;
use support::{Answer, Authority, Gateway, PATIENCE, Pop3, ScriptedImap};

/// `popgate serve` in front of the server, with these lines in its file.
fn configured(imap: &ScriptedImap, sockets: usize, settings: &str) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("popgate.toml");
    let text = format!(
        "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nupstream = \"{}\"\n{settings}\n",
        imap.plain_url()
    );
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let gateway = Gateway::start_expecting(sockets, &["--config", path]);
    (gateway, folder)
}

/// Tries until it succeeds.
fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(Instant::now() < deadline, "never");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The first line that a new connection reads; `None` where it is closed.
fn first_line(gateway: &Gateway) -> (TcpStream, Option<String>) {
    let socket = TcpStream::connect(gateway.address("pop3")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = Vec::new();
    let mut octet = [0];
    while (&socket).read(&mut octet).unwrap_or(0) == 1 {
        line.push(octet[0]);
        if octet == *b"\n" {
            return (socket, Some(String::from_utf8(line).unwrap()));
        }
    }
    (socket, None)
}

fn metrics(gateway: &Gateway) -> String {
    let mut socket = TcpStream::connect(gateway.address("http")).unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let settings = "http = \"127.0.0.1:0\"\n[limits]\nconnections = 2";
    let (gateway, _folder) = configured(&imap, 2, settings);
    let mut first = gateway.pop3();
    let _second = gateway.pop3();
    for _ in 0..5 {
        let (mut socket, line) = first_line(&gateway);
        let line = line.expect("refused without a word");
        assert!(line.starts_with("-ERR [SYS/TEMP] "), "{line}");
        assert_eq!(socket.read(&mut [0]).unwrap(), 0);
    }
    first.login("alice", "pw-alice");
    let metrics = metrics(&gateway);
    for line in [
        "popgate_connections_refused_total{limit=\"connections\"} 5\n",
        "popgate_sessions_active 2\n",
        "popgate_upstream_connections 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    first.quit();
    eventually(|| {
        first_line(&gateway)
            .1
            .filter(|line| line.starts_with("+OK"))
    });
}

#[test]
fn a_process_without_descriptors_recovers() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _folder) = configured(&imap, 1, "");
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    let pid = gateway.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    let pid = Pid::from_raw(pid.try_into().unwrap());
    let few = Rlimit {
        current: Some(open + 5),
        maximum: Some(open + 5),
    };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let crowd: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(gateway.address("pop3")).unwrap())
        .collect();
    gateway.wait_for_log("cannot accept connections");
    // Who is in is served, who wants a connection upstream is told to wait.
    client.expect_ok("STAT");
    assert_eq!(client.retrieve(1), b"\r\na\r\n");
    let mut refused = &crowd[0];
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    refused
        .write_all(b"USER bob\r\nPASS pw-bob\r\nQUIT\r\n")
        .unwrap();
    let mut answers = String::new();
    refused.read_to_string(&mut answers).unwrap();
    assert!(answers.contains("-ERR [SYS/TEMP] "), "{answers}");
    drop(crowd);
    let mut other = eventually(|| {
        let (socket, line) = first_line(&gateway);
        line.map(|_| socket)
    });
    other.write_all(b"QUIT\r\n").unwrap();
    let complaints = gateway.logs().matches("cannot accept connections").count();
    assert!(
        complaints <= 3,
        "{complaints} complaints:\n{}",
        gateway.logs()
    );
    client.quit();
}

#[test]
fn fewer_descriptors_than_connections_are_seen_at_the_start() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("popgate.toml");
    let settings = "\n[limits]\nconnections = 1000000";
    let text = format!(
        "pop3 = \"127.0.0.1:0\"\nupstream = \"{}\"{settings}",
        imap.plain_url()
    );
    fs::write(&config, text).unwrap();
    let gateway = Gateway::start_expecting(1, &["--config", config.to_str().unwrap()]);
    gateway.wait_for_log("limits.connections cannot be reached");
}

#[test]
fn clients_that_never_begin_tls_are_sent_away() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let identity = Authority::new().localhost();
    let settings = format!(
        "pop3s = \"127.0.0.1:0\"\ncert = {:?}\nkey = {:?}\n[timeouts]\nhandshake = \"1s\"",
        identity.cert_file(),
        identity.key_file()
    );
    let (gateway, _folder) = configured(&imap, 2, &settings);
    let mut silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(gateway.address("pop3s")).unwrap())
        .collect();
    // Half a ClientHello is no more than none.
    let mut client = gateway.pop3();
    for socket in &mut silent[..100] {
        socket.write_all(b"\x16\x03\x01").unwrap();
    }
    let mut stls = gateway.pop3();
    stls.expect_ok("STLS");
    client.login("alice", "pw-alice");
    for mut socket in silent {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
    }
    assert!(!matches!(stls.try_line(), Ok(Some(_))));
    client.expect_ok("NOOP");
    client.quit();
    let ended = eventually(|| Some(gateway.logs().matches("end=tls").count()).filter(|n| *n > 200));
    assert_eq!(ended, 201);
}

#[test]
fn a_stale_password_reaches_the_upstream_three_times() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _folder) = configured(&imap, 1, "");
    let mut clients: Vec<Pop3> = (0..40).map(|_| gateway.pop3()).collect();
    for client in &mut clients {
        client.send_octets(b"USER alice\r\nPASS stale\r\n");
    }
    for client in &mut clients {
        client.reply();
        assert_eq!(client.reply(), "-ERR [AUTH] invalid user name or password");
    }
    assert_eq!(imap.commands_starting("AUTHENTICATE").len(), 3);
    // The right one is another matter, from as many clients as like.
    for client in &mut clients {
        client.send_octets(b"USER alice\r\nPASS pw-alice\r\n");
    }
    let replies: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.reply();
            client.reply()
        })
        .collect();
    let opened = replies.iter().filter(|reply| reply.starts_with("+OK"));
    assert_eq!(opened.count(), 1);
    let in_use = replies
        .iter()
        .filter(|reply| reply.starts_with("-ERR [IN-USE] "));
    assert_eq!(in_use.count(), 39);
}

#[test]
fn a_guesser_waits_and_nobody_else() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _folder) = configured(&imap, 1, "");
    let mut guesser = first_line(&gateway).0;
    guesser
        .write_all(b"USER alice\r\nPASS guess\r\nUSER alice\r\nPASS another\r\n")
        .unwrap();
    while imap.commands_starting("AUTHENTICATE").len() < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut owner = gateway.pop3();
    owner.login("alice", "pw-alice");
    // All is answered but the last guess.
    let answers = b"+OK send PASS\r\n-ERR [AUTH] invalid user name or password\r\n";
    let mut heard = vec![0; answers.len()];
    guesser.read_exact(&mut heard).unwrap();
    assert_eq!(heard, answers);
    guesser.read_exact(&mut heard[..15]).unwrap();
    guesser.set_nonblocking(true).unwrap();
    let early = guesser.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    guesser.set_nonblocking(false).unwrap();
    // While the maildrop is in use only who knows the password learns of it.
    guesser
        .write_all(b"USER alice\r\nPASS pw-alice\r\nQUIT\r\n")
        .unwrap();
    let mut answers = String::new();
    guesser.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("-ERR [AUTH] invalid user name or password\r\n"));
    assert!(answers.contains("\r\n-ERR [IN-USE] "), "{answers}");
    owner.quit();
}

#[test]
fn an_upstream_that_asks_for_a_pause_gets_it() {
    let asked = AtomicUsize::new(0);
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n"])
        .on("AUTHENTICATE", move |command, _| {
            if asked.fetch_add(1, Ordering::SeqCst) > 0 {
                return Answer::Usual;
            }
            Answer::send(
                command.no("Request is throttled. Suggested Backoff Time: 600000 milliseconds"),
            )
        })
        .start();
    let (gateway, _folder) = configured(&imap, 1, "");
    let mut client = gateway.pop3();
    for _ in 0..5 {
        client.expect_ok("USER alice");
        assert!(
            client
                .expect_err("PASS pw-alice")
                .starts_with("[SYS/TEMP] ")
        );
    }
    assert_eq!(imap.connections(), 1);
    // It is about that account.
    client.login("bob", "pw-bob");
    client.quit();
}

#[test]
fn clients_that_do_not_read_take_no_memory() {
    let messages: Vec<Vec<u8>> = (0..20).map(|n| plain(n, 100_000)).collect();
    let imap = ScriptedImap::builder().messages(&messages).start();
    let (gateway, _folder) = configured(&imap, 1, "[upstream_rest]\nlongest = \"0s\"");
    let before = gateway.rss_kib();
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = gateway.pop3();
        client.login(&format!("user{number}"), &format!("pw-user{number}"));
        clients.push(client);
    }
    let commands: String = (0..10_000)
        .map(|n| format!("RETR {}\r\n", n % 20 + 1))
        .collect();
    let writers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let commands = commands.clone();
            std::thread::spawn(move || {
                client.send_octets(&commands.as_bytes()[..60_000]);
                client
            })
        })
        .collect();
    let mut clients: Vec<Pop3> = writers.into_iter().map(|it| it.join().unwrap()).collect();
    // Each has its first message, and the gateway is stuck with the next ones.
    for client in &mut clients {
        assert!(client.reply().starts_with("+OK "));
        client.read_some(50_000);
    }
    let grown = gateway.peak_rss_kib() - before;
    assert!(grown < 20 * 512, "{grown} KiB for 20 clients");
    drop(clients);
    imap.wait_until_closed();
}

#[test]
fn a_long_listing_is_sent_as_it_is_read() {
    let messages = vec![b"\r\n"; 30_000];
    let imap = ScriptedImap::builder().messages(&messages).start();
    let (gateway, _folder) = configured(&imap, 1, "");
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    let before = gateway.peak_rss_kib();
    client.send_octets(&b"UIDL\r\nLIST\r\n".repeat(60));
    for _ in 0..60 {
        for octets in [30_000 * (16 + 2 + 1), 30_000 * (1 + 2 + 1)] {
            assert!(client.reply().starts_with("+OK 30000 messages"));
            let listing = client.multiline();
            let numbers: usize = (1..=30_000_usize).map(|n| n.to_string().len()).sum();
            assert_eq!(listing.len(), octets + numbers);
        }
    }
    let grown = gateway.peak_rss_kib() - before;
    assert!(grown < 1024, "{grown} KiB for listings");
    client.quit();
}

#[test]
fn no_name_breaks_a_line_of_the_log() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    for format in ["text", "json"] {
        let settings = format!("[log]\nformat = \"{format}\"");
        let (gateway, _folder) = configured(&imap, 1, &settings);
        let names = [
            "eve\" end=quit user=\"root".to_owned(),
            "eve end=quit user=root".to_owned(),
            "\u{202e}eve\u{2028}2026-01-01T00:00:00Z ERROR popgate: x".to_owned(),
            "x".repeat(480),
            "\u{1f4ec}".repeat(120),
            "\\".repeat(480),
        ];
        for name in &names {
            let mut client = gateway.pop3();
            client.expect_ok(&format!("USER {name}"));
            client.expect_ok(
                &format!("PASS pw-{name}")
                    .chars()
                    .take(500)
                    .collect::<String>(),
            );
            client.quit();
        }
        for name in ["\u{1b}[31meve", "eve\u{7f}", "eve\u{85}x"] {
            let mut client = gateway.pop3();
            client.expect_err(&format!("USER {name}"));
            let response = STANDARD.encode(format!("\0{name}\0x"));
            client.expect_err(&format!("AUTH PLAIN {response}"));
            client.quit();
        }
        let logs = eventually(|| {
            let logs = gateway.logs();
            let ends = logs.matches("session ended").count();
            (ends >= names.len() + 3).then_some(logs)
        });
        let ends: Vec<&str> = logs
            .lines()
            .filter(|line| line.contains("session ended"))
            .collect();
        assert_eq!(ends.len(), names.len() + 3, "{logs}");
        for line in ends {
            assert!(line.len() < 900, "{} octets: {line}", line.len());
        }
        assert!(
            !logs.contains(['\u{1b}', '\u{202e}', '\u{2028}', '\u{85}', '\r']),
            "{logs}"
        );
        // The only end of a session that is not quoted is popgate's own.
        if format == "text" {
            let own = logs.lines().filter(|line| line.ends_with(" end=quit"));
            assert_eq!(own.count(), names.len() + 3, "{logs}");
        }
    }
}

#[test]
fn no_secret_is_written_anywhere() {
    let imap = ScriptedImap::builder()
        .messages(&[b"Subject: canary-subject\r\n\r\ncanary-body\r\n"])
        .on("AUTHENTICATE", |command, _| match command.connection {
            0 => Answer::send(command.no("[UNAVAILABLE] canary-upstream\r")),
            _ => Answer::Usual,
        })
        .start();
    let settings = "http = \"127.0.0.1:0\"\n[log]\nlevel = \"trace\"";
    let (gateway, _folder) = configured(&imap, 2, settings);
    let token = |name: &str| {
        let response = format!("user={name}\x01auth=Bearer tok-{name}\x01\x01");
        STANDARD.encode(response)
    };
    let wrong = STANDARD.encode("\0alice\0canary-plain");
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    client.expect_err("PASS canary-pass");
    client.expect_err(&format!("AUTH PLAIN {wrong}"));
    client.expect_err("canary-line");
    client.expect_err("PASS canary-early\0");
    client.login("alice", "pw-alice");
    client.expect_ok("RETR 1");
    client.multiline();
    client.expect_ok("DELE 1");
    client.quit();
    let mut client = gateway.pop3();
    client.expect_ok(&format!("AUTH XOAUTH2 {}", token("canary-user")));
    client.quit();
    gateway.wait_for_log("message removed");
    gateway.wait_for_log("user=canary-user");
    let pid = gateway.pid();
    let proc = |name: &str| {
        let octets = fs::read(format!("/proc/{pid}/{name}")).unwrap();
        String::from_utf8_lossy(&octets).into_owned()
    };
    let everywhere = [
        gateway.logs(),
        metrics(&gateway),
        proc("cmdline"),
        proc("environ"),
    ]
    .join("\n");
    let known = everywhere.replace("canary-user", "");
    for secret in [
        "canary",
        "pw-alice",
        "tok-",
        wrong.as_str(),
        &token("canary-user"),
        &STANDARD.encode("\0alice\0pw-alice"),
    ] {
        let lines: Vec<&str> = known.lines().filter(|line| line.contains(secret)).collect();
        // What the upstream said is for the operator.
        let told = |line: &&str| line.contains("reason=") && line.contains("canary-upstream");
        assert!(lines.iter().all(told), "{secret}: {lines:?}");
    }
}
