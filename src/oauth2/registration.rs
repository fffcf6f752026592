//! A registration made of a preset and of what the configuration says beside it.

use std::sync::Arc;

use serde::Deserialize;
use url::Url;

use super::{ClientProof, Endpoints, Grant, Preset, Registration};
use crate::secret::Secret;

/// What the configuration says of a provider. Each is better than the preset's.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `grant`, where it is one of OAuth's.
    pub grant: Option<Grant>,
    /// `client_id`
    pub client_id: Option<String>,
    /// `client_secret_file`: what is in it.
    pub client_secret: Option<Secret>,
    /// `certificate_key_file`: what is in it, a private key in PEM, or the JSON file that Google makes
    /// for a service account, which names the client and the key, too.
    pub certificate_key: Option<Secret>,
    /// `thumbprint`
    pub thumbprint: Option<String>,
    /// `tenant`
    pub tenant: Option<String>,
    /// `scopes`
    pub scopes: Option<Vec<String>>,
    /// `authorization_url`
    pub authorization_url: Option<Url>,
    /// `token_url`
    pub token_url: Option<Url>,
    /// `device_url`
    pub device_url: Option<Url>,
    /// `userinfo_url`
    pub userinfo_url: Option<Url>,
    /// `issuer`
    pub issuer: Option<Url>,
}

/// A setting is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct WrongSetting {
    /// The key in the provider's table.
    pub key: &'static str,
    /// In words.
    pub problem: String,
}

fn wrong(key: &'static str, problem: &str) -> WrongSetting {
    WrongSetting {
        key,
        problem: problem.to_owned(),
    }
}

/// The file that Google makes for a service account.
#[derive(Deserialize)]
struct GoogleKey {
    client_email: String,
    private_key: String,
    private_key_id: String,
}

