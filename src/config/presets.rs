//! What presets say where nothing is written.

use super::providers::{Way, WrittenGrant};
use crate::oauth2::{Endpoints, Grant, Preset};

/// What a preset says of OAuth 2.0.
pub(super) struct Defaults {
    pub grant: Grant,
    pub endpoints: Endpoints,
    pub scopes: Vec<String>,
    pub parameters: Vec<(String, String)>,
}

/// How popgate usually gets in.
pub(super) fn usual(_preset: &Preset) -> Way {
    Way::OAuth(WrittenGrant::User)
}

/// Other hosts that a JMAP server of the preset has.
pub(super) fn trusted_by(_preset: &Preset) -> &'static [&'static str] {
    &[]
}

/// What a grant needs, with a preset or without.
pub(super) fn defaults(
    grant: WrittenGrant,
    _preset: Option<&Preset>,
    _tenant: Option<&str>,
) -> Defaults {
    Defaults {
        grant: match grant {
            WrittenGrant::User => Grant::User,
            WrittenGrant::ClientCredentials => Grant::ClientCredentials,
            WrittenGrant::ServiceAccount => Grant::ServiceAccount,
        },
        endpoints: Endpoints {
            authorization: None,
            token: None,
            device: None,
            userinfo: None,
            issuer: None,
        },
        scopes: Vec::new(),
        parameters: Vec::new(),
    }
}
