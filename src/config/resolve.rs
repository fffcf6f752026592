//! The second stage: ready objects, or the first thing that is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::url::Url;

use super::login::{Homes, NOTHING};
use super::servers::{self, Servers, Upstream};
use super::{
    ConfigError, Given, Purpose, Settings, accounts, address, autoconfig, bounds, enrolment,
    policies, providers,
};
use crate::logging;
use crate::server::config::{Config, Listener, Security};
use crate::server::tls::{CertificateError, Certificates};
use crate::web;

/// What a configuration comes to.
#[derive(Debug)]
pub struct Resolved {
    /// The POP3 front.
    pub server: Config,
    /// The mailboxes behind it, where they are at one place.
    pub upstream: Option<Upstream>,
    /// Mailboxes elsewhere.
    pub servers: Servers,
    /// Accounts of popgate's own.
    pub accounts: Arc<crate::accounts::Config>,
    /// What the listeners show, to be watched and reloaded.
    pub certificates: Option<Arc<Certificates>>,
    /// Where metrics and health are served.
    pub http: Option<SocketAddr>,
    /// The HTTP listener speaks TLS, with the certificate of the others.
    pub http_tls: bool,
    /// What mail clients are told there.
    pub autoconfig: Option<web::autoconfig::Config>,
    /// The pages where people enrol.
    pub enrolment: Option<web::enrolment::Config>,
    /// Where browsers of people end who sign in at a provider for `popgate account`,
    /// by its name.
    pub redirects: BTreeMap<String, Url>,
    /// Where clients find POP3, as far as is known.
    pub reached: Option<web::enrolment::Reached>,
    /// A folder that exists and can be written to.
    pub state: Option<PathBuf>,
    /// How to log.
    pub log: logging::Config,
    /// What is allowed, but not good: to be logged.
    pub warnings: Vec<String>,
}

/// Makes ready objects of settings. Nothing is bound; files are only read. The
/// state folder is made where it is missing, last of all, but for commands that only
/// look at accounts or change them.
pub fn resolve(settings: Settings, purpose: Purpose) -> Result<Resolved, ConfigError> {
    let mut warnings = Vec::new();
    let mut log = log(&settings)?;
    if let (Purpose::Account { .. }, None) = (purpose, &settings.log_level) {
        // What is done is said on the standard output.
        log.filter = "warn".parse().unwrap_or_default();
    }
    let serves = purpose == Purpose::Serve;
    let upstream = servers::gateway(&settings, serves, &mut warnings)?;
    let mut servers = Servers::new(&settings, serves)?;
    let providers = providers::resolve(&settings, &mut servers, &mut warnings)?;
    let homes = homes(&settings, upstream.as_ref(), providers);
    if upstream.is_none() && !homes.accounts_alone {
        return Err(ConfigError::missing("upstream", NOTHING));
    }
    let limits = bounds::limits(&settings)?;
    let timeouts = bounds::timeouts(&settings)?;
    let http = http(&settings, &mut warnings)?;
    let addresses = Addresses::of(&settings, http)?;
    if serves && addresses.pop3.is_empty() && addresses.pop3s.is_empty() {
        return Err(ConfigError::missing(
            "pop3s",
            "no listener is configured: set pop3s (--pop3s, POPGATE_POP3S) for TLS, usually on port 995, or pop3 for STLS, usually on port 110",
        ));
    }
    let certificates = match purpose {
        Purpose::Account { .. } => None,
        Purpose::Serve | Purpose::Check => certificates(&settings, &addresses, &mut warnings)?,
    };
    let http_tls = http_tls(
        &settings,
        certificates.is_some() || matches!(purpose, Purpose::Account { .. }),
    )?;
    let allow_cleartext = settings
        .allow_cleartext
        .as_ref()
        .is_some_and(|given| given.value);
    let stls = certificates.is_some() || settings.cert.is_some();
    warn_of_cleartext(&addresses, allow_cleartext, stls, &mut warnings);
    let listeners = autoconfig::Reached {
        http: http.is_some() || !serves,
        pop3s: addresses.pop3s.first().map(SocketAddr::port),
        pop3: addresses.pop3.first().map(SocketAddr::port),
        stls,
    };
    let autoconfig = autoconfig::resolve(&settings, listeners, &mut warnings)?;
    let public_url = enrolment::public_url(&settings)?;
    let reached = enrolment::reached(
        &settings,
        public_url.as_ref(),
        autoconfig.as_ref(),
        listeners,
    )?;
    let accounts = accounts::resolve(
        &settings,
        &homes.providers,
        homes.gateway.as_ref(),
        public_url
            .as_ref()
            .and_then(|given| given.value.join("/enrol").ok()),
        &mut warnings,
    )?;
    let enrolment = enrolment::resolve(
        &settings,
        public_url,
        &homes.providers,
        reached.as_ref(),
        listeners,
        purpose,
        &mut warnings,
    )?;
    let redirects = providers::redirects(&settings, enrolment.as_ref())?;
    let server = Config {
        listeners: addresses.listeners(certificates.as_ref()),
        allow_cleartext,
        policies: policies::policies(&settings, &homes, &mut warnings)?,
        http_check: accounts::http_check(&settings, &mut warnings)?,
        replace_nul: settings
            .replace_nul
            .as_ref()
            .is_some_and(|given| given.value),
        session_takeover: settings
            .session_takeover
            .as_ref()
            .is_some_and(|given| given.value),
        notice: settings
            .given("alarm.notice", &settings.alarm.notice)
            .is_some_and(|given| given.value),
        limits,
        timeouts,
    };
    let state = match purpose {
        Purpose::Account { adds: false } => existing_state(&settings)?,
        _ => state(&settings)?,
    };
    Ok(Resolved {
        server,
        upstream,
        servers,
        accounts: Arc::new(accounts),
        certificates,
        http,
        http_tls,
        autoconfig,
        enrolment,
        redirects,
        reached,
        state,
        log,
        warnings,
    })
}

