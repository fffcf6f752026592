//! What an old POP3 server says to `popgate uidl import`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::import::pop3_client::fuzzing::import;

fuzz_target!(|answers: &[u8]| import(answers));
