//! `popgate check`: shows an operator where the way to a mailbox ends.

use std::process::ExitCode;

use crate::config::Upstream;
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::upstream::{Finding, imap, jmap};

/// Walks from DNS to the listing of `account`'s mailbox (to the capabilities,
/// without one) and prints a line for each step. Exit code 0 where all of it
/// works, else 1.
pub async fn run(upstream: Upstream, account: Option<(String, Secret)>) -> ExitCode {
    let name = match &upstream {
        Upstream::Imap(config) => &config.name,
        Upstream::Jmap(config) => &config.name,
    };
    println!("upstream       {name}");
    let credentials = account.map(|(user, password)| Credentials::Password {
        user,
        authorize_as: None,
        password,
    });
    let well = match &upstream {
        Upstream::Imap(config) => imap::diagnose(config, credentials.as_ref(), print).await,
        Upstream::Jmap(config) => jmap::diagnose(config, credentials.as_ref(), print).await,
    };
    println!(
        "{}",
        if well {
            "All is well."
        } else {
            "It does not work yet."
        }
    );
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(step: &'static str, finding: Finding) {
    match finding {
        Finding::Good(told) => println!("{step:<14} ok: {told}"),
        Finding::Warning(told) => println!("{step:<14} note: {told}"),
        Finding::Bad { seen, advice } => {
            println!("{step:<14} FAILED: {seen}");
            println!("{:<14} → {advice}", "");
        }
    }
}
