//! The pages where people enrol, from outside: over HTTP as any program may speak
//! it, and in a real browser.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod canaries;
mod connections;
mod forgery;
mod in_a_browser;
mod operator;
mod sign_in;
mod site;
mod visitor;

use site::{Options, Site};
use visitor::{Answer, Visitor};
