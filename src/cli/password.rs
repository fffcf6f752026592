//! A password for a command: from a file, the environment, or typed
//! without echo. Never from an argument, which every user of the machine sees.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::config::{ConfigError, Given, LONGEST_SECRET as LONGEST, Origin, read_secret};
use crate::secret::Secret;

const VARIABLE: &str = "POPGATE_PASSWORD";
const OF_OLD_SERVER: &str = "POPGATE_FROM_PASSWORD";

/// Where a password comes from.
#[derive(Debug)]
pub struct PasswordSource {
    file: Option<Given<PathBuf>>,
    variable: &'static str,
}

impl PasswordSource {
    pub(super) fn new(file: Option<Given<PathBuf>>) -> Self {
        let variable = VARIABLE;
        Self { file, variable }
    }

    /// Of a password that need not be there.
    pub(super) fn for_old_server(file: Option<Given<PathBuf>>) -> Self {
        let variable = OF_OLD_SERVER;
        Self { file, variable }
    }

    /// The password from its file or its variable, where one of them is set. A
    /// flag comes before the environment.
    pub fn read_if_set(&self) -> Result<Option<Secret>, ConfigError> {
        let by_flag = |file: &Given<PathBuf>| matches!(file.origin, Origin::Flag(_));
        if let Some(file) = self.file.as_ref().filter(|file| by_flag(file)) {
            return read_secret(file).map(Some);
        }
        if let Some(password) = env::var_os(self.variable).filter(|password| !password.is_empty()) {
            let origin = Origin::Environment(self.variable);
            let wrong = |_| ConfigError::at(origin, "is not UTF-8 text");
            return password
                .into_string()
                .map(Secret::new)
                .map_err(wrong)
                .map(Some);
        }
        self.file.as_ref().map(read_secret).transpose()
    }

    /// The password: from `--password-file`, POPGATE_PASSWORD,
    /// POPGATE_PASSWORD_FILE, or the terminal, in this order. The line end
    /// behind a password in a file is not part of it.
    pub fn read(self, user: &str) -> Result<Secret, ConfigError> {
        if let Some(password) = self.read_if_set()? {
            return Ok(password);
        }
        let missing = |problem| ConfigError::at(Origin::Missing(self.variable), problem);
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let terminal = terminal.map_err(|error| {
            missing(format!(
                "no password for {user}, and no terminal to ask for it ({error}): set POPGATE_PASSWORD or POPGATE_PASSWORD_FILE (--password-file)"
            ))
        })?;
        from_terminal(&terminal, user)
            .map_err(|error| missing(format!("no password was typed: {error}")))
    }
}

fn from_terminal(mut terminal: &File, user: &str) -> io::Result<Secret> {
    write!(terminal, "Password for {}: ", user.escape_debug())?;
    let password = {
        let raw = Raw::set(terminal)?;
        typed(raw.terminal)
    };
    writeln!(terminal)?;
    let password = password?;
    let text = std::str::from_utf8(&password).map_err(io::Error::other)?;
    Ok(Secret::from(text))
}

/// A line, with the keys that correct and cancel it.
fn typed(mut terminal: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    const CANCEL: u8 = 0x03;
    const END: u8 = 0x04;
    const KILL: u8 = 0x15;
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    let mut key = [0];
    loop {
        if terminal.read(&mut key)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(line),
            CANCEL | END => return Err(io::Error::other("cancelled")),
            KILL => line.clear(),
            0x08 | 0x7f => {
                // A whole character, however many octets it has.
                while line.pop().is_some_and(|octet| octet & 0xc0 == 0x80) {}
            }
            _ if line.len() == LONGEST => return Err(io::Error::other("too long")),
            octet => line.push(octet),
        }
    }
}

/// The terminal without echo, line editing and signals, until dropped: Ctrl-C
/// must not leave it that way.
struct Raw<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn set(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
