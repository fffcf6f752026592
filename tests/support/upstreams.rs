//! What the program makes of an upstream's URL.

use popgate::config::{self, Given, Origin, Overrides, Purpose};
use popgate::upstream::imap::Config;

/// The configuration of the IMAP server with this URL, as of a program that ends
/// soon: no connection of it rests.
pub fn imap_config(url: &str) -> Config {
    let overrides = Overrides {
        upstream: Some(Given {
            value: url.to_owned(),
            origin: Origin::Missing("test"),
        }),
        ..Overrides::default()
    };
    match config::load(overrides, Purpose::Check).unwrap().upstream {
        config::Upstream::Imap(config) => config,
        config::Upstream::Jmap(_) => panic!("not IMAP"),
    }
}
