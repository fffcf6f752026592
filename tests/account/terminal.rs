//! At a terminal, where somebody types.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use url::Url;

use super::provider::Provider;

/// A program whose input, output and errors are one terminal.
struct Terminal {
    master: File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize {
            ws_row: 50,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        let side = ioctl_tiocgptpeer(&master, flags).unwrap();
        command
            .stdin(side.try_clone().unwrap())
            .stdout(side.try_clone().unwrap())
            .stderr(side);
        let child = command.spawn().unwrap();
        // The command holds the other end; without that, the end is never seen.
        drop(command);
        Self {
            master: File::from(master),
            child,
            seen: String::new(),
        }
    }

    /// Reads until `text` stands on the screen.
    fn wait_for(&mut self, text: &str) -> &str {
        while !self.seen.contains(text) {
            assert!(self.read(), "no {text:?} in:\n{}", self.seen);
        }
        &self.seen
    }

    /// Reads until `text` stands there so many times.
    fn wait_for_again(&mut self, text: &str, times: usize) {
        while self.seen.matches(text).count() < times {
            assert!(self.read(), "no {text:?} again in:\n{}", self.seen);
        }
    }

    fn read(&mut self) -> bool {
        let mut octets = [0; 4096];
        // A terminal without its other side is an error.
        let count = self.master.read(&mut octets).unwrap_or(0);
        self.seen
            .push_str(&String::from_utf8_lossy(&octets[..count]));
        count > 0
    }

    /// Types beside what is read: a terminal takes no more keys while nobody reads what
    /// the program shows of them.
    fn keys(&mut self, keys: &str) {
        let mut master = self.master.try_clone().unwrap();
        let keys = keys.to_owned();
        // Where the program has ended meanwhile, what follows shows it.
        std::thread::spawn(move || master.write_all(keys.as_bytes()));
    }

    /// Its exit code, and everything that stood on the screen.
    fn end(mut self) -> (i32, String) {
        while self.read() {}
        (self.child.wait().unwrap().code().unwrap(), self.seen)
    }
}

const ALICE: &str = "alice@example.org";

/// The address that somebody is told to open.
fn address(screen: &str) -> Url {
    let line = screen.lines().find(|line| line.contains("/authorize?"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_device_code_with_a_qr_code() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site(
        "[autoconfig]\nhost = \"pop.example.org\"\ndomains = [\"example.org\"]\npop3s_port = 995\n",
    );
    let mut terminal = Terminal::start(site.command(&["add", ALICE]), 120);
    let screen = terminal.wait_for("Waiting").to_owned();
    assert!(
        screen.contains("▀") && screen.contains("\x1b[30;107m"),
        "{screen}"
    );
    let mut lines = screen.lines().map(str::trim);
    lines.find(|line| *line == "type the code").unwrap();
    let code = lines.find(|line| !line.is_empty()).unwrap().to_owned();
    provider.server.approve(&code, ALICE);
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    for shown in [
        "pop.example.org",
        "995",
        "TLS",
        ALICE,
        "password    ",
        "only now",
    ] {
        assert!(screen.contains(shown), "{shown}: {screen}");
    }
}

#[test]
fn a_narrow_terminal_has_no_room_for_a_qr_code() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let mut terminal = Terminal::start(site.command(&["add", ALICE]), 20);
    let screen = terminal.wait_for("Waiting").to_owned();
    assert!(!screen.contains("\x1b["), "{screen}");
    terminal.child.kill().unwrap();
    terminal.child.wait().unwrap();
}

#[test]
fn a_pasted_address_may_be_longer_than_a_line_of_the_terminal() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let command = site.command(&["add", ALICE, "--method", "paste"]);
    let mut terminal = Terminal::start(command, 80);
    let screen = terminal.wait_for("Paste it here: ");
    let back = provider.server.sign_in(&address(screen), ALICE);
    // First something else: it is asked for again.
    terminal.keys("http://elsewhere.example/?code=x\r");
    terminal.wait_for("not the address where the browser ends");
    terminal.wait_for_again("Paste it here: ", 2);
    // A terminal's own editing ends at 4,096 characters.
    let filler = "x".repeat(6000);
    terminal.keys(&format!("{back}&filler={filler}\r"));
    let (status, screen) = terminal.end();
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("is enrolled"), "{screen}");
}

#[test]
fn who_cancels_changes_nothing() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let command = site.command(&["add", ALICE, "--method", "paste"]);
    let mut terminal = Terminal::start(command, 80);
    terminal.wait_for("Paste it here: ");
    terminal.keys("\x03");
    let (status, _) = terminal.end();
    assert_eq!(status, 1);
    assert!(site.run(&["list", "--json"]).objects().is_empty());
}

#[test]
fn who_removes_is_asked() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    provider.enrol(&site, ALICE, &[]);
    for (keys, status, left) in [("\r", 1, 1), ("n\r", 1, 1), ("y\r", 0, 0)] {
        let mut terminal = Terminal::start(site.command(&["remove", ALICE]), 80);
        let screen = terminal.wait_for("[y/N]");
        assert!(screen.contains("1 device"), "{screen}");
        terminal.keys(keys);
        assert_eq!(terminal.end().0, status, "{keys:?}");
        assert_eq!(site.run(&["list", "--json"]).objects().len(), left);
    }
}
