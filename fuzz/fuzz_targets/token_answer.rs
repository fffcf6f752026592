//! What a provider says becomes a token that is one, or an error that repeats no
//! secret. The first two octets are the HTTP status.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::oauth2::fuzzing::token_answer;

fuzz_target!(|input: &[u8]| {
    if let [high, low, body @ ..] = input {
        token_answer(u16::from_be_bytes([*high, *low]), body);
    }
});
