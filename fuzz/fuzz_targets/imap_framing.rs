//! What an IMAP server sends comes out the same in pieces as it does whole, and
//! the decoder takes what it is shown. The first octet is the size of the
//! pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::upstream::imap::fuzzing::frame;

fuzz_target!(|input: &[u8]| {
    if let [size, octets @ ..] = input {
        frame(octets, usize::from(*size));
    }
});
