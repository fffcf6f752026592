//! Faults between the real program and a real Dovecot: the connection is cut,
//! reset or stalled at a chosen place, the program or its client dies. What the
//! POP3 client was told must be what the mailbox says afterwards, looked at
//! past popgate.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "faults/lifecycle.rs"]
mod lifecycle;
#[path = "faults/outage.rs"]
mod outage;
#[path = "faults/refusals.rs"]
mod refusals;
#[path = "faults/retrieval.rs"]
mod retrieval;
#[path = "faults/rig.rs"]
mod rig;
#[path = "faults/update.rs"]
mod update;
