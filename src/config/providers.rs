//! Providers: what is written of one, above what its preset says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ::url::Url;
use serde::Deserialize;

use super::policies::Protocol;
use super::presets::{Defaults, defaults, trusted_by, usual};
use super::secret_file::read_guarded;
use super::servers::{Particular, Servers};
use super::settings::{NamedProvider, ProviderTable, Written};
use super::values::OneOrMore;
use super::{ConfigError, Given, Settings, servers, trust, url};
use crate::accounts::{Entry, Provider};
use crate::oauth2::{self, ClientProof, Endpoints, Grant, PRESETS, Preset, Registration};
use crate::secret::Secret;
use crate::web::enrolment;

/// The longest name of a provider, which is part of web addresses.
const LONGEST_NAME: usize = 64;

/// How popgate gets in, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    OAuth(WrittenGrant),
    Password,
    ApiToken,
    Master,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WrittenGrant {
    User,
    ClientCredentials,
    ServiceAccount,
}

const WAYS: [(&str, Way); 6] = [
    ("user", Way::OAuth(WrittenGrant::User)),
    (
        "client-credentials",
        Way::OAuth(WrittenGrant::ClientCredentials),
    ),
    ("service-account", Way::OAuth(WrittenGrant::ServiceAccount)),
    ("password", Way::Password),
    ("api-token", Way::ApiToken),
    ("master", Way::Master),
];

/// The providers by name, with what their servers speak.
pub(super) type Resolved = BTreeMap<String, (Arc<Provider>, Protocol)>;

/// All providers. What is said of their servers goes to `servers`.
pub(super) fn resolve(
    settings: &Settings,
    servers: &mut Servers,
    warnings: &mut Vec<String>,
) -> Result<Resolved, ConfigError> {
    let mut providers = Resolved::new();
    for written in &settings.providers {
        let one = One {
            settings,
            written,
            table: &written.table,
        };
        let (provider, protocol) = one.provider(servers, warnings)?;
        providers.insert(provider.name.clone(), (Arc::new(provider), protocol));
    }
    Ok(providers)
}

/// One provider, as it is written.
struct One<'a> {
    settings: &'a Settings,
    written: &'a NamedProvider,
    table: &'a ProviderTable,
}

