//! A password for a command: from a file, the environment, or typed
//! without echo. Never from an argument, which every user of the machine sees.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::config::{ConfigError, Given, LONGEST_SECRET as LONGEST, Origin, read_secret};
use crate::secret::Secret;

/// Where a password, or another secret, comes from.
#[derive(Debug)]
pub struct PasswordSource {
    file: Option<Given<PathBuf>>,
    variable: &'static str,
    flag: &'static str,
    what: &'static str,
}

impl PasswordSource {
    pub(super) fn new(file: Option<Given<PathBuf>>) -> Self {
        Self {
            file,
            variable: "POPGATE_PASSWORD",
            flag: "--password-file",
            what: "Password",
        }
    }

    /// Of a password that need not be there.
    pub(super) fn for_old_server(file: Option<Given<PathBuf>>) -> Self {
        Self {
            file,
            variable: "POPGATE_FROM_PASSWORD",
            flag: "--from-password-file",
            what: "Password at the old server",
        }
    }

    /// Of a device password that somebody chose.
    pub(super) fn chosen(file: Option<Given<PathBuf>>) -> Self {
        Self {
            file,
            variable: "POPGATE_NEW_PASSWORD",
            flag: "--new-password-file",
            what: "New password",
        }
    }

    /// Of the password of a device that there is.
    pub(super) fn of_device(file: Option<Given<PathBuf>>) -> Self {
        Self {
            file,
            variable: "POPGATE_DEVICE_PASSWORD",
            flag: "--device-password-file",
            what: "Password of a device",
        }
    }

    /// The same, where what is wanted is the password of a device: so it is called.
    pub fn of_a_device(self) -> Self {
        Self {
            what: "Password of a device",
            ..self
        }
    }

    /// Of a token that does not end.
    pub(super) fn api_token(file: Option<Given<PathBuf>>) -> Self {
        Self {
            file,
            variable: "POPGATE_API_TOKEN",
            flag: "--api-token-file",
            what: "API token",
        }
    }

    /// Whether a file or the variable is set: nobody would be asked.
    pub fn is_set(&self) -> bool {
        self.file.is_some() || env::var_os(self.variable).is_some_and(|it| !it.is_empty())
    }

    /// The same, where a flag said so.
    pub fn flag(&self) -> Option<&Origin> {
        let origin = self.file.as_ref().map(|given| &given.origin);
        origin.filter(|origin| matches!(origin, Origin::Flag(_)))
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

    /// The password: by flag, from the variable, from the variable with `_FILE`, or
    /// from the terminal, in this order. The line end behind a password in a file is
    /// not part of it.
    pub fn read(self, user: &str) -> Result<Secret, ConfigError> {
        match self.read_if_set()? {
            Some(password) => Ok(password),
            None => self.ask(user, 1),
        }
    }

    /// The same for a new password, which is typed twice.
    pub fn read_new(self, user: &str) -> Result<Secret, ConfigError> {
        match self.read_if_set()? {
            Some(password) => Ok(password),
            None => self.ask(user, 2),
        }
    }

    fn ask(self, user: &str, times: usize) -> Result<Secret, ConfigError> {
        let missing = |problem| ConfigError::at(Origin::Missing(self.variable), problem);
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let what = self.what.to_lowercase();
        let terminal = terminal.map_err(|error| {
            missing(format!(
                "no {what} for {user}, and no terminal to ask for it ({error}): set {variable} or {variable}_FILE ({flag})",
                variable = self.variable,
                flag = self.flag,
            ))
        })?;
        let prompt = format!("{} for {}: ", self.what, user.escape_debug());
        let again = format!("{} again: ", self.what);
        let mut typed = None;
        for prompt in [&prompt, &again].into_iter().take(times) {
            let password = from_terminal(&terminal, prompt)
                .map_err(|error| missing(format!("no {what} was typed: {error}")))?;
            if typed.as_ref().is_some_and(|first| *first != password) {
                return Err(missing(format!("the {what} was typed in two ways")));
            }
            typed = Some(password);
        }
        typed.ok_or_else(|| missing(format!("no {what} was typed")))
    }
}

/// A line that somebody pastes: longer than the terminal's own editing allows. It is
/// shown as it comes. From anything but a terminal, its next line. `None`: there is
/// none.
pub fn read_pasted(prompt: &str) -> io::Result<Option<Secret>> {
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    if !io::stdin().is_terminal() {
        let mut line = Zeroizing::new(Vec::new());
        let most = LONGEST as u64;
        let mut from = BufReader::with_capacity(1, stdin).take(most);
        from.read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        return Ok((!line.is_empty()).then(|| Secret::from(text.trim())));
    }
    let mut errors = io::stderr();
    let pasted = {
        // First of all: what was typed before it is thrown away.
        let raw = Raw::set(&stdin)?;
        write!(errors, "{prompt}")?;
        errors.flush()?;
        typed(raw.terminal, |key| {
            let shown = (b' '..0x7f).contains(&key);
            // Where nobody sees it, it is still read.
            let _ = errors.write_all(if shown {
                std::slice::from_ref(&key)
            } else {
                b""
            });
            let _ = errors.flush();
        })
    };
    writeln!(errors)?;
    let pasted = pasted?;
    let text = String::from_utf8_lossy(&pasted);
    Ok(Some(Secret::from(text.trim())))
}

fn from_terminal(mut terminal: &File, prompt: &str) -> io::Result<Secret> {
    let password = {
        let raw = Raw::set(terminal)?;
        write!(terminal, "{prompt}")?;
        typed(raw.terminal, |_| {})
    };
    writeln!(terminal)?;
    let password = password?;
    let text = std::str::from_utf8(&password).map_err(io::Error::other)?;
    Ok(Secret::from(text))
}

/// A line, with the keys that correct and cancel it.
fn typed(mut terminal: &File, mut show: impl FnMut(u8)) -> io::Result<Zeroizing<Vec<u8>>> {
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
            octet => {
                show(octet);
                line.push(octet);
            }
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