/// Everywhere that mailboxes may be.
fn homes(
    settings: &Settings,
    upstream: Option<&Upstream>,
    providers: providers::Resolved,
) -> Homes {
    let gateway = settings.upstream.as_ref().zip(upstream);
    let elsewhere = settings.domains.iter().any(|domain| {
        let rules = &domain.rules;
        rules.upstream.is_some() || rules.provider.is_some()
    });
    Homes {
        gateway: gateway.map(|(given, upstream)| (given.value.clone(), upstream.protocol())),
        accounts_alone: !providers.is_empty()
            || elsewhere
            || settings.default_provider.is_some()
            || settings.accounts_key.is_some()
            || settings.accounts_key_file.is_some(),
        providers,
        auth_http: settings.auth_http.url.is_some(),
        has_state: settings.state.is_some(),
    }
}

fn log(settings: &Settings) -> Result<logging::Config, ConfigError> {
    let mut config = logging::Config::default();
    if let Some(format) = &settings.log_format {
        config.format = format
            .value
            .parse()
            .map_err(|error| format.wrong(format!("{error}")))?;
    }
    if let Some(level) = &settings.log_level {
        config.filter = level
            .value
            .parse()
            .map_err(|error| level.wrong(format!("{error}")))?;
    }
    Ok(config)
}

fn http(
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(given) = &settings.http else {
        return Ok(None);
    };
    // Metrics are the operator's affair: a port alone stays on this machine.
    let address = address::parse(&given.value, Ipv4Addr::LOCALHOST.into())
        .map_err(|problem| given.wrong(problem))?;
    if !address.ip().to_canonical().is_loopback() {
        warnings.push(format!(
            "metrics and health are served to everybody who reaches http {address}: keep it behind a firewall, or on loopback"
        ));
    }
    Ok(Some(address))
}

/// Whether the HTTP listener speaks TLS.
fn http_tls(settings: &Settings, certificate: bool) -> Result<bool, ConfigError> {
    match &settings.http_tls {
        Some(given) if given.value && settings.http.is_none() => {
            Err(given.wrong("there is no HTTP listener: set http (--http, POPGATE_HTTP)"))
        }
        Some(given) if given.value && !certificate => {
            Err(given.wrong("needs a certificate: set cert and key"))
        }
        given => Ok(given.as_ref().is_some_and(|given| given.value)),
    }
}

/// Where POP3 is spoken.
struct Addresses {
    pop3: Vec<SocketAddr>,
    pop3s: Vec<SocketAddr>,
}

impl Addresses {
    fn of(settings: &Settings, http: Option<SocketAddr>) -> Result<Self, ConfigError> {
        let mut taken: Vec<SocketAddr> = http.into_iter().collect();
        let mut parse = |given: &Given<String>| {
            // On Linux this is every IPv4 address, too.
            let everywhere: IpAddr = Ipv6Addr::UNSPECIFIED.into();
            let address =
                address::parse(&given.value, everywhere).map_err(|problem| given.wrong(problem))?;
            if address.port() != 0 && taken.contains(&address) {
                return Err(given.wrong(format!("{address} is configured twice")));
            }
            taken.push(address);
            Ok(address)
        };
        let pop3 = settings
            .pop3
            .iter()
            .map(&mut parse)
            .collect::<Result<_, _>>()?;
        let pop3s = settings
            .pop3s
            .iter()
            .map(&mut parse)
            .collect::<Result<_, _>>()?;
        Ok(Self { pop3, pop3s })
    }