impl One<'_> {
    fn provider(
        &self,
        servers: &mut Servers,
        warnings: &mut Vec<String>,
    ) -> Result<(Provider, Protocol), ConfigError> {
        let name = self.name()?;
        let preset = self.preset()?;
        let tls = self.tls()?;
        let (upstream, protocol) = self.upstream(preset, warnings)?;
        let trusted_hosts = self.trusted_hosts(preset, protocol)?;
        let particular = Particular {
            tls: tls.clone(),
            ca_file: self
                .path("ca_file", &self.table.ca_file)?
                .map(|it| it.value),
            trusted_hosts,
        };
        if !servers.particular(&upstream.value, particular) {
            return Err(upstream.wrong(
                "another provider has the same server, with another ca_file or other trusted_hosts: say the same in both",
            ));
        }
        // Whatever is wrong with these shows here, not at the first login.
        servers
            .at(&upstream.value)
            .map_err(|problem| upstream.wrong(problem))?;
        let entry = match self.way(preset)? {
            Way::Password => {
                self.only_of_others("password", false)?;
                Entry::Password
            }
            Way::ApiToken => {
                self.only_of_others("api-token", false)?;
                Entry::ApiToken
            }
            Way::Master => {
                self.only_of_others("master", true)?;
                self.master(warnings)?
            }
            Way::OAuth(grant) => self.oauth(grant, preset, tls, warnings)?,
        };
        let title = match self.text("title", &self.table.title)? {
            Some(title) => title.value,
            None => preset.map_or_else(|| name.clone(), |it| it.title.to_owned()),
        };
        let provider = Provider {
            name,
            title,
            upstream: upstream.value,
            entry,
        };
        Ok((provider, protocol))
    }

    fn name(&self) -> Result<String, ConfigError> {
        let name = &self.written.name;
        let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        let length = name.value.len();
        if length == 0 || length > LONGEST_NAME || !name.value.bytes().all(fits) {
            return Err(name.wrong(format!(
                "a provider's name has up to {LONGEST_NAME} letters, digits, - and _"
            )));
        }
        Ok(name.value.clone())
    }

    fn preset(&self) -> Result<Option<&'static Preset>, ConfigError> {
        let Some(given) = self.given("preset", &self.table.preset) else {
            return Ok(None);
        };
        match oauth2::preset(&given.value) {
            Some(preset) => Ok(Some(preset)),
            None => {
                let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
                Err(given.wrong(format!("there is no such preset: {}", known.join(", "))))
            }
        }
    }

    /// `None`: as the system says.
    fn tls(&self) -> Result<Option<Arc<rustls::ClientConfig>>, ConfigError> {
        match self.path("ca_file", &self.table.ca_file)? {
            Some(given) => match trust::only(&given.value) {
                Ok(tls) => Ok(Some(tls)),
                Err(problem) => Err(given.wrong(problem)),
            },
            None => Ok(None),
        }
    }

    fn upstream(
        &self,
        preset: Option<&Preset>,
        warnings: &mut Vec<String>,
    ) -> Result<(Given<String>, Protocol), ConfigError> {
        let given = match (self.given("upstream", &self.table.upstream), preset) {
            (Some(given), _) => given,
            (None, Some(preset)) if !preset.upstream.is_empty() => {
                self.written.name.with(preset.upstream.to_owned())
            }
            (None, _) => {
                return Err(self.lacks("upstream", "the URL of its mail server"));
            }
        };
        let protocol = servers::checked(&given, warnings)?;
        Ok((given, protocol))
    }

    fn trusted_hosts(
        &self,
        preset: Option<&Preset>,
        protocol: Protocol,
    ) -> Result<Vec<String>, ConfigError> {
        let written = &self.table.trusted_hosts;
        let hosts = self.list("trusted_hosts", written);
        if let (Some(host), Protocol::Imap) = (hosts.first(), protocol) {
            return Err(host.wrong("is for JMAP: an IMAP server has one host"));
        }
        if protocol == Protocol::Jmap && written.is_none() {
            let preset = preset.into_iter().flat_map(trusted_by);
            return Ok(preset.map(|host| (*host).to_owned()).collect());
        }
        Ok(hosts.into_iter().map(|host| host.value).collect())
    }

    fn way(&self, preset: Option<&Preset>) -> Result<Way, ConfigError> {
        let Some(given) = self.given("grant", &self.table.grant) else {
            return match preset {
                Some(preset) => Ok(usual(preset)),
                None => Err(self.lacks(
                    "grant",
                    "how popgate gets in: \"user\", \"client-credentials\" or \"service-account\" (OAuth 2.0), \"password\", \"api-token\" or \"master\"",
                )),
            };
        };
        let known = WAYS.iter().find(|(name, _)| *name == given.value);
        known.map(|(_, way)| *way).ok_or_else(|| {
            let names: Vec<&str> = WAYS.iter().map(|(name, _)| *name).collect();
            given.wrong(format!("expected one of {}", names.join(", ")))
        })
    }

    fn master(&self, warnings: &mut Vec<String>) -> Result<Entry, ConfigError> {
        let Some(user) = self.text("user", &self.table.user)? else {
            return Err(self.lacks("user", "who may open every mailbox there"));
        };
        let Some(password) = self.secret("password_file", &self.table.password_file, warnings)?
        else {
            return Err(self.lacks("password_file", "the file with that user's password"));
        };
        Ok(Entry::Master {
            user: user.value,
            password: password.value,
        })
    }

    fn oauth(
        &self,
        grant: WrittenGrant,
        preset: Option<&Preset>,
        tls: Option<Arc<rustls::ClientConfig>>,
        warnings: &mut Vec<String>,
    ) -> Result<Entry, ConfigError> {
        for (key, written) in [
            ("user", &self.table.user),
            ("password_file", &self.table.password_file),
        ] {
            if let Some(given) = self.given(key, written) {
                return Err(given.wrong("is for grant = \"master\""));
            }
        }
        let tenant = self.text("tenant", &self.table.tenant)?;
        if let (Some(given), Some(preset)) = (&tenant, preset)
            && !preset.has_tenants()
        {
            return Err(given.wrong("is of no use with this preset"));
        }
        let elsewhere = self.table.issuer.is_some() || self.table.token_url.is_some();
        let defaults = self.defaults(grant, preset, tenant.as_ref(), elsewhere)?;
        let grant = defaults.grant;
        let endpoints = self.endpoints(defaults.endpoints)?;
        self.has_endpoints(&grant, &endpoints)?;
        let (client_id, client_proof) = self.client(&grant, warnings)?;
        let scopes = self.list("scopes", &self.table.scopes);
        let scopes = match &self.table.scopes {
            None => defaults.scopes,
            Some(_) => scopes
                .iter()
                .flat_map(|it| it.value.split_ascii_whitespace())
                .map(str::to_owned)
                .collect(),
        };
        let tls = match tls {
            Some(tls) => tls,
            None if endpoints.all().all(|url| url.scheme() == "http") => {
                trust::nobody().map_err(|problem| self.written.name.wrong(problem))?
            }
            None => trust::system("ca_file").map_err(|problem| self.written.name.wrong(problem))?,
        };
        let registration = Registration {
            grant,
            endpoints,
            client_id,
            client_proof,
            scopes,
            authorization_parameters: self.parameters(defaults.parameters)?,
            tls,
        };
        let key = self.given("certificate_key_file", &self.table.certificate_key_file);
        let client = oauth2::Client::new(registration).map_err(|error| match &key {
            Some(key) => key.wrong(error.to_string()),
            None => self.written.name.wrong(error.to_string()),
        })?;
        Ok(Entry::OAuth(client))
    }

    /// What the preset says, for the tenant.
    fn defaults(
        &self,
        grant: WrittenGrant,
        preset: Option<&Preset>,
        tenant: Option<&Given<String>>,
        elsewhere: bool,
    ) -> Result<Defaults, ConfigError> {
        let name = tenant.map(|given| given.value.as_str());
        defaults(grant, preset, name, elsewhere).map_err(|error| match tenant {
            Some(given) => given.wrong(error.to_string()),
            None => self.lacks("tenant", "the id of the organisation, or a domain of it"),
        })
    }

    fn endpoints(&self, preset: Endpoints) -> Result<Endpoints, ConfigError> {
        let table = self.table;
        let or = |key: &str, written, preset: Option<Url>| match self.given(key, written) {
            Some(given) => {
                let url = url::service(&given.value).map_err(|problem| given.wrong(problem))?;
                Ok(Some(url))
            }
            None => Ok(preset),
        };
        Ok(Endpoints {
            authorization: or(
                "authorization_url",
                &table.authorization_url,
                preset.authorization,
            )?,
            token: or("token_url", &table.token_url, preset.token)?,
            device: or("device_url", &table.device_url, preset.device)?,
            userinfo: or("userinfo_url", &table.userinfo_url, preset.userinfo)?,
            issuer: or("issuer", &table.issuer, preset.issuer)?,
        })
    }

    fn has_endpoints(&self, grant: &Grant, endpoints: &Endpoints) -> Result<(), ConfigError> {
        if endpoints.issuer.is_some() {
            return Ok(());
        }
        if endpoints.token.is_none() {
            return Err(self.lacks(
                "token_url",
                "where tokens come from (or issuer, which tells it)",
            ));
        }
        let signs_in = endpoints.authorization.is_some() || endpoints.device.is_some();
        if *grant == Grant::User && !signs_in {
            return Err(self.lacks(
                "authorization_url",
                "where people sign in (or device_url, or issuer, which tells both)",
            ));
        }
        Ok(())
    }

    /// The client's id, and how it proves to be the one.
    fn client(
        &self,
        grant: &Grant,
        warnings: &mut Vec<String>,
    ) -> Result<(String, ClientProof), ConfigError> {
        let table = self.table;
        let secret = self.secret("client_secret_file", &table.client_secret_file, warnings)?;
        let key = self.secret(
            "certificate_key_file",
            &table.certificate_key_file,
            warnings,
        )?;
        let mut id = self.text("client_id", &table.client_id)?;
        let mut thumbprint = self.text("thumbprint", &table.thumbprint)?;
        let proof = match (secret, key) {
            (Some(secret), Some(_)) => {
                return Err(secret.wrong(
                    "certificate_key_file is set, too: a client proves who it is in one way",
                ));
            }
            (Some(secret), None) => ClientProof::Secret(secret.value),
            (None, Some(key)) => {
                let mut pem = key.value.clone();
                if let Some(file) = ServiceAccountFile::read(&key)? {
                    id = id.or_else(|| Some(key.with(file.client_email)));
                    thumbprint = thumbprint.or_else(|| file.private_key_id.map(|it| key.with(it)));
                    pem = Secret::new(file.private_key);
                }
                let Some(thumbprint) = thumbprint.take() else {
                    return Err(self.lacks(
                        "thumbprint",
                        "the SHA-1 thumbprint of the certificate that belongs to certificate_key_file, or the id of the key",
                    ));
                };
                ClientProof::Certificate {
                    key: pem,
                    thumbprint: thumbprint.value,
                }
            }
            (None, None) => ClientProof::None,
        };
        if let Some(given) =
            thumbprint.filter(|_| !matches!(proof, ClientProof::Certificate { .. }))
        {
            return Err(given.wrong("is of a certificate: set certificate_key_file, too"));
        }
        match (grant, &proof) {
            (Grant::ClientCredentials, ClientProof::None) => {
                return Err(self.lacks(
                    "client_secret_file",
                    "how popgate proves which client it is (or certificate_key_file and thumbprint)",
                ));
            }
            (Grant::ServiceAccount, ClientProof::None | ClientProof::Secret(_)) => {
                return Err(self.lacks(
                    "certificate_key_file",
                    "the key of the service account, the JSON file as the provider gives it",
                ));
            }
            _ => {}
        }
        match id {
            Some(id) => Ok((id.value, proof)),
            None => Err(self.lacks(
                "client_id",
                "the id of the client that was registered at the provider",
            )),
        }
    }

    fn parameters(
        &self,
        preset: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        const OWN: [&str; 9] = [
            "client_id",
            "code_challenge",
            "code_challenge_method",
            "nonce",
            "redirect_uri",
            "response_mode",
            "response_type",
            "scope",
            "state",
        ];
        let key = "authorization_parameters";
        let mut parameters = preset;
        for given in self.list(key, &self.table.authorization_parameters) {
            match given.value.split_once('=') {
                Some((name, _)) if OWN.contains(&name) => {
                    return Err(given.wrong(format!("{name} is popgate's own affair")));
                }
                Some((name, value)) if !name.is_empty() => {
                    parameters.retain(|(other, _)| other != name);
                    parameters.push((name.to_owned(), value.to_owned()));
                }
                _ => return Err(given.wrong("expected name=value, like \"prompt=consent\"")),
            }
        }
        Ok(parameters)
    }

    /// Refuses what belongs to other ways in.
    fn only_of_others(&self, grant: &str, master: bool) -> Result<(), ConfigError> {
        let table = self.table;
        let oauth = [
            ("client_id", &table.client_id),
            ("client_secret_file", &table.client_secret_file),
            ("certificate_key_file", &table.certificate_key_file),
            ("thumbprint", &table.thumbprint),
            ("tenant", &table.tenant),
            ("authorization_url", &table.authorization_url),
            ("token_url", &table.token_url),
            ("device_url", &table.device_url),
            ("userinfo_url", &table.userinfo_url),
            ("issuer", &table.issuer),
            ("redirect_url", &table.redirect_url),
        ];
        let of_master = [
            ("user", &table.user),
            ("password_file", &table.password_file),
        ];
        let of_master = of_master.into_iter().filter(|_| !master);
        for (key, written) in oauth.into_iter().chain(of_master) {
            if let Some(given) = self.given(key, written) {
                return Err(given.wrong(format!("is of no use with grant = \"{grant}\"")));
            }
        }
        let lists = [
            ("scopes", &table.scopes),
            ("authorization_parameters", &table.authorization_parameters),
        ];
        for (key, written) in lists {
            if let Some(given) = self.list(key, written).first() {
                return Err(given.wrong(format!("is of no use with grant = \"{grant}\"")));
            }
        }
        Ok(())
    }

    fn lacks(&self, key: &str, what: &str) -> ConfigError {
        self.written.name.wrong(format!("needs {key}, {what}"))
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.written.prefix)
    }

    fn given(&self, key: &str, written: &Written<String>) -> Option<Given<String>> {
        self.settings.given(&self.key(key), written)
    }

    /// Text for people or other servers.
    fn text(
        &self,
        key: &str,
        written: &Written<String>,
    ) -> Result<Option<Given<String>>, ConfigError> {
        match self.given(key, written) {
            Some(given) if given.value.trim().is_empty() => Err(given.wrong("is empty")),
            Some(given) if given.value.chars().any(char::is_control) => {
                Err(given.wrong("has control characters"))
            }
            other => Ok(other),
        }
    }

    fn list(&self, key: &str, written: &Written<OneOrMore>) -> Vec<Given<String>> {
        self.settings.list(&self.key(key), written)
    }

    fn path(
        &self,
        key: &str,
        written: &Written<String>,
    ) -> Result<Option<Given<PathBuf>>, ConfigError> {
        self.settings.path(&self.key(key), written)
    }

    fn secret(
        &self,
        key: &str,
        written: &Written<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Given<Secret>>, ConfigError> {
        let Some(path) = self.path(key, written)? else {
            return Ok(None);
        };
        let secret = read_guarded(&path, warnings)?;
        Ok(Some(path.with(secret)))
    }
}

