//! Mail servers by their URLs: the gateway's own, and those of providers,
//! domains and accounts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::policies::Protocol;
use super::{ConfigError, Given, Settings, bounds, trust, url};
use crate::upstream::{Economy, Rest, imap, jmap, realm};

/// A mailboxes' server, by the protocol it speaks.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// IMAP.
    Imap(imap::Config),
    /// JMAP.
    Jmap(jmap::Config),
}

impl Upstream {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Imap(_) => Protocol::Imap,
            Self::Jmap(_) => Protocol::Jmap,
        }
    }
}

/// How mail servers are spoken to that are not the gateway's own.
#[derive(Clone, Debug)]
pub struct Servers {
    bounds: Bounds,
    /// The realm of the gateway's own.
    gateway: Option<Arc<str>>,
    /// As `ca_file` says.
    ca_file: Option<Tls>,
    /// As the system says, asked when it is first needed.
    system: OnceLock<Result<Tls, String>>,
    /// Of providers, by the URL.
    particular: HashMap<String, Particular>,
}

type Tls = Arc<rustls::ClientConfig>;

/// What is said of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Particular {
    /// Whom it must prove to be; `None`: the system decides.
    pub tls: Option<Tls>,
    /// Where `tls` was read from.
    pub ca_file: Option<PathBuf>,
    /// As `trusted_hosts`.
    pub trusted_hosts: Vec<String>,
}

#[derive(Clone, Debug)]
struct Bounds {
    timeouts: imap::Timeouts,
    limits: imap::Limits,
    economy: Economy,
}

impl Bounds {
    fn of(settings: &Settings, serves: bool) -> Result<Self, ConfigError> {
        let mut economy = bounds::economy(settings);
        if !serves {
            // Nobody would come back for a connection.
            economy.rest = Rest::OFF;
        }
        Ok(Self {
            timeouts: bounds::upstream_timeouts(settings)?,
            limits: bounds::upstream_limits(settings)?,
            economy,
        })
    }

    fn imap(&self, server: url::ImapServer, tls: Tls) -> imap::Config {
        imap::Config {
            name: server.name,
            realm: None,
            host: server.host,
            port: server.port,
            security: server.security,
            tls,
            send_client_address: false,
            timeouts: self.timeouts,
            limits: self.limits,
            economy: self.economy,
        }
    }

    fn jmap(&self, server: url::JmapServer, origins: jmap::Origins, tls: Tls) -> jmap::Config {
        jmap::Config {
            name: server.name,
            realm: None,
            resource: server.resource,
            origins,
            tls,
            timeouts: jmap::Timeouts {
                connect: self.timeouts.connect,
                silence: self.timeouts.silence,
                command: self.timeouts.command,
            },
            limits: jmap::Limits {
                message: self.limits.literal,
                answer: jmap::Limits::ANSWER,
                messages: usize::try_from(self.limits.messages).unwrap_or(usize::MAX),
            },
            economy: self.economy,
        }
    }
}

impl Servers {
    pub(super) fn new(settings: &Settings, serves: bool) -> Result<Self, ConfigError> {
        let ca_file = match &settings.ca_file {
            Some(given) => Some(trust::only(&given.value).map_err(|problem| given.wrong(problem))?),
            None => None,
        };
        Ok(Self {
            bounds: Bounds::of(settings, serves)?,
            gateway: settings.upstream.as_ref().map(|it| realm(&it.value)),
            ca_file,
            system: OnceLock::new(),
            particular: HashMap::new(),
        })
    }

    /// Says something of the server with this URL. `false`: something else was said
    /// before. Several registrations at one provider say the same.
    pub(super) fn particular(&mut self, url: &str, particular: Particular) -> bool {
        let agrees = |before: &Particular| {
            before.ca_file == particular.ca_file && before.trusted_hosts == particular.trusted_hosts
        };
        match self.particular.get(url) {
            Some(before) => agrees(before),
            None => {
                self.particular.insert(url.to_owned(), particular);
                true
            }
        }
    }

    /// What a server is spoken to with, by its URL. A provider's has its own trust,
    /// or the system's; any other has that of `ca_file`, where it is set.
    pub fn at(&self, text: &str) -> Result<Upstream, String> {
        let particular = self.particular.get(text);
        let tls = |cleartext: bool| match particular {
            Some(Particular { tls: Some(tls), .. }) => Ok(Arc::clone(tls)),
            _ if cleartext => trust::nobody(),
            Some(_) => self.system(),
            None => match &self.ca_file {
                Some(tls) => Ok(Arc::clone(tls)),
                None => self.system(),
            },
        };
        // The same server keeps what is known of it, whoever names it.
        let realm = Some(realm(text)).filter(|realm| self.gateway.as_ref() != Some(realm));
        match url::parse(text)? {
            url::Server::Imap(server) => {
                let tls = tls(server.security == imap::Security::Cleartext)?;
                let config = self.bounds.imap(server, tls);
                Ok(Upstream::Imap(imap::Config { realm, ..config }))
            }
            url::Server::Jmap(server) => {
                let hosts = particular.map_or(&[][..], |it| &it.trusted_hosts);
                let origins = jmap::Origins::new(&server.resource, hosts)?;
                let tls = tls(server.resource.scheme() == "http" && hosts.is_empty())?;
                let config = self.bounds.jmap(server, origins, tls);
                Ok(Upstream::Jmap(jmap::Config { realm, ..config }))
            }
        }
    }

