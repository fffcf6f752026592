//! Parsing of single lines: no panic, and what is read obeys the grammar.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::pop3::Command;

fuzz_target!(|line: &[u8]| {
    match Command::parse(line) {
        Ok(Command::User(name)) => assert_eq!(name, name.trim_matches(' ')),
        Ok(Command::Pass(password)) => assert!(line.ends_with(password.0.as_bytes())),
        Ok(_) => assert!(line.len() >= 3 && !line.contains(&0) && !line.contains(&b'\r')),
        Err(error) => assert!(!error.text().is_empty()),
    }
});
