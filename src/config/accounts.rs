//! The second stage of `[accounts]`, `[alarm]` and what seals secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::policies::Protocol;
use super::secret_file::read_guarded;
use super::{ConfigError, Given, Origin, Settings, providers, servers, trust, url};
use crate::accounts::{Alarm, Config, Entry, HttpCheckConfig, KeyRing};
use crate::oauth2::Grant;
use crate::secret::Secret;

/// How long the service that judges passwords may take.
const JUDGED: Duration = Duration::from_secs(10);

/// How long a webhook or a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is configured of accounts. `sign_in` is where people sign in again.
pub(super) fn resolve(
    settings: &Settings,
    providers: &providers::Resolved,
    gateway: Option<&(String, Protocol)>,
    sign_in: Option<::url::Url>,
    warnings: &mut Vec<String>,
) -> Result<Config, ConfigError> {
    let table = &settings.accounts_table;
    let keys = keys(settings, warnings)?;
    let locked = settings.given("accounts.locked_by_password", &table.locked_by_password);
    for written in &settings.providers {
        let name = &written.name;
        let Some((provider, _)) = providers.get(&name.value) else {
            continue;
        };
        let keeps = match &provider.entry {
            Entry::OAuth(client) => client.registration().grant == Grant::User,
            Entry::ApiToken => true,
            // It may be the client's own, passed on; what is typed into a page is kept.
            Entry::Password => sign_in.is_some(),
            Entry::Master { .. } => false,
        };
        if settings.state.is_none() {
            return Err(name.wrong(
                "accounts are kept in the state folder: set state (--state, POPGATE_STATE)",
            ));
        }
        if keeps && keys.is_none() {
            return Err(name.wrong(NO_KEY));
        }
    }
    if let (Some(locked), None) = (locked.as_ref().filter(|it| it.value), &keys) {
        return Err(locked.wrong(NO_KEY));
    }
    Ok(Config {
        keys,
        locked_by_password: locked.is_some_and(|given| given.value),
        providers: providers
            .iter()
            .map(|(name, (provider, _))| (name.clone(), std::sync::Arc::clone(provider)))
            .collect(),
        gateway_upstream: gateway.map(|(url, _)| url.clone()),
        alarm: alarm(settings, sign_in)?,
    })
}

const NO_KEY: &str = "what accounts hold is sealed: `popgate account key` makes a key; name its file in accounts.key_file (--accounts-key-file, POPGATE_ACCOUNTS_KEY_FILE), and keep it apart from the state folder and its backups";

/// The keys: a flag, then the environment, then the file, then what systemd gives.
fn keys(settings: &Settings, warnings: &mut Vec<String>) -> Result<Option<KeyRing>, ConfigError> {
    let by_flag = |given: &Given<_>| matches!(given.origin, Origin::Flag(_));
    let file = settings.accounts_key_file.as_ref();
    let given: Option<Given<Secret>> = match (&settings.accounts_key, file) {
        (Some(key), file) if !file.is_some_and(by_flag) => Some(key.clone()),
        (_, Some(file)) => Some(file.with(read_guarded(file, warnings)?)),
        (_, None) => None,
    };
    let parsed = given.map(|given| {
        KeyRing::parse(&given.value)
            .map_err(|error| given.wrong(format!("{error}; `popgate account key` makes a key")))
    });
    parsed.transpose()
}

fn alarm(settings: &Settings, sign_in: Option<::url::Url>) -> Result<Alarm, ConfigError> {
    let table = &settings.alarm;
    let ca_file = settings.path("alarm.ca_file", &table.ca_file)?;
    let mut alarm = Alarm {
        patience: PATIENCE,
        sign_in,
        ..Alarm::default()
    };
    if let Some(given) = settings.given("alarm.webhook", &table.webhook) {
        let webhook = url::service(&given.value).map_err(|problem| given.wrong(problem))?;
        let tls = match &ca_file {
            Some(file) => Some(trust::only(&file.value).map_err(|it| file.wrong(it))?),
            None if webhook.scheme() == "https" => {
                Some(trust::system("alarm.ca_file").map_err(|problem| given.wrong(problem))?)
            }
            None => None,
        };
        (alarm.webhook, alarm.tls) = (Some(webhook), tls);
    } else if let Some(file) = ca_file {
        return Err(file.wrong("is for alarm.webhook, which is not set"));
    }
    let command = settings.list("alarm.command", &table.command);
    if let Some(program) = command.first() {
        if program.value.is_empty() {
            return Err(program.wrong("is empty: expected a program and its arguments"));
        }
        if let Some(given) = command.iter().find(|it| it.value.contains('\0')) {
            return Err(given.wrong("has a NUL, which no argument can have"));
        }
        alarm.command = Some(command.into_iter().map(|given| given.value).collect());
    }
    match settings.given("alarm.patience", &table.patience) {
        Some(given) if given.value.0.is_zero() => return Err(given.wrong("must be at least 1s")),
        Some(given) => alarm.patience = given.value.0,
        None => {}
    }
    Ok(alarm)
}

/// The service that judges passwords.
pub(super) fn http_check(
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Option<HttpCheckConfig>, ConfigError> {
    let table = &settings.auth_http;
    let ca_file = settings.path("auth_http.ca_file", &table.ca_file)?;
    let timeout = settings.given("auth_http.timeout", &table.timeout);
    let listed = settings.list("auth_http.servers", &table.servers);
    let Some(given) = settings.given("auth_http.url", &table.url) else {
        let other = ca_file.map(|it| it.origin);
        let other = other.or_else(|| timeout.map(|it| it.origin));
        let other = other.or_else(|| listed.into_iter().next().map(|it| it.origin));
        return match other {
            Some(origin) => Err(ConfigError::at(
                origin,
                "needs auth_http.url, the service that is asked",
            )),
            None => Ok(None),
        };
    };
    let url = url::service(&given.value).map_err(|problem| given.wrong(problem))?;
    let tls = match &ca_file {
        Some(file) => trust::only(&file.value).map_err(|problem| file.wrong(problem))?,
        None if url.scheme() == "http" => {
            trust::nobody().map_err(|problem| given.wrong(problem))?
        }
        None => trust::system("auth_http.ca_file").map_err(|problem| given.wrong(problem))?,
    };
    let mut servers = BTreeMap::new();
    for given in listed {
        servers::checked(&given, warnings)?;
        let place = servers::place(&given.value).map_err(|problem| given.wrong(problem))?;
        if servers.insert(place, given.value.clone()).is_some() {
            return Err(given.wrong("another server has the same host and port"));
        }
    }
    Ok(Some(HttpCheckConfig {
        url,
        timeout: match timeout {
            Some(given) if given.value.0.is_zero() => {
                return Err(given.wrong("must be at least 1s"));
            }
            Some(given) => given.value.0,
            None => JUDGED,
        },
        tls,
        servers,
    }))
}

#[cfg(test)]
mod tests;