impl Registration {
    /// A registration at a provider with this preset, or with none.
    ///
    /// Where the configuration names other endpoints than the preset, as a test does,
    /// nothing goes to the preset's.
    pub fn new(
        preset: Option<&Preset>,
        given: Given,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, WrongSetting> {
        let grant = given
            .grant
            .clone()
            .or_else(|| preset.map(|preset| preset.grant.clone()))
            .unwrap_or(Grant::User);
        let endpoints = endpoints(preset, &given, &grant)?;
        let scopes = given.scopes.clone().unwrap_or_else(|| {
            let scopes = preset.map_or(&[][..], |preset| match grant {
                Grant::User => preset.scopes,
                Grant::ClientCredentials | Grant::ServiceAccount => preset.scopes_without_user,
            });
            scopes.iter().map(|it| (*it).to_owned()).collect()
        });
        let (client_id, client_proof) = client(given, &grant)?;
        let parameters = preset.map_or(&[][..], |preset| preset.parameters);
        Ok(Self {
            grant,
            endpoints,
            client_id,
            client_proof,
            scopes,
            authorization_parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            tls,
        })
    }
}

fn endpoints(
    preset: Option<&Preset>,
    given: &Given,
    grant: &Grant,
) -> Result<Endpoints, WrongSetting> {
    let mut endpoints = Endpoints {
        authorization: given.authorization_url.clone(),
        token: given.token_url.clone(),
        device: given.device_url.clone(),
        userinfo: given.userinfo_url.clone(),
        issuer: given.issuer.clone(),
    };
    let named = [
        (&endpoints.authorization, "authorization_url"),
        (&endpoints.token, "token_url"),
        (&endpoints.device, "device_url"),
        (&endpoints.userinfo, "userinfo_url"),
        (&endpoints.issuer, "issuer"),
    ];
    for (url, key) in named {
        if let Some(url) = url {
            super::http::check(url).map_err(|problem| wrong(key, &problem.to_string()))?;
        }
    }
    // Elsewhere: the preset's other endpoints are another provider's.
    let elsewhere = given.issuer.is_some() || given.token_url.is_some();
    if let Some(preset) = preset.filter(|_| !elsewhere) {
        let url = |template: &str| url(template, preset, given.tenant.as_deref());
        let fill = |known: &mut Option<Url>, template: &str| {
            if known.is_none() {
                *known = url(template)?;
            }
            Ok(())
        };
        fill(&mut endpoints.authorization, preset.authorization)?;
        fill(&mut endpoints.token, preset.token)?;
        fill(&mut endpoints.device, preset.device)?;
        fill(&mut endpoints.userinfo, preset.userinfo)?;
        fill(&mut endpoints.issuer, preset.issuer)?;
    }
    if endpoints.issuer.is_none() && endpoints.are_incomplete(grant) {
        return Err(if endpoints.token.is_none() {
            wrong("issuer", "say where tokens come from: issuer, or token_url")
        } else {
            let problem = "say where people sign in, or name the issuer";
            wrong("authorization_url", problem)
        });
    }
    Ok(endpoints)
}

/// The URL of a preset's template; `None`: it has none.
fn url(template: &str, preset: &Preset, tenant: Option<&str>) -> Result<Option<Url>, WrongSetting> {
    if template.is_empty() {
        return Ok(None);
    }
    let mut text = template.to_owned();
    if template.contains("{tenant}") {
        let tenant = tenant.or(preset.tenant);
        let tenant =
            tenant.ok_or_else(|| wrong("tenant", "the preset needs it: an id or a domain"))?;
        let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if tenant.is_empty() || !tenant.chars().all(is_known) || tenant.starts_with('.') {
            return Err(wrong("tenant", "neither an id nor a domain"));
        }
        text = text.replace("{tenant}", tenant);
    }
    let url = Url::parse(&text).map_err(|_| wrong("tenant", "no URL can be made of it"))?;
    Ok(Some(url))
}

/// Who popgate is there, and how it proves that.
fn client(given: Given, grant: &Grant) -> Result<(String, ClientProof), WrongSetting> {
    let mut client_id = given.client_id;
    let mut thumbprint = given.thumbprint;
    let proof = match (given.certificate_key, given.client_secret) {
        (Some(_), Some(_)) => {
            let problem = "a secret and a key: one of them is enough";
            return Err(wrong("client_secret_file", problem));
        }
        (Some(key), None) => {
            let key = if key.reveal().trim_start().starts_with('{') {
                let google: GoogleKey = serde_json::from_str(key.reveal()).map_err(|_| {
                    wrong(
                        "certificate_key_file",
                        "neither PEM nor a service account's JSON",
                    )
                })?;
                client_id.get_or_insert(google.client_email);
                thumbprint.get_or_insert(google.private_key_id);
                Secret::new(google.private_key)
            } else {
                key
            };
            let thumbprint = match (thumbprint, grant) {
                (Some(thumbprint), _) => thumbprint,
                // Google finds it among the account's keys.
                (None, Grant::ServiceAccount) => String::new(),
                (None, _) => {
                    let problem = "say which certificate the key belongs to";
                    return Err(wrong("thumbprint", problem));
                }
            };
            ClientProof::Certificate { key, thumbprint }
        }
        (None, Some(_)) if *grant == Grant::ServiceAccount => {
            let problem = "a service account has a key, and no secret";
            return Err(wrong("client_secret_file", problem));
        }
        (None, Some(secret)) => ClientProof::Secret(secret),
        (None, None) => match grant {
            Grant::User => ClientProof::None,
            Grant::ClientCredentials => {
                let problem = "without a user, popgate has to prove who it is: a secret, or certificate_key_file";
                return Err(wrong("client_secret_file", problem));
            }
            Grant::ServiceAccount => {
                return Err(wrong(
                    "certificate_key_file",
                    "a service account needs its key",
                ));
            }
        },
    };
    match client_id.filter(|it| !it.is_empty()) {
        Some(client_id) => Ok((client_id, proof)),
        None => Err(wrong(
            "client_id",
            "the provider gives it to those who register",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PRESETS, preset};
    use super::*;

    fn tls() -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(config)
    }

    fn given() -> Given {
        Given {
            client_id: Some("us".to_owned()),
            ..Given::default()
        }
    }

    fn made(name: &str, given: Given) -> Result<Registration, WrongSetting> {
        Registration::new(Some(preset(name).unwrap()), given, tls())
    }

    fn wrong_key(made: Result<Registration, WrongSetting>) -> &'static str {
        made.unwrap_err().key
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_preset_needs_a_client_and_little_else() {
        for preset in PRESETS.iter().filter(|it| it.grant == Grant::User) {
            let mut given = given();
            if preset.name == "openid" {
                given.issuer = Some(url("https://id.example.org"));
            }
            let made = Registration::new(Some(preset), given, tls()).unwrap();
            assert_eq!(made.scopes, preset.scopes);
            assert!(matches!(made.client_proof, ClientProof::None));
            super::super::Client::new(made).unwrap();
            assert_eq!(
                wrong_key(Registration::new(
                    Some(preset),
                    Given {
                        issuer: Some(url("https://id.example.org")),
                        ..Given::default()
                    },
                    tls()
                )),
                "client_id"
            );
        }
    }

    #[test]
    fn tenants() {
        let token = |name, tenant: Option<&str>| {
            let mut given = given();
            given.client_secret = Some("s".into());
            given.tenant = tenant.map(str::to_owned);
            made(name, given).map(|made| made.endpoints.token.unwrap().path().to_owned())
        };
        let path = |tenant| Ok(format!("/{tenant}/oauth2/v2.0/token"));
        assert_eq!(token("microsoft365", None), path("organizations"));
        assert_eq!(token("outlook.com", None), path("consumers"));
        assert_eq!(
            token("microsoft365", Some("example.org")),
            path("example.org")
        );
        assert_eq!(token("microsoft365-app", None).unwrap_err().key, "tenant");
        assert_eq!(token("microsoft365-app", Some("a-1")), path("a-1"));
        for tenant in ["", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "{tenant}"] {
            let error = token("microsoft365", Some(tenant)).unwrap_err();
            assert_eq!(error.key, "tenant", "{tenant}");
        }
    }

    #[test]
    fn without_a_user_other_scopes_are_asked_for() {
        let mut given = given();
        given.grant = Some(Grant::ClientCredentials);
        given.client_secret = Some("s".into());
        let made = made("21vianet", given).unwrap();
        assert_eq!(made.scopes, ["https://partner.outlook.cn/.default"]);
    }

    #[test]
    fn nothing_goes_to_the_preset_s_endpoints_when_others_are_given() {
        let mut given = given();
        given.token_url = Some(url("http://127.0.0.1:1/token"));
        given.authorization_url = Some(url("http://127.0.0.1:1/authorize"));
        let endpoints = made("gmail", given.clone()).unwrap().endpoints;
        assert_eq!((endpoints.userinfo, endpoints.issuer), (None, None));
        given.authorization_url = None;
        assert_eq!(wrong_key(made("gmail", given.clone())), "authorization_url");
        given.issuer = Some(url("http://127.0.0.1:1"));
        let endpoints = made("gmail", given).unwrap().endpoints;
        assert_eq!(endpoints.authorization, None);
    }

    #[test]
    fn what_proves_who_popgate_is() {
        let mut app = given();
        app.tenant = Some("t".to_owned());
        assert_eq!(
            wrong_key(made("microsoft365-app", app.clone())),
            "client_secret_file"
        );
        app.certificate_key = Some("pem".into());
        assert_eq!(
            wrong_key(made("microsoft365-app", app.clone())),
            "thumbprint"
        );
        app.thumbprint = Some("ab".to_owned());
        assert!(made("microsoft365-app", app.clone()).is_ok());
        app.client_secret = Some("s".into());
        assert_eq!(
            wrong_key(made("microsoft365-app", app)),
            "client_secret_file"
        );
        assert_eq!(
            wrong_key(made("google-workspace", given())),
            "certificate_key_file"
        );
        let mut secret = given();
        secret.client_secret = Some("s".into());
        assert_eq!(
            wrong_key(made("google-workspace", secret)),
            "client_secret_file"
        );
    }

    #[test]
    fn google_s_own_file() {
        let file = serde_json::json!({
            "type": "service_account", "client_email": "us@project.example.org",
            "private_key": "-----BEGIN…", "private_key_id": "0011", "token_uri": "https://e.org",
        });
        let given = |key: &str| Given {
            certificate_key: Some(key.into()),
            ..Given::default()
        };
        let made_of = made("google-workspace", given(&file.to_string())).unwrap();
        assert_eq!(made_of.client_id, "us@project.example.org");
        assert_eq!(made_of.grant, Grant::ServiceAccount);
        assert_eq!(made_of.scopes, ["https://mail.google.com/"]);
        let ClientProof::Certificate { key, thumbprint } = made_of.client_proof else {
            panic!("no key");
        };
        assert_eq!((key.reveal(), thumbprint.as_str()), ("-----BEGIN…", "0011"));
        for bad in ["{}", "{\"private_key\": 7}"] {
            let made = made("google-workspace", given(bad));
            assert_eq!(wrong_key(made), "certificate_key_file");
        }
    }

    #[test]
    fn without_a_preset() {
        let made = |given| Registration::new(None, given, tls());
        assert_eq!(wrong_key(made(given())), "issuer");
        let mut issuer = given();
        issuer.issuer = Some(url("https://id.example.org"));
        assert!(made(issuer.clone()).is_ok());
        issuer.issuer = Some(url("http://id.example.org"));
        assert_eq!(wrong_key(made(issuer)), "issuer");
        let mut token = given();
        token.token_url = Some(url("https://user@id.example.org/token"));
        assert_eq!(wrong_key(made(token)), "token_url");
    }
}
