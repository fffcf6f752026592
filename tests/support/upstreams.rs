//! What the program makes of an upstream's URL.

use std::sync::Arc;

use popgate::config::{self, Given, Origin, Overrides, Purpose};
use popgate::upstream::imap::Config;
use popgate::upstream::{Upstream, Upstreams};

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
        Some(config::Upstream::Imap(config)) => config,
        _ => panic!("not IMAP"),
    }
}

/// A gateway's own upstream, and no other.
pub fn only(upstream: Arc<dyn Upstream>) -> Arc<Upstreams> {
    let none = |_: &str| Err("there is no other".into());
    Arc::new(Upstreams::new(Some(upstream), Box::new(none)))
}
