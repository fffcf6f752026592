//! The second stage: ready objects, or the first thing that is wrong.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::policies::{self, Protocol};
use super::{ConfigError, Given, Purpose, Settings, address, autoconfig, bounds, trust, url};
use crate::logging;
use crate::server::config::{Config, Listener, Security};
use crate::server::tls::{CertificateError, Certificates};
use crate::upstream::{Economy, Rest, imap, jmap};
use crate::web;

/// What a configuration comes to.
#[derive(Debug)]
pub struct Resolved {
    /// The POP3 front.
    pub server: Config,
    /// The mailboxes behind it.
    pub upstream: Upstream,
    /// What the listeners show, to be watched and reloaded.
    pub certificates: Option<Arc<Certificates>>,
    /// Where metrics and health are served.
    pub http: Option<SocketAddr>,
    /// What mail clients are told there.
    pub autoconfig: Option<web::autoconfig::Config>,
    /// A folder that exists and can be written to.
    pub state: Option<PathBuf>,
    /// How to log.
    pub log: logging::Config,
    /// What is allowed, but not good: to be logged.
    pub warnings: Vec<String>,
}

/// The mailboxes' server, by the protocol it speaks.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// IMAP.
    Imap(imap::Config),
    /// JMAP.
    Jmap(jmap::Config),
}

impl Upstream {
    fn economy(&mut self) -> &mut Economy {
        match self {
            Self::Imap(config) => &mut config.economy,
            Self::Jmap(config) => &mut config.economy,
        }
    }
}

