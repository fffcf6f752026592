//! `popgate check`: shows an operator where the way to a mailbox ends.

use std::fmt::{self, Arguments};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Upstream;
use crate::maildrop::{FolderName, Policy, SeenPolicy};
use crate::sasl::Credentials;
use crate::upstream::{Finding, imap, jmap};

/// Who logs in, and under which policies.
#[derive(Debug)]
pub struct Login {
    /// Whose policies they are.
    pub rules: String,
    /// The policies.
    pub policy: Arc<Policy>,
    /// `None`: nobody logs in.
    pub credentials: Option<Credentials>,
    /// Whether there is a state folder. It is not looked into: a gateway may be
    /// using it.
    pub has_store: bool,
}

/// Walks from DNS to the listing of `login`'s maildrop (to the capabilities,
/// where nobody logs in) and prints a line for each step. Exit code 0 where all
/// of it works, else 1.
pub async fn run(upstream: Upstream, login: Login) -> ExitCode {
    let name = match &upstream {
        Upstream::Imap(config) => &config.name,
        Upstream::Jmap(config) => &config.name,
    };
    say(format_args!("upstream       {name}"));
    say(format_args!("rules          {}", login.rules));
    let (policy, credentials) = (&login.policy, login.credentials.as_ref());
    say(format_args!("policies       {}", Words(policy)));
    let well = match &upstream {
        Upstream::Imap(config) => {
            imap::diagnose(config, policy, login.has_store, credentials, print).await
        }
        Upstream::Jmap(config) => jmap::diagnose(config, policy, credentials, print).await,
    };
    if well {
        say(format_args!("All is well."));
        ExitCode::SUCCESS
    } else {
        say(format_args!("It does not work yet."));
        ExitCode::FAILURE
    }
}

/// Policies in words, as far as they are not the default.
struct Words<'a>(&'a Policy);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Policy {
            folders,
            shared,
            delete,
            seen,
            window,
            expire_after,
            unique_ids: _,
        } = self.0;
        write!(f, "delete: {delete}")?;
        if *seen != SeenPolicy::default() {
            write!(f, "; seen: {seen}")?;
        }
        if folders.len() > 1 || !folders.iter().all(FolderName::is_inbox) {
            let names: Vec<&str> = folders.iter().map(FolderName::as_str).collect();
            write!(f, "; folders: {}", names.join(", "))?;
        }
        if let Some(owner) = shared {
            write!(f, "; shared by {owner}")?;
        }
        if let Some(age) = window.max_age {
            write!(f, "; nothing older than {}", Age(age))?;
        }
        if let Some(most) = window.max_messages {
            write!(f, "; the newest {most}")?;
        }
        if let Some(age) = expire_after {
            write!(f, "; retrieved mail goes to the Trash after {}", Age(*age))?;
        }
        Ok(())
    }
}

/// In the largest unit that shows it whole.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")];
        let whole = units
            .into_iter()
            .find(|(unit, _)| seconds.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or((1, "s"));
        write!(f, "{}{name}", seconds / unit)
    }
}

fn print(step: &'static str, finding: Finding) {
    match finding {
        Finding::Good(told) => say(format_args!("{step:<14} ok: {told}")),
        Finding::Warning(told) => say(format_args!("{step:<14} note: {told}")),
        Finding::Bad { seen, advice } => {
            say(format_args!("{step:<14} FAILED: {seen}"));
            say(format_args!("{:<14} → {advice}", ""));
        }
    }
}

/// A line, for as long as anybody reads; after that the exit code has to do.
fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::Window;

    #[test]
    fn policies_in_words() {
        let words = |policy: Policy| Words(&policy).to_string();
        assert_eq!(
            words(Policy::default()),
            "delete: trash where there is one, else expunge"
        );
        let policy = Policy {
            folders: vec!["INBOX".parse().unwrap(), "Junk".parse().unwrap()],
            shared: Some("team@example.com".into()),
            delete: "hide".parse().unwrap(),
            seen: "on-quit".parse().unwrap(),
            window: Window {
                max_age: Some(Duration::from_secs(90 * 24 * 60 * 60)),
                max_messages: Some(5000),
            },
            expire_after: Some(Duration::from_secs(36 * 60 * 60)),
            unique_ids: None,
        };
        assert_eq!(
            words(policy),
            "delete: hide; seen: on-quit; folders: INBOX, Junk; shared by team@example.com; nothing older than 90d; the newest 5000; retrieved mail goes to the Trash after 36h"
        );
    }
}
