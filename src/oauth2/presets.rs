//! What is known of providers: endpoints, scopes and quirks.

/// A provider that needs no more than a registration.
#[derive(Debug)]
pub struct Preset {
    /// As it is written in the configuration.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Where the mailboxes are.
    pub upstream: &'static str,
}

/// Every preset.
pub const PRESETS: &[Preset] = &[];

/// The preset with this name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
