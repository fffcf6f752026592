//! The second stage of `[autoconfig]`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;

use super::settings::Written;
use super::values::{Count, OneOrMore};
use super::{ConfigError, Given, Origin, Settings};
use crate::web::autoconfig::{Config, Submission, User, domain};

/// The longest name that clients are shown, in characters.
const LONGEST_NAME: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct AutoconfigTable {
    host: Written<String>,
    domains: Written<OneOrMore>,
    pop3s_port: Written<Count>,
    pop3_port: Written<Count>,
    user: Written<String>,
    display_name: Written<String>,
    smtp_host: Written<String>,
    smtp_port: Written<Count>,
}

/// What else of the configuration decides on what is announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// There is an HTTP listener to announce it.
    pub http: bool,
    /// The port of the first listener with TLS from the first octet.
    pub pop3s: Option<u16>,
    /// The port of the first listener without.
    pub pop3: Option<u16>,
    /// There is a certificate for STLS.
    pub stls: bool,
}

/// `None` where nothing is written.
pub(super) fn resolve(
    settings: &Settings,
    reached: Reached,
    warnings: &mut Vec<String>,
) -> Result<Option<Config>, ConfigError> {
    let Some(host) = host(settings)? else {
        return Ok(None);
    };
    let table = &settings.autoconfig;
    let name = host_name(&host)?;
    let domains = domains(settings, &host)?;
    let pop3s = settings.given("autoconfig.pop3s_port", &table.pop3s_port);
    let pop3 = settings.given("autoconfig.pop3_port", &table.pop3_port);
    if let Some(pop3) = pop3.as_ref().filter(|_| !reached.stls) {
        return Err(
            pop3.wrong("is announced with STLS, which needs a certificate: set cert and key")
        );
    }
    let stls = reached.pop3.filter(|_| reached.stls);
    let config = Config {
        display_name: display_name(settings, &name)?,
        host: name,
        domains,
        pop3s_port: port(pop3s, reached.pop3s)?,
        pop3_port: port(pop3, stls)?,
        user: user(settings)?,
        submission: submission(settings)?,
    };
    if !reached.http {
        return Err(host.wrong("autoconfig is served by http: set http (--http, POPGATE_HTTP)"));
    }
    if config.pop3s_port.is_none() && config.pop3_port.is_none() {
        warnings.push(
            "autoconfig has no port to announce, and answers nothing: set autoconfig.pop3s_port, or a port for pop3s"
                .to_owned(),
        );
    }
    if config.submission.is_none() {
        warnings.push(
            "autoconfig.smtp_host is not set: Thunderbird takes no configuration without a server for outgoing mail"
                .to_owned(),
        );
    }
    Ok(Some(config))
}

/// The host, which nothing else makes sense without.
fn host(settings: &Settings) -> Result<Option<Given<String>>, ConfigError> {
    let table = &settings.autoconfig;
    if let Some(host) = settings.given("autoconfig.host", &table.host) {
        return Ok(Some(host));
    }
    let other = origin(settings, "autoconfig.domains", &table.domains)
        .or_else(|| origin(settings, "autoconfig.pop3s_port", &table.pop3s_port))
        .or_else(|| origin(settings, "autoconfig.pop3_port", &table.pop3_port))
        .or_else(|| origin(settings, "autoconfig.user", &table.user))
        .or_else(|| origin(settings, "autoconfig.display_name", &table.display_name))
        .or_else(|| origin(settings, "autoconfig.smtp_host", &table.smtp_host))
        .or_else(|| origin(settings, "autoconfig.smtp_port", &table.smtp_port));
    match other {
        Some(origin) => Err(ConfigError::at(
            origin,
            "needs autoconfig.host, the name that clients connect to",
        )),
        None => Ok(None),
    }
}

fn origin<T: Clone>(settings: &Settings, key: &str, written: &Written<T>) -> Option<Origin> {
    settings.given(key, written).map(|given| given.origin)
}

/// A name, or an address where there is no DNS, for trying out.
fn host_name(given: &Given<String>) -> Result<String, ConfigError> {
    if let Ok(address) = given.value.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    domain(&given.value).ok_or_else(|| {
        given.wrong(format!(
            "{:?} is not a host name: expected one like pop.example.com, without port, as in the certificate",
            shown(&given.value)
        ))
    })
}

fn domains(settings: &Settings, host: &Given<String>) -> Result<BTreeSet<String>, ConfigError> {
    let mut domains = BTreeSet::new();
    for given in settings.list("autoconfig.domains", &settings.autoconfig.domains) {
        let Some(domain) = domain(&given.value) else {
            return Err(given.wrong(format!(
                "{:?} is not a domain: expected what stands after the @ of addresses, like example.com",
                shown(&given.value)
            )));
        };
        if !domains.insert(domain) {
            return Err(given.wrong(format!("{} is named twice", shown(&given.value))));
        }
    }
    if domains.is_empty() {
        let written = &settings.autoconfig.domains;
        let written = origin(settings, "autoconfig.domains", written);
        return Err(ConfigError::at(
            written.unwrap_or(host.origin.clone()),
            "autoconfig.domains names no domain to answer for",
        ));
    }
    Ok(domains)
}

/// A port that is written, or that of a listener; 0 is none that a client
/// could be told.
fn port(given: Option<Given<Count>>, listener: Option<u16>) -> Result<Option<u16>, ConfigError> {
    let Some(given) = given else {
        return Ok(listener.filter(|port| *port != 0));
    };
    match u16::try_from(given.value.0) {
        Ok(port) if port != 0 => Ok(Some(port)),
        _ => Err(given.wrong("is not a port: expected 1 to 65535")),
    }
}

fn user(settings: &Settings) -> Result<User, ConfigError> {
    let Some(given) = settings.given("autoconfig.user", &settings.autoconfig.user) else {
        return Ok(User::default());
    };
    match given.value.as_str() {
        "address" => Ok(User::Address),
        "local-part" => Ok(User::LocalPart),
        _ => Err(given.wrong("expected address or local-part")),
    }
}

fn display_name(settings: &Settings, host: &str) -> Result<String, ConfigError> {
    let written = &settings.autoconfig.display_name;
    let Some(given) = settings.given("autoconfig.display_name", written) else {
        return Ok(host.to_owned());
    };
    let name = given.value.trim();
    let printable = |c: char| !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}');
    if name.is_empty() || name.chars().count() > LONGEST_NAME || !name.chars().all(printable) {
        return Err(given.wrong(format!(
            "expected a name of up to {LONGEST_NAME} characters, without control characters"
        )));
    }
    Ok(name.to_owned())
}

fn submission(settings: &Settings) -> Result<Option<Submission>, ConfigError> {
    let table = &settings.autoconfig;
    let given = settings.given("autoconfig.smtp_port", &table.smtp_port);
    match settings.given("autoconfig.smtp_host", &table.smtp_host) {
        Some(host) => Ok(Some(Submission {
            host: host_name(&host)?,
            port: port(given, None)?.unwrap_or(Submission::IMPLICIT_TLS),
        })),
        None => match given {
            Some(port) => Err(port.wrong("needs autoconfig.smtp_host, the server's name")),
            None => Ok(None),
        },
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
