//! What the fuzz target `autodiscover` drives.

use super::xml::texts;
use super::{Config, User, outlook};

/// Answers `body` as a request of Outlook's.
///
/// # Panics
///
/// Where the answer is not a document that can be read again.
pub fn autodiscover(body: &[u8]) {
    for user in [User::Address, User::LocalPart] {
        let config = Config {
            host: "pop.example.com".to_owned(),
            domains: ["example.com".to_owned()].into(),
            pop3s_port: Some(995),
            pop3_port: Some(110),
            user,
            display_name: "Example".to_owned(),
            submission: None,
        };
        assert!(texts(outlook::answer(&config, body).as_bytes()).is_some());
    }
}
