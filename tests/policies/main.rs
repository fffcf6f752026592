//! The policies, seen from outside: what a POP3 client is shown and told, and
//! exactly what changes in the mailboxes behind it, on Dovecot and Cyrus by IMAP
//! and on Cyrus by JMAP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod accounts;
mod delete;
mod folders;
mod seen;
mod site;
mod store;
mod window;

use site::{Kind, Site};

/// A name and what it stands for.
type Scenario = (&'static str, fn(&Site));

/// Runs scenarios one after the other on one site.
fn run(kind: Kind, scenarios: &[Scenario]) {
    let Some(site) = Site::start(kind) else {
        return;
    };
    for (name, scenario) in scenarios {
        // Shown where a scenario fails.
        eprintln!("scenario: {name}");
        scenario(&site);
    }
}

macro_rules! sites {
    ($($module:ident)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn dovecot() {
                run(Kind::Dovecot, crate::$module::SCENARIOS);
            }

            #[test]
            fn cyrus() {
                run(Kind::Cyrus, crate::$module::SCENARIOS);
            }

            #[test]
            fn cyrus_jmap() {
                run(Kind::CyrusJmap, crate::$module::SCENARIOS);
            }
        }
    )*};
}

mod on {
    use super::*;

    sites! { delete seen folders window }
}

/// Names scenarios.
macro_rules! scenarios {
    ($($scenario:ident),* $(,)?) => {
        pub const SCENARIOS: &[crate::Scenario] =
            &[$((stringify!($scenario), $scenario)),*];
    };
}
pub(crate) use scenarios;
