//! The POP3 clients that keep a list of the unique ids they have seen, each with
//! a state of its own that outlives the server.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::servers::scripts;

/// Has a program killed that hangs, without a word: told to end, getmail6 would
/// say QUIT, and what it has DELEd would be gone.
pub fn with_timeout() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "30"]);
    command
}

/// Whether [`with_timeout`] came to that.
pub fn has_hung(output: &Output) -> bool {
    output.status.signal() == Some(9) || output.status.code() == Some(128 + 9)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fetchmail,
    Mpop,
    Getmail6,
}

/// A client of alice's on localhost that leaves mail on the server and fetches
/// what it has not seen, in the clear.
pub struct Fetcher {
    kind: Kind,
    dir: TempDir,
    runs: Cell<usize>,
}

impl Fetcher {
    /// One of each, without any state yet.
    pub fn all() -> [Self; 3] {
        [Kind::Fetchmail, Kind::Mpop, Kind::Getmail6].map(|kind| Self {
            kind,
            dir: tempfile::tempdir().unwrap(),
            runs: Cell::new(0),
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs it against the server at `port` of localhost, and returns the
    /// messages that it has delivered (LF line ends), sorted.
    pub fn fetch(&self, port: u16) -> Vec<Vec<u8>> {
        self.runs.set(self.runs.get() + 1);
        let maildir = self.path(&format!("mail-{}", self.runs.get()));
        for folder in ["cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(folder)).unwrap();
        }
        match self.kind {
            Kind::Fetchmail => self.fetchmail(port, &maildir),
            Kind::Mpop => self.mpop(port, &maildir),
            Kind::Getmail6 => self.getmail6(port, &maildir),
        }
        let files = fs::read_dir(maildir.join("new")).unwrap();
        let mut delivered: Vec<Vec<u8>> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        delivered.sort();
        delivered
    }

    fn fetchmail(&self, port: u16, maildir: &Path) {
        let config = format!(
            "set idfile {dir}/fetchids\nset invisible\nset no bouncemail\n\
             poll localhost protocol POP3 uidl service {port}\n\
             user alice password pw-alice is root here sslproto ''\n\
             no rewrite keep mda \"/bin/sh {deliver}\"\n",
            dir = self.dir.path().display(),
            deliver = self.deliver(maildir, "cat").display(),
        );
        let config = self.file("fetchmailrc", &config);
        let pidfile = self.path("fetchmail.pid");
        let output = self.run(
            "fetchmail",
            &["-f".as_ref(), &config, "--pidfile".as_ref(), &pidfile],
        );
        // 1: there was no mail to fetch.
        let status = output.status.code();
        assert!(matches!(status, Some(0 | 1)), "{output:?}");
    }

    fn mpop(&self, port: u16, maildir: &Path) {
        let config = format!(
            "account default\nhost localhost\nport {port}\nuser alice\npassword pw-alice\n\
             auth user\ntls off\nkeep on\nuidls_file {dir}/uidls\nreceived_header off\n\
             delivery maildir {maildir}\n",
            dir = self.dir.path().display(),
            maildir = maildir.display(),
        );
        let config = self.file("mpoprc", &config);
        let output = self.run("mpop", &["--file".as_ref(), &config, "--quiet".as_ref()]);
        assert!(output.status.success(), "{output:?}");
    }

    fn getmail6(&self, port: u16, maildir: &Path) {
        // The name of its state has the port in it, which stays what it is
        // where a server takes another's place.
        let state = self.path(&format!("oldmail-localhost-{port}-alice"));
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("oldmail-") {
                fs::rename(&path, &state).unwrap();
            }
        }
        let config = format!(
            "[retriever]\ntype = SimplePOP3Retriever\nserver = localhost\nport = {port}\n\
             username = alice\npassword = pw-alice\n\
             [destination]\ntype = MDA_external\npath = /bin/sh\n\
             arguments = (\"{deliver}\",)\nallow_root_commands = true\n\
             [options]\ndelete = false\nread_all = false\nreceived = false\n\
             delivered_to = false\nverbose = 0\n",
            // It always puts a Return-Path in front, and misses the end of a child
            // that was faster than itself: this one takes a moment.
            deliver = self
                .deliver(
                    maildir,
                    "{ sed '1{/^Return-Path: <unknown>$/d}' && sleep 0.05; }"
                )
                .display(),
        );
        let config = self.file("getmailrc", &config);
        let arguments = [
            "--getmaildir".as_ref(),
            self.dir.path(),
            "--rcfile".as_ref(),
            &config,
        ];
        // A child of its own that ends too early is never noticed (6.18): now and
        // then it waits for it and does not go on.
        let before = fs::read(&state).ok();
        let output = (0..3)
            .map(|_| self.run("getmail", &arguments))
            .find(|output| {
                let hung = has_hung(output);
                if hung {
                    empty(&maildir.join("new"));
                    match &before {
                        Some(before) => fs::write(&state, before).unwrap(),
                        None => drop(fs::remove_file(&state)),
                    }
                }
                !hung
            });
        let output = output.expect("getmail6 hangs each time");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        assert!(state.exists(), "getmail6 keeps its state elsewhere");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only we can read, as clients demand of their
    /// configuration.
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A script that delivers a message to a Maildir, through a filter.
    fn deliver(&self, maildir: &Path, filter: &str) -> PathBuf {
        let path = maildir.join("new/XXXXXXXX");
        let script = format!("file=$(mktemp {}) && {filter} >\"$file\"\n", path.display());
        self.file("deliver", &script)
    }

    fn run(&self, program: &str, arguments: &[&Path]) -> Output {
        with_timeout()
            .arg(scripts().join("run"))
            .arg(program)
            .args(arguments)
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C")
            .output()
            .unwrap()
    }
}

fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}