/// The file that Google gives for a service account.
#[derive(Deserialize)]
struct ServiceAccountFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

impl ServiceAccountFile {
    /// `None` where it is PEM.
    fn read(key: &Given<Secret>) -> Result<Option<Self>, ConfigError> {
        if !key.value.reveal().trim_start().starts_with('{') {
            return Ok(None);
        }
        match serde_json::from_str(key.value.reveal()) {
            Ok(file) => Ok(Some(file)),
            // What it holds is not repeated: it is a secret.
            Err(_) => Err(key.wrong(
                "is neither a private key in PEM nor the JSON file of a service account, with client_email and private_key",
            )),
        }
    }
}

/// Where the browser of somebody who signs in for a command ends: as it is written,
/// at the page that takes it, or nowhere (RFC 8252 §7.3), which is as good for whoever
/// copies the address.
pub(super) fn redirects(
    settings: &Settings,
    enrolment: Option<&enrolment::Config>,
) -> Result<BTreeMap<String, Url>, ConfigError> {
    let mut redirects = BTreeMap::new();
    for written in &settings.providers {
        let name = &written.name.value;
        let key = format!("{}redirect_url", written.prefix);
        let url = match settings.given(&key, &written.table.redirect_url) {
            Some(given) => url::service(&given.value).map_err(|problem| given.wrong(problem))?,
            None => enrolment
                .filter(|it| it.providers.contains(name))
                .and_then(|it| it.public_url.join(&format!("/enrol/callback/{name}")).ok())
                .or_else(|| Url::parse("http://localhost").ok())
                .ok_or_else(|| written.name.wrong("needs redirect_url"))?,
        };
        redirects.insert(name.clone(), url);
    }
    Ok(redirects)
}
