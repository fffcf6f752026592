//! What strangers send in Outlook's name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::web::autoconfig::fuzzing::autodiscover;

fuzz_target!(|body: &[u8]| autodiscover(body));