    fn system(&self) -> Result<Tls, String> {
        let system = self.system.get_or_init(|| trust::system("ca_file"));
        system.clone()
    }
}

/// Checks the URL of a server that is not the gateway's own, and says which
/// protocol it speaks.
pub(super) fn checked(
    given: &Given<String>,
    warnings: &mut Vec<String>,
) -> Result<Protocol, ConfigError> {
    match url::parse(&given.value).map_err(|problem| given.wrong(problem))? {
        url::Server::Imap(server) => {
            warn_of_cleartext(&server, warnings);
            Ok(Protocol::Imap)
        }
        url::Server::Jmap(_) => Ok(Protocol::Jmap),
    }
}

/// Which protocol the server with this URL speaks.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    Ok(match url::parse(text)? {
        url::Server::Imap(_) => Protocol::Imap,
        url::Server::Jmap(_) => Protocol::Jmap,
    })
}

/// Host and port of the server with this URL.
pub(super) fn place(text: &str) -> Result<String, String> {
    Ok(match url::parse(text)? {
        url::Server::Imap(server) => format!("{}:{}", server.host, server.port),
        url::Server::Jmap(server) => {
            let host = server.resource.host_str().unwrap_or_default();
            let port = server.resource.port_or_known_default().unwrap_or(443);
            format!("{}:{port}", host.trim_matches(['[', ']']))
        }
    })
}

/// The gateway's own server, where it has one.
pub(super) fn gateway(
    settings: &Settings,
    serves: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<Upstream>, ConfigError> {
    let Some(given) = &settings.upstream else {
        for (what, origin) in [
            settings
                .trusted_hosts
                .as_ref()
                .map(|it| ("trusted_hosts", &it.origin)),
            settings
                .send_client_address
                .as_ref()
                .map(|it| ("send_client_address", &it.origin)),
        ]
        .into_iter()
        .flatten()
        {
            warnings.push(format!(
                "{origin}: {what} is of the gateway's upstream, and there is none"
            ));
        }
        return Ok(None);
    };
    let bounds = Bounds::of(settings, serves)?;
    match url::parse(&given.value).map_err(|problem| given.wrong(problem))? {
        url::Server::Imap(server) => {
            imap_upstream(settings, &bounds, given, server, warnings).map(Upstream::Imap)
        }
        url::Server::Jmap(server) => {
            jmap_upstream(settings, &bounds, given, server).map(Upstream::Jmap)
        }
    }
    .map(Some)
}

fn imap_upstream(
    settings: &Settings,
    bounds: &Bounds,
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
    warn_of_cleartext(&server, warnings);
    let cleartext = server.security == imap::Security::Cleartext;
    let mut config = bounds.imap(server, trusted(settings, given, cleartext)?);
    config.send_client_address = settings
        .send_client_address
        .as_ref()
        .is_some_and(|given| given.value);
    Ok(config)
}

fn warn_of_cleartext(server: &url::ImapServer, warnings: &mut Vec<String>) {
    if server.security == imap::Security::Cleartext && !url::is_loopback(&server.host) {
        warnings.push(format!(
            "PASSWORDS AND MAIL CROSS THE NETWORK UNPROTECTED to {}: use imaps:// or imap+starttls:// unless every hop is trusted",
            server.name
        ));
    }
}

fn jmap_upstream(
    settings: &Settings,
    bounds: &Bounds,
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
    let tls = trusted(settings, given, cleartext)?;
    Ok(bounds.jmap(server, origins, tls))
}

/// Whom the upstream's certificate must come from.
fn trusted(
    settings: &Settings,
    upstream: &Given<String>,
    cleartext: bool,
) -> Result<Tls, ConfigError> {
    match &settings.ca_file {
        Some(ca_file) => trust::only(&ca_file.value).map_err(|problem| ca_file.wrong(problem)),
        None if cleartext => trust::nobody().map_err(|problem| upstream.wrong(problem)),
        None => {
            trust::system("ca_file").map_err(|problem| ConfigError::missing("ca_file", problem))
        }
    }
}
