//! What presets say where nothing is written.

use super::providers::{Way, WrittenGrant};
use crate::oauth2::{Endpoints, Grant, Preset, TenantError};

/// What a preset says of OAuth 2.0.
pub(super) struct Defaults {
    pub grant: Grant,
    pub endpoints: Endpoints,
    pub scopes: Vec<String>,
    pub parameters: Vec<(String, String)>,
}

/// How popgate usually gets in.
pub(super) fn usual(preset: &Preset) -> Way {
    Way::OAuth(match preset.grant {
        Grant::User => WrittenGrant::User,
        Grant::ClientCredentials => WrittenGrant::ClientCredentials,
        Grant::ServiceAccount => WrittenGrant::ServiceAccount,
    })
}

/// Other hosts that a JMAP server of the preset has.
pub(super) fn trusted_by(preset: &Preset) -> &'static [&'static str] {
    preset.trusted_hosts
}

/// What a grant needs, with a preset or without. `elsewhere`: tokens come from
/// another place than the preset's, and so nothing goes to any endpoint of it.
pub(super) fn defaults(
    grant: WrittenGrant,
    preset: Option<&Preset>,
    tenant: Option<&str>,
    elsewhere: bool,
) -> Result<Defaults, TenantError> {
    let grant = match grant {
        WrittenGrant::User => Grant::User,
        WrittenGrant::ClientCredentials => Grant::ClientCredentials,
        WrittenGrant::ServiceAccount => Grant::ServiceAccount,
    };
    let Some(preset) = preset else {
        return Ok(Defaults {
            grant,
            endpoints: Endpoints::default(),
            scopes: Vec::new(),
            parameters: Vec::new(),
        });
    };
    let parameters = preset.parameters.iter();
    Ok(Defaults {
        endpoints: if elsewhere {
            Endpoints::default()
        } else {
            preset.endpoints(tenant)?
        },
        scopes: preset.scopes_for(&grant),
        parameters: parameters
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        grant,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Settings;
    use super::super::providers::resolve;
    use super::super::servers::Servers;
    use super::*;
    use crate::accounts::Entry;
    use crate::oauth2::{ClientProof, PRESETS, Registration, preset};

    /// What becomes of a provider of this preset, with more lines. `SECRET` in them
    /// is a file.
    fn made(preset: &Preset, more: &str) -> Result<Registration, String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            format!("{file:?}")
        };
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut text = format!(
            "[provider.p]\npreset = \"{}\"\nca_file = {}\n",
            preset.name,
            write("ca.pem", &authority.cert.pem()),
        );
        text.push_str(&more.replace("SECRET", &write("secret", "s")));
        let settings = Settings::from_text(&text).map_err(|error| error.to_string())?;
        let mut servers = Servers::new(&settings, true).unwrap();
        let resolved = resolve(&settings, &mut servers, &mut Vec::new());
        let resolved = resolved.map_err(|error| error.to_string())?;
        let (provider, _) = resolved.values().next().unwrap();
        assert_eq!(provider.title, preset.title);
        match &provider.entry {
            Entry::OAuth(client) => Ok(client.registration().clone()),
            other => panic!("{other:?}"),
        }
    }

    const CLIENT: &str = "client_id = \"us\"\n";
    const SECRET: &str = "client_secret_file = SECRET\n";
    const TENANT: &str = "tenant = \"example.org\"\n";

    #[test]
    fn a_preset_and_a_client_are_enough() {
        for preset in PRESETS.iter().filter(|it| it.grant == Grant::User) {
            let more = match preset.name {
                "openid" => {
                    "issuer = \"https://id.example.org\"\nupstream = \"imaps://mail.example.org\"\n"
                }
                _ => "",
            };
            let made = made(preset, &format!("{CLIENT}{more}")).unwrap();
            assert_eq!(made.scopes, preset.scopes);
            assert!(matches!(made.client_proof, ClientProof::None));
            assert_eq!(made.authorization_parameters.len(), preset.parameters.len());
            if preset.name != "openid" {
                assert_eq!(made.endpoints, preset.endpoints(None).unwrap());
            }
        }
    }

    #[test]
    fn without_a_user() {
        let app = preset("microsoft365-app").unwrap();
        let made_of = made(app, &format!("{CLIENT}{SECRET}{TENANT}")).unwrap();
        assert_eq!(made_of.grant, Grant::ClientCredentials);
        assert_eq!(made_of.scopes, ["https://outlook.office365.com/.default"]);
        let token = made_of.endpoints.token.unwrap();
        assert_eq!(token.path(), "/example.org/oauth2/v2.0/token");
        // The same by the other preset.
        let grant = "grant = \"client-credentials\"\n";
        let people = preset("microsoft365").unwrap();
        let made_of = made(people, &format!("{CLIENT}{SECRET}{TENANT}{grant}")).unwrap();
        assert_eq!(made_of.scopes, ["https://outlook.office365.com/.default"]);
    }

    #[test]
    fn a_service_account_s_file_says_it_all() {
        let workspace = preset("google-workspace").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.json");
        let json = r#"{"client_email": "us@e.org", "private_key": "none", "private_key_id": "1"}"#;
        std::fs::write(&file, json).unwrap();
        let error = made(workspace, &format!("certificate_key_file = {file:?}\n")).unwrap_err();
        // All but the key, which is none.
        assert!(
            error.contains("certificate_key_file: the provider's key is no private key in PEM"),
            "{error}"
        );
    }

    #[test]
    fn tenants() {
        let app = preset("microsoft365-app").unwrap();
        let error = made(app, &format!("{CLIENT}{SECRET}")).unwrap_err();
        assert!(error.contains("tenant"), "{error}");
        let error = made(app, &format!("{CLIENT}{SECRET}tenant = \"a/b\"\n")).unwrap_err();
        assert!(error.contains("provider.p.tenant"), "{error}");
        // One that nothing is made of.
        let error = made(preset("gmail").unwrap(), &format!("{CLIENT}{TENANT}")).unwrap_err();
        assert!(error.contains("provider.p.tenant"), "{error}");
    }

    #[test]
    fn nothing_goes_to_a_preset_s_endpoints_where_tokens_come_from_elsewhere() {
        let gmail = preset("gmail").unwrap();
        let elsewhere = "token_url = \"http://127.0.0.1:1/token\"\n\
                         authorization_url = \"http://127.0.0.1:1/authorize\"\n";
        let made_of = made(gmail, &format!("{CLIENT}{elsewhere}")).unwrap();
        assert_eq!(made_of.endpoints.userinfo, None);
        assert_eq!(made_of.endpoints.issuer, None);
        assert_eq!(made_of.scopes, gmail.scopes);
        let issuer = "issuer = \"http://127.0.0.1:1\"\n";
        let made_of = made(gmail, &format!("{CLIENT}{issuer}")).unwrap();
        assert_eq!(made_of.endpoints.token, None);
        // One of them is replaced.
        let userinfo = "userinfo_url = \"https://proxy.example.org/userinfo\"\n";
        let made_of = made(gmail, &format!("{CLIENT}{userinfo}")).unwrap();
        let host = made_of
            .endpoints
            .userinfo
            .unwrap()
            .host_str()
            .map(str::to_owned);
        assert_eq!(host.as_deref(), Some("proxy.example.org"));
        assert!(made_of.endpoints.token.is_some());
    }
}
