//! The second stage of `[enrolment]`, and where clients find POP3.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ::url::Url;

use super::autoconfig::Reached as Listeners;
use super::secret_file::read_guarded;
use super::{ConfigError, Given, Origin, Purpose, Settings, providers, url};
use crate::secret::Secret;
use crate::web::autoconfig::{self, domain};
use crate::web::enrolment::{Config, Reached};

/// The longest name of the service, in characters.
const LONGEST_TITLE: usize = 100;

/// A password that somebody could try out from outside.
const SHORT: usize = 12;

/// Where browsers reach the pages.
pub(super) fn public_url(settings: &Settings) -> Result<Option<Given<Url>>, ConfigError> {
    let table = &settings.enrolment;
    let Some(given) = settings.given("enrolment.public_url", &table.public_url) else {
        return match others(settings) {
            Some(origin) => Err(ConfigError::at(
                origin,
                "needs enrolment.public_url, the address by which browsers reach the pages, like https://mail.example.com",
            )),
            None => Ok(None),
        };
    };
    let url = url::service(&given.value).map_err(|problem| given.wrong(problem))?;
    if url.query().is_some() || url.path() != "/" {
        return Err(given.wrong("has a path: the pages are at the root of a host of their own"));
    }
    Ok(Some(given.with(url)))
}

/// Where anything else of the table was set.
fn others(settings: &Settings) -> Option<Origin> {
    let table = &settings.enrolment;
    let text = |key, written| settings.given(key, written).map(|given| given.origin);
    let list = |key, written| {
        settings
            .list(key, written)
            .into_iter()
            .next()
            .map(|it| it.origin)
    };
    text("enrolment.title", &table.title)
        .or_else(|| text("enrolment.host", &table.host))
        .or_else(|| {
            let file = settings.operator_password_file.as_ref();
            file.map(|given| given.origin.clone())
        })
        .or_else(|| list("enrolment.domains", &table.domains))
        .or_else(|| list("enrolment.providers", &table.providers))
}

/// The pages, where there are any.
pub(super) fn resolve(
    settings: &Settings,
    public_url: Option<Given<Url>>,
    providers: &providers::Resolved,
    reached: Option<&Reached>,
    listeners: Listeners,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<Option<Config>, ConfigError> {
    let Some(public_url) = public_url else {
        return Ok(None);
    };
    if !listeners.http {
        return Err(
            public_url.wrong("the pages are served by http: set http (--http, POPGATE_HTTP)")
        );
    }
    let Some(reached) = reached else {
        return Err(public_url.wrong("has no host"));
    };
    if reached.pop3s_port.is_none() && reached.pop3_port.is_none() {
        warnings.push(
            "enrolment has no port to tell people of: set autoconfig.pop3s_port, or a port for pop3s"
                .to_owned(),
        );
    }
    Ok(Some(Config {
        public_url: public_url.value.clone(),
        domains: domains(settings)?,
        providers: offered(settings, &public_url, providers)?,
        operator_password: match purpose {
            Purpose::Account { .. } => None,
            Purpose::Serve | Purpose::Check => operator_password(settings, warnings)?,
        },
        pop3: reached.clone(),
        title: title(settings, &reached.host)?,
    }))
}

fn domains(settings: &Settings) -> Result<BTreeSet<String>, ConfigError> {
    let mut domains = BTreeSet::new();
    for given in settings.list("enrolment.domains", &settings.enrolment.domains) {
        let Some(domain) = domain(&given.value) else {
            return Err(given.wrong(
                "is not a domain: expected what stands after the @ of addresses, like example.com",
            ));
        };
        if !domains.insert(domain) {
            return Err(given.wrong("is named twice"));
        }
    }
    Ok(domains)
}

/// The providers to choose from: those that are named, or all at which somebody
/// can enrol.
fn offered(
    settings: &Settings,
    public_url: &Given<Url>,
    providers: &providers::Resolved,
) -> Result<Vec<String>, ConfigError> {
    let named = settings.list("enrolment.providers", &settings.enrolment.providers);
    let mut offered: Vec<String> = Vec::new();
    for given in &named {
        let Some((provider, _)) = providers.get(&given.value) else {
            return Err(given.wrong("there is no such [provider.NAME]"));
        };
        if provider.entry.needs_nobody() {
            return Err(given.wrong(
                "popgate opens every mailbox there by itself: whoever enrolled could take any; make accounts by `popgate account add`",
            ));
        }
        if offered.contains(&given.value) {
            return Err(given.wrong("is named twice"));
        }
        offered.push(given.value.clone());
    }
    if named.is_empty() {
        let in_order = settings.providers.iter().map(|written| &written.name.value);
        let fit = |name: &&String| {
            let found = providers.get(*name);
            found.is_some_and(|(provider, _)| !provider.entry.needs_nobody())
        };
        offered = in_order.filter(fit).cloned().collect();
    }
    if offered.is_empty() {
        return Err(public_url.wrong(
            "nobody could enrol: a [provider.NAME] with grant = \"user\", \"password\" or \"api-token\" is needed",
        ));
    }
    Ok(offered)
}

fn operator_password(
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Option<Secret>, ConfigError> {
    let file = settings.operator_password_file.as_ref();
    let by_flag = file.is_some_and(|given| matches!(given.origin, Origin::Flag(_)));
    let given = match (&settings.operator_password, file) {
        (Some(password), _) if !by_flag => password.clone(),
        (_, Some(file)) => file.with(read_guarded(file, warnings)?),
        (_, None) => return Ok(None),
    };
    if given.value.reveal().chars().count() < SHORT {
        warnings.push(format!(
            "{}: the operator's password is short: take {SHORT} characters or more",
            given.origin
        ));
    }
    Ok(Some(given.value))
}

fn title(settings: &Settings, host: &str) -> Result<String, ConfigError> {
    let Some(given) = settings.given("enrolment.title", &settings.enrolment.title) else {
        return Ok(host.to_owned());
    };
    let title = given.value.trim();
    let length = title.chars().count();
    if length == 0 || length > LONGEST_TITLE || title.chars().any(char::is_control) {
        return Err(given.wrong(format!(
            "expected up to {LONGEST_TITLE} characters, without control characters"
        )));
    }
    Ok(title.to_owned())
}

/// Where people are told that POP3 is: by `[enrolment]`, by `[autoconfig]`, or at
/// the host of the pages.
pub(super) fn reached(
    settings: &Settings,
    public_url: Option<&Given<Url>>,
    autoconfig: Option<&autoconfig::Config>,
    listeners: Listeners,
) -> Result<Option<Reached>, ConfigError> {
    let host = match settings.given("enrolment.host", &settings.enrolment.host) {
        Some(given) => Some(host_name(&given)?),
        None => match (autoconfig, public_url) {
            (Some(config), _) => Some(config.host.clone()),
            (None, Some(url)) => url.value.host_str().map(bare),
            (None, None) => None,
        },
    };
    let (pop3s_port, pop3_port) = match autoconfig {
        Some(config) => (config.pop3s_port, config.pop3_port),
        None => {
            let known = |port: &u16| *port != 0;
            (
                listeners.pop3s.filter(known),
                listeners.pop3.filter(known).filter(|_| listeners.stls),
            )
        }
    };
    Ok(host.map(|host| Reached {
        host,
        pop3s_port,
        pop3_port,
    }))
}

fn bare(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

fn host_name(given: &Given<String>) -> Result<String, ConfigError> {
    if let Ok(address) = given.value.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    domain(&given.value).ok_or_else(|| {
        given.wrong("is not a host name: expected one like pop.example.com, without port, as in the certificate")
    })
}