    /// Without a certificate there is no STLS; a `pop3s` has always one.
    fn listeners(&self, certificates: Option<&Arc<Certificates>>) -> Vec<Listener> {
        let stls = || Security::Stls(certificates.cloned());
        let pop3 = self.pop3.iter().map(|address| Listener {
            address: *address,
            security: stls(),
        });
        let pop3s = self
            .pop3s
            .iter()
            .zip(std::iter::repeat(certificates))
            .filter_map(|(address, certificates)| {
                let security = Security::ImplicitTls(Arc::clone(certificates?));
                Some(Listener {
                    address: *address,
                    security,
                })
            });
        pop3.chain(pop3s).collect()
    }
}

fn certificates(
    settings: &Settings,
    addresses: &Addresses,
    warnings: &mut Vec<String>,
) -> Result<Option<Arc<Certificates>>, ConfigError> {
    let (cert, key) = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => (cert, key),
        (Some(cert), None) => {
            return Err(cert.wrong("a certificate needs its key: set key (--key, POPGATE_KEY)"));
        }
        (None, Some(key)) => {
            return Err(key.wrong("a key needs its certificate: set cert (--cert, POPGATE_CERT)"));
        }
        (None, None) if addresses.pop3s.is_empty() => return Ok(None),
        (None, None) => {
            let made = Certificates::self_signed()
                .map_err(|error| ConfigError::missing("cert", error.to_string()))?;
            warnings.push(
                "SELF-SIGNED CERTIFICATE, made just now because cert and key are not set: for trying out only, clients will warn or refuse"
                    .to_owned(),
            );
            return Ok(Some(Arc::new(made)));
        }
    };
    let loaded = Certificates::load(&cert.value, &key.value).map_err(|error| match &error {
        CertificateError::Certificate(problem) | CertificateError::Internal(problem) => {
            cert.wrong(problem)
        }
        CertificateError::Key(problem) => key.wrong(problem),
        CertificateError::Mismatch { .. } => key.wrong(error.to_string()),
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    if loaded
        .expires_at()
        .is_some_and(|end| end < now.cast_signed())
    {
        warnings.push(format!(
            "CERTIFICATE EXPIRED: {}: clients will refuse it",
            cert.value.display()
        ));
    }
    if fs::metadata(&key.value).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
        warnings.push(format!(
            "every user of this machine can read the key {}: chmod o-r it",
            key.value.display()
        ));
    }
    Ok(Some(Arc::new(loaded)))
}

/// Where nobody can log in, popgate still answers as RFC 2595 §2.3 has it, with
/// a refusal that says why: no reason not to start, for one listener of several.
fn warn_of_cleartext(addresses: &Addresses, allowed: bool, stls: bool, warnings: &mut Vec<String>) {
    for address in &addresses.pop3 {
        if allowed && !address.ip().to_canonical().is_loopback() {
            warnings.push(format!(
                "allow_cleartext: passwords cross the network unprotected to pop3 {address}, unless the client asks for STLS"
            ));
        }
        if !allowed && !stls {
            warnings.push(format!(
                "NOBODY CAN LOG IN on pop3 {address}: it has no certificate for STLS, and login without TLS is not allowed; set cert and key, or on loopback and trusted networks allow_cleartext"
            ));
        }
    }
}

/// How to log, and the state folder, for a command that needs nothing else. With
/// `make`, a folder that is missing is made.
pub(super) fn state_only(
    settings: &Settings,
    make: bool,
) -> Result<(logging::Config, PathBuf), ConfigError> {
    let log = log(settings)?;
    let folder = match make {
        true => state(settings)?,
        false => existing_state(settings)?,
    };
    let folder = folder.ok_or_else(|| {
        ConfigError::missing(
            "state",
            "no state folder is configured: set state (--state, POPGATE_STATE)",
        )
    })?;
    Ok((log, folder))
}

/// The state folder, which is not made.
fn existing_state(settings: &Settings) -> Result<Option<PathBuf>, ConfigError> {
    match &settings.state {
        Some(given) if !given.value.is_dir() => {
            let name = given.value.display();
            Err(given.wrong(format!("there is no folder {name}")))
        }
        _ => state(settings),
    }
}

fn state(settings: &Settings) -> Result<Option<PathBuf>, ConfigError> {
    let Some(given) = &settings.state else {
        return Ok(None);
    };
    let folder = given.value.as_path();
    let name = folder.display();
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(given.wrong(format!("{name} is not a folder")));
        }
        Err(error) => return Err(given.wrong(format!("cannot make the folder {name}: {error}"))),
    }
    writable(folder)
        .map_err(|error| given.wrong(format!("cannot write to the folder {name}: {error}")))?;
    Ok(Some(folder.to_owned()))
}

/// Permissions alone do not tell: file systems may be mounted read-only.
fn writable(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".popgate-{}", std::process::id()));
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)?;
    fs::remove_file(&probe)
}

#[cfg(test)]
mod tests;
