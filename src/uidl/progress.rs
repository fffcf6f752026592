//! Shows on the standard error that a long comparison goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::import::comparison::Stage;

/// Between two updates of a line on a terminal.
const ON_TERMINAL: Duration = Duration::from_millis(250);

/// Between two lines in a log.
const IN_LOG: Duration = Duration::from_secs(10);

pub(super) struct Meter {
    on_terminal: bool,
    state: Mutex<State>,
}

struct State {
    shown: Instant,
    /// The terminal's line is not empty.
    dirty: bool,
}

impl Meter {
    pub fn new() -> Self {
        Self {
            on_terminal: io::stderr().is_terminal(),
            state: Mutex::new(State {
                shown: Instant::now(),
                dirty: false,
            }),
        }
    }

    /// `done` of `all` are done: shown now and then.
    pub fn tell(&self, stage: Stage, done: usize, all: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if self.on_terminal {
            ON_TERMINAL
        } else {
            IN_LOG
        };
        if state.shown.elapsed() < pause {
            return;
        }
        state.shown = Instant::now();
        state.dirty = self.on_terminal;
        // Nobody has to watch.
        let _ = if self.on_terminal {
            write!(io::stderr(), "\r{stage}: {done} of {all}\x1b[K")
        } else {
            writeln!(io::stderr(), "{stage}: {done} of {all}")
        };
    }

    /// It is over.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.dirty) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
