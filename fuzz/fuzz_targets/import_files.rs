//! The files of `popgate uidl import`. What was read is written as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::import::{accounts, file};

fuzz_target!(|octets: &[u8]| {
    if let Ok(accounts) = accounts::parse(octets) {
        assert!(!accounts.is_empty());
    }
    let Ok(rows) = file::read(&mut &octets[..]) else {
        return;
    };
    let mut written = Vec::new();
    let _ = file::write(&rows, &mut written);
    assert_eq!(file::read(&mut &written[..]).ok(), Some(rows));
});
