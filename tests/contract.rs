//! The contract of the seam (`popgate::upstream`): what the server in front may
//! rely on, whatever protocol the mailboxes speak. The cases know nothing of
//! IMAP or JMAP; a [`Subject`] starts a mailbox service, plays its other clients, and
//! looks behind popgate's back at what became of the mail.
//!
//! A new upstream implements [`Subject`] and gets a line here; the cases stay.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "contract/fallbacks.rs"]
mod fallbacks;
#[path = "contract/imap.rs"]
mod imap;
#[path = "contract/jmap.rs"]
mod jmap;
#[path = "contract/listing.rs"]
mod listing;
#[path = "contract/login.rs"]
mod login;
#[path = "contract/recorder.rs"]
mod recorder;
#[path = "contract/retrieval.rs"]
mod retrieval;
#[path = "contract/subject.rs"]
mod subject;
#[path = "contract/top.rs"]
mod top;
#[path = "contract/update.rs"]
mod update;

use imap::{Imap, Protection};
use jmap::Jmap;
use subject::{Case, Subject};

/// Runs cases one after the other on one service, each from an empty mailbox.
fn hold(subject: Option<impl Subject>, cases: &[(&str, Case)]) {
    let Some(subject) = subject else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (name, case) in cases {
        // Shown where a case fails.
        eprintln!("case: {name}");
        subject.clear();
        runtime.block_on(case(&subject));
    }
}

macro_rules! contract {
    ($($name:ident: $subject:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn logins() {
                hold($subject, login::CASES);
            }

            #[test]
            fn listings() {
                hold($subject, listing::CASES);
            }

            #[test]
            fn retrievals() {
                hold($subject, retrieval::CASES);
            }

            #[test]
            fn tops() {
                hold($subject, top::CASES);
            }

            #[test]
            fn updates() {
                hold($subject, update::CASES);
            }
        }
    )*};
}

contract! {
    dovecot_imaps: Imap::dovecot(Protection::Tls, &[]);
    dovecot_starttls: Imap::dovecot(Protection::StartTls, &[]);
    dovecot_cleartext: Imap::dovecot(Protection::None, &[]);
    dovecot_without_trash: Imap::dovecot_without_trash();
    dovecot_hiding_move: Imap::dovecot_hiding(&["MOVE"]);
    dovecot_hiding_uidplus: Imap::dovecot_hiding(&["UIDPLUS"]);
    dovecot_hiding_move_and_uidplus: Imap::dovecot_hiding(&["MOVE", "UIDPLUS"]);
    dovecot_hiding_conveniences:
        Imap::dovecot_hiding(&["LITERAL+", "SASL-IR", "ESEARCH", "SPECIAL-USE"]);
    courier: Imap::courier();
    cyrus: Imap::cyrus(Protection::None);
    cyrus_jmap: Jmap::cyrus(Protection::Tls);
}

#[test]
fn cyrus_starttls_logins() {
    hold(Imap::cyrus(Protection::StartTls), login::CASES);
}

/// By HTTP/1.1: under TLS, HTTP/2 is spoken.
#[test]
fn cyrus_jmap_cleartext() {
    let cyrus = Jmap::cyrus(Protection::None);
    let all = [login::CASES, listing::CASES, retrieval::CASES, top::CASES];
    hold(cyrus, &all.concat());
}
