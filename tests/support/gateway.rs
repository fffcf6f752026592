//! The program under test, as its users start it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use super::certificates::{Authority, Identity};
use super::pop3::Pop3;

/// A running `popgate serve`. It ends when this is dropped.
pub struct Gateway {
    child: Child,
    log: Arc<Log>,
    addresses: Vec<(String, SocketAddr)>,
    tls: Option<(Authority, Identity)>,
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Gateway {
    /// Runs `popgate serve` with these arguments and waits until it listens on
    /// each `--pop3`, `--pop3s` and `--http` of them.
    pub fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        let sockets = arguments
            .iter()
            .filter(|argument| {
                ["--pop3", "--pop3s", "--http"]
                    .iter()
                    .any(|flag| argument.as_ref() == *flag)
            })
            .count();
        Self::start_expecting(sockets, arguments)
    }

    /// The same, where the sockets are named by a configuration file.
    pub fn start_expecting<A: AsRef<OsStr>>(sockets: usize, arguments: &[A]) -> Self {
        let mut gateway = Self::spawn(arguments);
        let deadline = Instant::now() + PATIENCE;
        let listening = |lines: &[String]| {
            lines
                .iter()
                .filter(|line| line.contains("listening"))
                .count()
                >= sockets
        };
        assert!(
            gateway
                .log
                .wait(deadline, |state| listening(&state.lines) || state.ended)
                && listening(&gateway.log.lines()),
            "popgate did not come to listen:\n{}",
            gateway.logs()
        );
        gateway.addresses = gateway
            .log
            .lines()
            .iter()
            .filter(|line| line.contains("listening"))
            .map(|line| {
                let address = field(line, "address").and_then(|text| text.parse().ok());
                let protocol = field(line, "protocol").unwrap_or_default().to_owned();
                (
                    protocol,
                    address.unwrap_or_else(|| panic!("no address: {line}")),
                )
            })
            .collect();
        gateway
    }

    /// POP3S, and POP3 with STLS, in front of `upstream`, with a certificate of
    /// its own that [`Gateway::pop3`] and [`Gateway::pop3s`] verify.
    pub fn in_front_of(upstream: &str, more: &[&str]) -> Self {
        let authority = Authority::new();
        let identity = authority.localhost();
        let mut arguments: Vec<OsString> = vec![
            "--pop3".into(),
            "127.0.0.1:0".into(),
            "--pop3s".into(),
            "127.0.0.1:0".into(),
            "--cert".into(),
            identity.cert_file().into(),
            "--key".into(),
            identity.key_file().into(),
            "--upstream".into(),
            upstream.into(),
        ];
        arguments.extend(more.iter().map(OsString::from));
        let mut gateway = Self::start(&arguments);
        gateway.tls = Some((authority, identity));
        gateway
    }

    /// The same, where each session has a connection upstream of its own: none
    /// rests for the next one.
    pub fn with_fresh_connections(upstream: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("popgate.toml");
        fs::write(&config, "[upstream_rest]\nlongest = \"0s\"\n").unwrap();
        let config = ["--config", config.to_str().unwrap()];
        Self::in_front_of(upstream, &[&config, more].concat())
    }

    /// Runs it and waits for nothing.
    pub fn spawn<A: AsRef<OsStr>>(arguments: &[A]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
        // Whoever runs the tests may have a popgate of their own.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POPGATE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().unwrap();
        let writer = Arc::clone(&log);
        std::thread::spawn(move || writer.collect(stderr));
        Self {
            child,
            log,
            addresses: Vec::new(),
            tls: None,
        }
    }

    /// The first address at which `protocol` (pop3, pop3s, http) is spoken.
    pub fn address(&self, protocol: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(name, _)| name == protocol);
        found
            .unwrap_or_else(|| panic!("no {protocol} in {:?}", self.addresses))
            .1
    }

    /// All addresses, with the protocol of each, in the order of the log.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// A client in the clear.
    pub fn pop3(&self) -> Pop3 {
        Pop3::connect(self.address("pop3"))
    }

    /// A client under implicit TLS.
    pub fn pop3s(&self) -> Pop3 {
        Pop3::connect_tls(self.address("pop3s"), &self.ca_file())
    }

    /// A client under TLS by STLS.
    pub fn pop3_stls(&self) -> Pop3 {
        self.pop3().start_tls(&self.ca_file())
    }

    /// The authority of the certificate that [`Gateway::in_front_of`] made.
    pub fn ca_file(&self) -> std::path::PathBuf {
        self.tls
            .as_ref()
            .expect("started without a certificate of the test's")
            .0
            .ca_file()
    }

    /// What it has logged so far.
    pub fn logs(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Waits until a line of the log contains `text`, and returns that line.
    pub fn wait_for_log(&self, text: &str) -> String {
        let found = |lines: &[String]| lines.iter().find(|line| line.contains(text)).cloned();
        self.log.wait(Instant::now() + PATIENCE, |state| {
            state.ended || found(&state.lines).is_some()
        });
        found(&self.log.lines())
            .unwrap_or_else(|| panic!("{text:?} was not logged:\n{}", self.logs()))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory in use now (VmRSS), in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// The most memory ever in use (VmHWM), in KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.memory("VmHWM")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.log.wait(deadline, |state| state.ended);
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "popgate does not end:\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- what popgate logged ---\n{}", self.logs());
        }
    }
}

impl Log {
    fn collect(&self, stderr: impl Read) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            self.state.lock().unwrap().lines.push(text);
            self.changed.notify_all();
        }
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap().lines.clone()
    }

    fn wait(&self, deadline: Instant, done: impl Fn(&LogState) -> bool) -> bool {
        let mut state = self.state.lock().unwrap();
        while !done(&state) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}

/// The value of a field of a line of the log, text (`name=value`) or JSON
/// (`"name":"value"`).
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let text = format!("{name}=");
    let json = format!("\"{name}\":\"");
    let rest = line
        .split_once(&text)
        .or_else(|| line.split_once(&json))
        .map(|(_, rest)| rest.trim_start_matches('"'))?;
    rest.split(['"', ' ', ',']).next()
}
