//! `popgate check`: shows an operator where the way to a mailbox ends.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::Upstream;
use crate::maildrop::Policy;
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::upstream::{Finding, imap, jmap};

/// Walks from DNS to the listing of `account`'s mailbox (to the capabilities,
/// without one) and prints a line for each step. Exit code 0 where all of it
/// works, else 1.
pub async fn run(
    upstream: Upstream,
    policy: Policy,
    account: Option<(String, Secret)>,
) -> ExitCode {
    let name = match &upstream {
        Upstream::Imap(config) => &config.name,
        Upstream::Jmap(config) => &config.name,
    };
    say(format_args!("upstream       {name}"));
    let credentials = account.map(|(user, password)| Credentials::Password {
        user,
        authorize_as: None,
        password,
    });
    let well = match &upstream {
        Upstream::Imap(config) => {
            imap::diagnose(config, &policy, credentials.as_ref(), print).await
        }
        Upstream::Jmap(config) => {
            jmap::diagnose(config, &policy, credentials.as_ref(), print).await
        }
    };
    if well {
        say(format_args!("All is well."));
        ExitCode::SUCCESS
    } else {
        say(format_args!("It does not work yet."));
        ExitCode::FAILURE
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
