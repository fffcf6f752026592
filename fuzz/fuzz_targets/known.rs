//! What was kept of a folder's listing is refused, or it is a listing and stays
//! one, whatever became of its octets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::upstream::imap::fuzzing::known;

fuzz_target!(|input: &[u8]| known(input));
