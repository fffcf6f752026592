//! What the commands say: text for people, or JSON for programs.

use std::fmt::{self, Arguments, Display};
use std::io::{self, Write};
use std::sync::OnceLock;

use serde_json::Value;

/// How to say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output<'a> {
    /// For programs.
    pub json: bool,
    /// Why something was not said.
    pub unsaid: &'a OnceLock<io::Error>,
}

impl Output<'_> {
    /// A line for people.
    pub fn say(self, line: Arguments<'_>) {
        if !self.json {
            self.written(writeln!(io::stdout(), "{line}"));
        }
    }

    /// An object for programs, in one line.
    pub fn object(self, value: &Value) {
        if self.json {
            self.written(writeln!(io::stdout(), "{value}"));
        }
    }

    fn written(self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            // The first says it.
            let _ = self.unsaid.set(error);
        }
    }

    /// Tells programs why it was not done; the standard error has it, too.
    pub fn failed(self, error: &str) {
        self.object(&serde_json::json!({"event": "failed", "error": error}));
    }
}

/// Text from outside, that nothing in a terminal takes for its own.
pub(super) fn shown(text: &str) -> impl Display + '_ {
    Shown(text)
}

struct Shown<'a>(&'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match is_seen(c) {
            true => write!(f, "{c}"),
            false => write!(f, "{}", c.escape_unicode()),
        })
    }
}

/// Not a control character, nor one that turns text around or is not seen.
fn is_seen(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        for (text, expected) in [
            ("alice@example.org", "alice@example.org"),
            ("Zoë's 電話", "Zoë's 電話"),
            ("a\x1b[2Jb\r\n", "a\\u{1b}[2Jb\\u{d}\\u{a}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
        ] {
            assert_eq!(shown(text).to_string(), expected);
        }
    }
}
