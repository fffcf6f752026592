//! An account that somebody has changed in the store cannot be read, or is one; its
//! tokens are what was sealed, or do not open.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::accounts::fuzzing::account_row;

fuzz_target!(|changes: &[u8]| account_row(changes));
