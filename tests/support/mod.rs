//! What the integration tests share: real mail servers, the gateway under
//! test, a POP3 client that checks what it reads, scripted IMAP and JMAP
//! servers, and a proxy that breaks connections at a chosen place.
//!
//! All of it blocks and all waiting is bounded by [`PATIENCE`], so that a test
//! reads from top to bottom and ends.

// Each test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod authorization_server;
pub mod browser;
pub mod certificates;
pub mod contents;
pub mod fault_proxy;
pub mod fetchers;
pub mod gateway;
pub mod imap_client;
pub mod mailboxes;
pub mod messages;
pub mod pop3;
pub mod scripted_imap;
pub mod scripted_jmap;
pub mod servers;
pub mod temp_store;
mod tls;
pub mod upstreams;

use std::time::Duration;

pub use authorization_server::{Asked, AuthorizationServer};
pub use certificates::{Authority, Identity};
pub use contents::Contents;
pub use fault_proxy::{Action, Direction, Fault, FaultProxy, Place};
pub use fetchers::Fetcher;
pub use gateway::Gateway;
pub use imap_client::{ImapClient, Stored};
pub use mailboxes::utf7;
pub use pop3::Pop3;
pub use scripted_imap::{Answer, ScriptedImap};
pub use scripted_jmap::ScriptedJmap;
pub use servers::{Courier, Cyrus, Dovecot, MailServer, courier, cyrus, dovecot};
pub use temp_store::TempStore;
pub use upstreams::{imap_config, only};

/// How long anything here waits for something that must happen. Generous: it
/// only bounds a test that has failed already.
pub const PATIENCE: Duration = Duration::from_secs(60);