/// Makes ready objects of settings. Nothing is bound; files are only read. The
/// state folder is made where it is missing, last of all.
pub fn resolve(settings: Settings, purpose: Purpose) -> Result<Resolved, ConfigError> {
    let mut warnings = Vec::new();
    let log = log(&settings)?;
    let mut upstream = upstream(&settings, &mut warnings)?;
    if purpose != Purpose::Serve {
        // Nobody would come back for a connection.
        upstream.economy().rest = Rest::OFF;
    }
    let limits = bounds::limits(&settings)?;
    let timeouts = bounds::timeouts(&settings)?;
    let http = http(&settings, &mut warnings)?;
    let addresses = Addresses::of(&settings, http)?;
    if purpose == Purpose::Serve && addresses.pop3.is_empty() && addresses.pop3s.is_empty() {
        return Err(ConfigError::missing(
            "pop3s",
            "no listener is configured: set pop3s (--pop3s, POPGATE_POP3S) for TLS, usually on port 995, or pop3 for STLS, usually on port 110",
        ));
    }
    let certificates = certificates(&settings, &addresses, &mut warnings)?;
    let allow_cleartext = settings
        .allow_cleartext
        .as_ref()
        .is_some_and(|given| given.value);
    warn_of_cleartext(
        &addresses,
        allow_cleartext,
        certificates.is_some(),
        &mut warnings,
    );
    let reached = autoconfig::Reached {
        http: http.is_some() || purpose == Purpose::Check,
        pop3s: addresses.pop3s.first().map(SocketAddr::port),
        pop3: addresses.pop3.first().map(SocketAddr::port),
        stls: certificates.is_some(),
    };
    let autoconfig = autoconfig::resolve(&settings, reached, &mut warnings)?;
    let protocol = match &upstream {
        Upstream::Imap(_) => Protocol::Imap,
        Upstream::Jmap(_) => Protocol::Jmap,
    };
    let server = Config {
        listeners: addresses.listeners(certificates.as_ref()),
        allow_cleartext,
        policies: policies::policies(&settings, protocol, &mut warnings)?,
        replace_nul: settings
            .replace_nul
            .as_ref()
            .is_some_and(|given| given.value),
        session_takeover: settings
            .session_takeover
            .as_ref()
            .is_some_and(|given| given.value),
        limits,
        timeouts,
    };
    let state = state(&settings)?;
    Ok(Resolved {
        server,
        upstream,
        certificates,
        http,
        autoconfig,
        state,
        log,
        warnings,
    })
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

fn upstream(settings: &Settings, warnings: &mut Vec<String>) -> Result<Upstream, ConfigError> {
    let Some(given) = &settings.upstream else {
        return Err(ConfigError::missing(
            "upstream",
            "no upstream is configured: set upstream (--upstream, POPGATE_UPSTREAM) to the URL of the mail server, like imaps://mail.example.com or https://mail.example.com/jmap/session",
        ));
    };
    match url::parse(&given.value).map_err(|problem| given.wrong(problem))? {
        url::Server::Imap(server) => {
            imap_upstream(settings, given, server, warnings).map(Upstream::Imap)
        }
        url::Server::Jmap(server) => jmap_upstream(settings, given, server).map(Upstream::Jmap),
    }
}

fn imap_upstream(
    settings: &Settings,
    given: &Given<String>,
    server: url::ImapServer,
    warnings: &mut Vec<String>,
) -> Result<imap::Config, ConfigError> {
    if let Some(hosts) = settings
        .trusted_hosts
        .as_ref()
        .filter(|it| !it.value.is_empty())
    {
        return Err(hosts.wrong("is for JMAP: an IMAP server has one host"));
    }
    let cleartext = server.security == imap::Security::Cleartext;
    if cleartext && !url::is_loopback(&server.host) {
        warnings.push(format!(
            "PASSWORDS AND MAIL CROSS THE NETWORK UNPROTECTED to {}: use imaps:// or imap+starttls:// unless every hop is trusted",
            server.name
        ));
    }
    Ok(imap::Config {
        name: server.name,
        realm: None,
        host: server.host,
        port: server.port,
        security: server.security,
        tls: trusted(settings, given, cleartext)?,
        send_client_address: settings
            .send_client_address
            .as_ref()
            .is_some_and(|given| given.value),
        timeouts: bounds::upstream_timeouts(settings)?,
        limits: bounds::upstream_limits(settings)?,
        economy: bounds::economy(settings),
    })
}

fn jmap_upstream(
    settings: &Settings,
    given: &Given<String>,
    server: url::JmapServer,
) -> Result<jmap::Config, ConfigError> {
    if let Some(send) = settings.send_client_address.as_ref().filter(|it| it.value) {
        return Err(send.wrong("is for IMAP: JMAP has no way to tell the client's address"));
    }
    let origins = match &settings.trusted_hosts {
        Some(hosts) => jmap::Origins::new(&server.resource, &hosts.value)
            .map_err(|problem| hosts.wrong(problem))?,
        None => {
            jmap::Origins::new(&server.resource, &[]).map_err(|problem| given.wrong(problem))?
        }
    };
    let elsewhere = settings
        .trusted_hosts
        .as_ref()
        .is_some_and(|it| !it.value.is_empty());
    let cleartext = server.resource.scheme() == "http" && !elsewhere;
    let timeouts = bounds::upstream_timeouts(settings)?;
    let limits = bounds::upstream_limits(settings)?;
    Ok(jmap::Config {
        name: server.name,
        realm: None,
        resource: server.resource,
        origins,
        tls: trusted(settings, given, cleartext)?,
        timeouts: jmap::Timeouts {
            connect: timeouts.connect,
            silence: timeouts.silence,
            command: timeouts.command,
        },
        limits: jmap::Limits {
            message: limits.literal,
            answer: jmap::Limits::ANSWER,
            messages: usize::try_from(limits.messages).unwrap_or(usize::MAX),
        },
        economy: bounds::economy(settings),
    })
}

/// Whom the upstream's certificate must come from.
fn trusted(
    settings: &Settings,
    upstream: &Given<String>,
    cleartext: bool,
) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
    match &settings.ca_file {
        Some(ca_file) => trust::only(&ca_file.value).map_err(|problem| ca_file.wrong(problem)),
        None if cleartext => trust::nobody().map_err(|problem| upstream.wrong(problem)),
        None => {
            trust::system("ca_file").map_err(|problem| ConfigError::missing("ca_file", problem))
        }
    }
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
    let Some(given) = &settings.state else {
        return Err(ConfigError::missing(
            "state",
            "no state folder is configured: set state (--state, POPGATE_STATE)",
        ));
    };
    if !make && !given.value.is_dir() {
        let name = given.value.display();
        return Err(given.wrong(format!("there is no folder {name}")));
    }
    let made = state(settings)?;
    Ok((log, made.unwrap_or_else(|| given.value.clone())))
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
