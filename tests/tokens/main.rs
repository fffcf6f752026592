//! Accounts with tokens, end to end: the program, an authorisation server, and real
//! mail servers that judge its tokens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod canaries;
mod cyrus;
mod death;
mod killed;
mod outages;
mod page;
mod parallel;
mod site;
mod unusable;

/// Whose mailbox it is.
const ALICE: &str = "alice@example.org";
