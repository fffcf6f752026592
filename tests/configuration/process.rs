//! The real binary: run to its end, or started, watched and stopped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub const LOOPBACK: &str = "127.0.0.1:0";
/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const UPSTREAM: &str = "imap+plain://127.0.0.1:1";

/// An invocation in a folder of its own, with nothing in its environment.
pub struct Invocation {
    folder: TempDir,
    command: Command,
}

pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn popgate(arguments: &[&str]) -> Invocation {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    command
        .args(arguments)
        .env_clear()
        .current_dir(folder.path())
        .stdin(Stdio::null());
    Invocation { folder, command }
}

pub fn serve(arguments: &[&str]) -> Invocation {
    let mut all = vec!["serve"];
    all.extend(arguments);
    popgate(&all)
}

impl Invocation {
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes popgate.toml and names it.
    pub fn config(mut self, text: &str) -> Self {
        self.command.args(["--config", "popgate.toml"]);
        self.file("popgate.toml", text)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn run(mut self) -> Ended {
        let output = self.command.output().unwrap();
        let text = |octets| String::from_utf8(octets).unwrap();
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Ends with 78, after one line that begins so.
    #[track_caller]
    pub fn fails_with(self, says: &str) {
        let Ended {
            code,
            stderr,
            stdout,
        } = self.run();
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
        assert!(
            stderr.starts_with(&format!("popgate: {says}")),
            "{stderr:?} instead of {says:?}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }

    pub fn start(mut self) -> Running {
        let mut child = self.command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        Running {
            child,
            log,
            folder: self.folder,
        }
    }
}

/// A popgate that serves; killed if a test fails before it is stopped.
pub struct Running {
    pub child: Child,
    log: Receiver<String>,
    pub folder: TempDir,
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads the log up to a line with all of `words`.
    #[track_caller]
    pub fn logs(&self, words: &[&str]) -> String {
        let mut seen = String::new();
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            seen += &format!("{line}\n");
        }
        panic!("no {words:?} in:\n{seen}");
    }

    /// The address of its HTTP socket.
    pub fn http(&self) -> SocketAddr {
        let line = self.logs(&["listening", "protocol=http"]);
        let (_, address) = line.split_once(" address=").unwrap();
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        self.logs(&["stopped"]);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn get(address: SocketAddr, path: &str) -> String {
    exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
    )
}

/// Sends a whole request; the server closes after its answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Asks until the answer holds `words`.
#[track_caller]
pub fn get_until(address: SocketAddr, path: &str, words: &str) {
    let mut answer = String::new();
    for _ in 0..600 {
        answer = get(address, path);
        if answer.contains(words) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no {words:?} in:\n{answer}");
}

/// A certificate that ends with `year`, and its key.
pub fn pair(year: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}
