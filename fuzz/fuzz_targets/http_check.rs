//! What a service says that judges passwords.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::accounts::fuzzing::http_check;

fuzz_target!(|head: &[u8]| http_check(head));
