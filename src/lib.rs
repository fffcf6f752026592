//! popgate: a POP3 server whose mailboxes live on an IMAP or JMAP server.
//!
//! The modules, each of which uses only those to its right:
//!
//! | module | is | uses |
//! |---|---|---|
//! | `server` | listeners, and the driver of each connection | `pop3`, `upstream`, `metrics` |
//! | `upstream` | the seam, and the protocols behind it: `imap`, `jmap` | `maildrop`, `sasl` |
//! | `pop3` | the protocol, pure: no I/O, no clock | `maildrop`, `sasl` |
//! | `sasl` | mechanisms, pure, both directions | `secret` |
//! | `maildrop` | messages, unique ids, updates, pure | – |
//! | `secret` | text that is never printed | – |
//!
//! `config` assembles what the others need; only `main` and `check` use it.
//! `tests/layers.rs` holds this table to the code.

pub mod check;
pub mod cli;
pub mod config;
pub mod logging;
pub mod maildrop;
pub mod metrics;
pub mod pop3;
pub mod sasl;
pub mod secret;
pub mod server;
pub mod upstream;
pub mod web;
