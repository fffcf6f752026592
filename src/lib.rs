//! popgate: a POP3 server whose mailboxes live on an IMAP or JMAP server.
//!
//! The modules, each of which uses only those named in its row:
//!
//! | module | is | uses |
//! |---|---|---|
//! | `check` | `popgate check`: the way to a mailbox, step by step | `config`, `upstream`, `maildrop`, `sasl` |
//! | `account` | `popgate account`: accounts on the command line | `cli`, `config`, `accounts`, `oauth2`, `server`, `web`, `maildrop`, `sasl`, `secret` |
//! | `state` | `popgate state`: backups of the store | `store` |
//! | `uidl` | `popgate uidl`: carries unique ids over | `account`, `accounts`, `cli`, `config`, `import`, `server`, `upstream`, `store`, `maildrop`, `sasl`, `secret` |
//! | `cli` | the command line | `config`, `secret` |
//! | `config` | settings as written, and what the others need made of them | `web`, `server`, `import`, `upstream`, `accounts`, `oauth2`, `maildrop`, `secret`, `logging` |
//! | `web` | over HTTP: metrics, readiness, autoconfiguration of clients, enrolment | `accounts`, `oauth2`, `secret`, `metrics` |
//! | `server` | listeners, and the driver of each connection | `pop3`, `upstream`, `accounts`, `maildrop`, `sasl`, `metrics`, `secret` |
//! | `import` | the unique ids of an old POP3 server: reading and matching them | `upstream`, `store`, `maildrop`, `sasl`, `secret` |
//! | `upstream` | the seam, and the protocols behind it: `imap`, `jmap` | `store`, `maildrop`, `sasl`, `http_failure`, `metrics` |
//! | `pop3` | the protocol, pure: no I/O, no clock | `maildrop`, `sasl` |
//! | `accounts` | who may log in, and with what upstream credentials | `oauth2`, `store`, `sasl`, `http_failure`, `metrics`, `secret` |
//! | `oauth2` | tokens from a provider's authorisation server | `http_failure`, `secret` |
//! | `sasl` | mechanisms, pure, both directions | `secret` |
//! | `store` | what must last, and what may be lost, in the state folder | `maildrop` |
//! | `maildrop` | messages, unique ids, updates, pure | – |
//! | `secret` | text that is never printed | – |
//! | `metrics` | everything that is counted | – |
//! | `http_failure` | why an HTTP request came to nothing | – |
//! | `logging` | the form of a log line, and what is logged | – |
//!
//! Each module owns its `Config`; only the program itself (`main`, `cli`,
//! `check`, `uidl`, `account`) knows `config`. `tests/layers.rs` holds this table to the code.

pub mod account;
pub mod accounts;
pub mod check;
pub mod cli;
pub mod config;
pub mod http_failure;
pub mod import;
pub mod logging;
pub mod maildrop;
pub mod metrics;
pub mod oauth2;
pub mod pop3;
pub mod sasl;
pub mod secret;
pub mod server;
pub mod state;
pub mod store;
pub mod uidl;
pub mod upstream;
pub mod web;
