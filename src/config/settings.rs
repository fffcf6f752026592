//! The first stage: what is written in the file, the environment and on the
//! command line, each value with its origin.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::autoconfig::AutoconfigTable;
use super::values::{Age, Count, Octets, OneOrMore, Period};
use super::{ConfigError, Given, Origin, Overrides};
use crate::secret::Secret;

mod accounts;
mod place;
mod rules;

pub(super) use accounts::{
    AccountsTable, AlarmTable, AuthHttpTable, EnrolmentTable, NamedProvider, ProviderTable,
};
pub(super) use place::quoted;
use place::{Place, unknown};
pub(super) use rules::{GivenRules, NamedRules};
use rules::{RulesTable, Tables};

/// A larger file is not a configuration.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Every key of the file, for suggestions. Domains, accounts and providers have
/// names instead of `NAME`.
pub(super) const KEYS: &[&str] = &[
    "pop3",
    "pop3s",
    "cert",
    "key",
    "allow_cleartext",
    "upstream",
    "default_provider",
    "login",
    "ca_file",
    "delete",
    "seen",
    "folders",
    "max_age",
    "max_messages",
    "expire_after",
    "login_delay",
    "unique_ids",
    "folder_separator",
    "recent",
    "http",
    "http_tls",
    "state",
    "session_takeover",
    "replace_nul",
    "send_client_address",
    "trusted_hosts",
    "domain.NAME.upstream",
    "domain.NAME.provider",
    "domain.NAME.login",
    "domain.NAME.delete",
    "domain.NAME.seen",
    "domain.NAME.folders",
    "domain.NAME.max_age",
    "domain.NAME.max_messages",
    "domain.NAME.expire_after",
    "domain.NAME.login_delay",
    "domain.NAME.unique_ids",
    "account.NAME.delete",
    "account.NAME.seen",
    "account.NAME.folders",
    "account.NAME.shared",
    "account.NAME.max_age",
    "account.NAME.max_messages",
    "account.NAME.expire_after",
    "account.NAME.login_delay",
    "account.NAME.unique_ids",
    "accounts.key_file",
    "accounts.locked_by_password",
    "provider.NAME.preset",
    "provider.NAME.title",
    "provider.NAME.upstream",
    "provider.NAME.trusted_hosts",
    "provider.NAME.grant",
    "provider.NAME.client_id",
    "provider.NAME.client_secret_file",
    "provider.NAME.certificate_key_file",
    "provider.NAME.thumbprint",
    "provider.NAME.tenant",
    "provider.NAME.scopes",
    "provider.NAME.authorization_url",
    "provider.NAME.authorization_parameters",
    "provider.NAME.token_url",
    "provider.NAME.device_url",
    "provider.NAME.userinfo_url",
    "provider.NAME.issuer",
    "provider.NAME.redirect_url",
    "provider.NAME.ca_file",
    "provider.NAME.user",
    "provider.NAME.password_file",
    "auth_http.url",
    "auth_http.ca_file",
    "auth_http.timeout",
    "auth_http.servers",
    "enrolment.public_url",
    "enrolment.domains",
    "enrolment.providers",
    "enrolment.title",
    "enrolment.host",
    "enrolment.operator_password_file",
    "alarm.webhook",
    "alarm.command",
    "alarm.ca_file",
    "alarm.patience",
    "alarm.notice",
    "limits.connections",
    "limits.connections_per_address",
    "limits.failures_per_minute",
    "limits.buffered_octets",
    "limits.buffered_message_octets",
    "limits.bad_commands",
    "limits.slowest_reader",
    "limits.upstream_refusals",
    "timeouts.handshake",
    "timeouts.login",
    "timeouts.idle",
    "timeouts.drain",
    "upstream_limits.literal",
    "upstream_limits.line",
    "upstream_limits.messages",
    "upstream_timeouts.connect",
    "upstream_timeouts.silence",
    "upstream_timeouts.command",
    "upstream_rest.longest",
    "upstream_rest.connections",
    "upstream_rest.connections_per_account",
    "read_ahead.octets_per_session",
    "read_ahead.octets",
    "log.format",
    "log.level",
    "autoconfig.host",
    "autoconfig.domains",
    "autoconfig.pop3s_port",
    "autoconfig.pop3_port",
    "autoconfig.user",
    "autoconfig.display_name",
    "autoconfig.smtp_host",
    "autoconfig.smtp_port",
];

/// The settings of all three places together, not looked at any further.
#[derive(Debug, Default)]
pub struct Settings {
    pub(super) pop3: Vec<Given<String>>,
    pub(super) pop3s: Vec<Given<String>>,
    pub(super) cert: Option<Given<PathBuf>>,
    pub(super) key: Option<Given<PathBuf>>,
    pub(super) allow_cleartext: Option<Given<bool>>,
    pub(super) upstream: Option<Given<String>>,
    pub(super) default_provider: Option<Given<String>>,
    pub(super) ca_file: Option<Given<PathBuf>>,
    pub(super) rules: GivenRules,
    pub(super) domains: Vec<NamedRules>,
    pub(super) accounts: Vec<NamedRules>,
    pub(super) providers: Vec<NamedProvider>,
    /// The keys themselves, of the environment.
    pub(super) accounts_key: Option<Given<Secret>>,
    pub(super) accounts_key_file: Option<Given<PathBuf>>,
    /// The password itself, of the environment.
    pub(super) operator_password: Option<Given<Secret>>,
    pub(super) operator_password_file: Option<Given<PathBuf>>,
    pub(super) folder_separator: Option<Given<String>>,
    pub(super) recent: Option<Given<Age>>,
    pub(super) http: Option<Given<String>>,
    pub(super) http_tls: Option<Given<bool>>,
    pub(super) state: Option<Given<PathBuf>>,
    pub(super) session_takeover: Option<Given<bool>>,
    pub(super) replace_nul: Option<Given<bool>>,
    pub(super) send_client_address: Option<Given<bool>>,
    pub(super) trusted_hosts: Option<Given<Vec<String>>>,
    pub(super) log_format: Option<Given<String>>,
    pub(super) log_level: Option<Given<String>>,
    /// What only the file can say: [`Settings::given`] tells its origin.
    pub(super) limits: LimitsTable,
    pub(super) timeouts: TimeoutsTable,
    pub(super) upstream_limits: UpstreamLimitsTable,
    pub(super) upstream_timeouts: UpstreamTimeoutsTable,
    pub(super) upstream_rest: UpstreamRestTable,
    pub(super) read_ahead: ReadAheadTable,
    pub(super) autoconfig: AutoconfigTable,
    pub(super) accounts_table: AccountsTable,
    pub(super) auth_http: AuthHttpTable,
    pub(super) enrolment: EnrolmentTable,
    pub(super) alarm: AlarmTable,
    text: Text,
}

/// A setting of the file, with its place.
pub(super) type Written<T> = Option<Spanned<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct Document {
    pop3: Written<OneOrMore>,
    pop3s: Written<OneOrMore>,
    cert: Written<String>,
    key: Written<String>,
    allow_cleartext: Written<bool>,
    upstream: Written<String>,
    default_provider: Written<String>,
    login: Written<String>,
    ca_file: Written<String>,
    delete: Written<String>,
    seen: Written<String>,
    folders: Written<OneOrMore>,
    max_age: Written<Age>,
    max_messages: Written<Count>,
    expire_after: Written<Age>,
    login_delay: Written<Period>,
    unique_ids: Written<String>,
    folder_separator: Written<String>,
    recent: Written<Age>,
    domain: Tables,
    account: Tables,
    accounts: AccountsTable,
    provider: accounts::Tables,
    auth_http: AuthHttpTable,
    enrolment: EnrolmentTable,
    alarm: AlarmTable,
    http: Written<String>,
    http_tls: Written<bool>,
    state: Written<String>,
    session_takeover: Written<bool>,
    replace_nul: Written<bool>,
    send_client_address: Written<bool>,
    trusted_hosts: Written<Vec<String>>,
    limits: LimitsTable,
    timeouts: TimeoutsTable,
    upstream_limits: UpstreamLimitsTable,
    upstream_timeouts: UpstreamTimeoutsTable,
    upstream_rest: UpstreamRestTable,
    read_ahead: ReadAheadTable,
    log: LogTable,
    autoconfig: AutoconfigTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct LimitsTable {
    pub connections: Written<Count>,
    pub connections_per_address: Written<Count>,
    pub failures_per_minute: Written<Count>,
    pub buffered_octets: Written<Octets>,
    pub buffered_message_octets: Written<Octets>,
    pub bad_commands: Written<Count>,
    pub slowest_reader: Written<Octets>,
    pub upstream_refusals: Written<Count>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct TimeoutsTable {
    pub handshake: Written<Period>,
    pub login: Written<Period>,
    pub idle: Written<Period>,
    pub drain: Written<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct UpstreamLimitsTable {
    pub literal: Written<Octets>,
    pub line: Written<Octets>,
    pub messages: Written<Count>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct UpstreamTimeoutsTable {
    pub connect: Written<Period>,
    pub silence: Written<Period>,
    pub command: Written<Period>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct UpstreamRestTable {
    pub longest: Written<Period>,
    pub connections: Written<Count>,
    pub connections_per_account: Written<Count>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct ReadAheadTable {
    pub octets_per_session: Written<Octets>,
    pub octets: Written<Octets>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
struct LogTable {
    format: Written<String>,
    level: Written<String>,
}

/// The file's text, and what it is called.
#[derive(Debug, Default)]
struct Text {
    path: PathBuf,
    text: String,
    /// Where its lines end.
    ends: Vec<usize>,
}

impl Settings {
    /// Reads the file, where there is one, and puts flags and environment
    /// above it. Paths in the file are relative to its folder.
    pub fn read(overrides: Overrides) -> Result<Self, ConfigError> {
        let text = match &overrides.config {
            Some(config) => Text::read(config)?,
            None => Text::default(),
        };
        Self::merge(overrides, text)
    }

    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Result<Self, ConfigError> {
        let text = Text::new("popgate.toml".into(), text.to_owned());
        Self::merge(Overrides::default(), text)
    }

    fn merge(over: Overrides, text: Text) -> Result<Self, ConfigError> {
        let file = text.parse()?;
        let allow_cleartext = match over.allow_cleartext {
            Some(given) => Some(switch(&given)?),
            None => text.given("allow_cleartext", file.allow_cleartext),
        };
        let rules = RulesTable {
            upstream: None,
            provider: None,
            login: file.login,
            delete: file.delete,
            seen: file.seen,
            folders: file.folders,
            shared: None,
            max_age: file.max_age,
            max_messages: file.max_messages,
            expire_after: file.expire_after,
            login_delay: file.login_delay,
            unique_ids: file.unique_ids,
        };
        let rules = text.rules("", rules);
        let key_file = text.path("accounts.key_file", file.accounts.key_file.clone());
        let operator_password_file = text.path(
            "enrolment.operator_password_file",
            file.enrolment.operator_password_file.clone(),
        );
        Ok(Self {
            pop3: or_list(over.pop3, text.list("pop3", file.pop3)),
            pop3s: or_list(over.pop3s, text.list("pop3s", file.pop3s)),
            cert: path(over.cert.or_else(|| text.path("cert", file.cert)))?,
            key: path(over.key.or_else(|| text.path("key", file.key)))?,
            allow_cleartext,
            upstream: over
                .upstream
                .or_else(|| text.given("upstream", file.upstream)),
            default_provider: text.given("default_provider", file.default_provider),
            ca_file: path(over.ca_file.or_else(|| text.path("ca_file", file.ca_file)))?,
            rules: GivenRules {
                delete: over.delete.or(rules.delete),
                ..rules
            },
            domains: text.named("domain", file.domain),
            accounts: text.named("account", file.account),
            providers: text.providers(file.provider),
            accounts_key: over.accounts_key,
            accounts_key_file: path(over.accounts_key_file.or(key_file))?
                .or(over.accounts_key_credential),
            operator_password: over.operator_password,
            operator_password_file: path(over.operator_password_file.or(operator_password_file))?,
            folder_separator: text.given("folder_separator", file.folder_separator),
            recent: text.given("recent", file.recent),
            http: over.http.or_else(|| text.given("http", file.http)),
            http_tls: text.given("http_tls", file.http_tls),
            state: path(over.state.or_else(|| text.path("state", file.state)))?,
            session_takeover: text.given("session_takeover", file.session_takeover),
            replace_nul: text.given("replace_nul", file.replace_nul),
            send_client_address: text.given("send_client_address", file.send_client_address),
            trusted_hosts: text.given("trusted_hosts", file.trusted_hosts),
            log_format: over
                .log_format
                .or_else(|| text.given("log.format", file.log.format)),
            log_level: over
                .log_level
                .or_else(|| text.given("log.level", file.log.level)),
            limits: file.limits,
            timeouts: file.timeouts,
            upstream_limits: file.upstream_limits,
            upstream_timeouts: file.upstream_timeouts,
            upstream_rest: file.upstream_rest,
            read_ahead: file.read_ahead,
            autoconfig: file.autoconfig,
            accounts_table: file.accounts,
            auth_http: file.auth_http,
            enrolment: file.enrolment,
            alarm: file.alarm,
            text,
        })
    }

    /// A value of one of the tables, with its origin.
    pub(super) fn given<T: Clone>(&self, key: &str, written: &Written<T>) -> Option<Given<T>> {
        let written = written.as_ref()?;
        let origin = self.text.origin(Some(key.to_owned()), written.span().start);
        Some(Given {
            value: written.get_ref().clone(),
            origin,
        })
    }

    /// A path of one of the tables.
    pub(super) fn path(
        &self,
        key: &str,
        written: &Written<String>,
    ) -> Result<Option<Given<PathBuf>>, ConfigError> {
        path(self.text.path(key, written.clone()))
    }

    /// The strings of one of the tables, each with its origin.
    pub(super) fn list(&self, key: &str, written: &Written<OneOrMore>) -> Vec<Given<String>> {
        self.text.list(key, written.clone())
    }
}

fn or_list(over: Vec<Given<String>>, file: Vec<Given<String>>) -> Vec<Given<String>> {
    if over.is_empty() { file } else { over }
}

fn path(given: Option<Given<PathBuf>>) -> Result<Option<Given<PathBuf>>, ConfigError> {
    match given {
        Some(given) if given.value.as_os_str().is_empty() => {
            Err(given.wrong("is empty: expected the path of a file"))
        }
        other => Ok(other),
    }
}

/// A switch as flags and environments write it.
fn switch(given: &Given<String>) -> Result<Given<bool>, ConfigError> {
    let on = match given.value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => true,
        "false" | "no" | "off" | "0" => false,
        _ => return Err(given.wrong("expected true or false")),
    };
    Ok(given.with(on))
}

impl Text {
    fn new(path: PathBuf, text: String) -> Self {
        let ends = text.match_indices('\n').map(|(end, _)| end).collect();
        Self { path, text, ends }
    }

    fn read(config: &Given<PathBuf>) -> Result<Self, ConfigError> {
        let path = &config.value;
        if path.as_os_str().is_empty() {
            return Err(config.wrong("is empty: expected the path of a file"));
        }
        let cannot_read = |error| config.wrong(format!("cannot read {}: {error}", path.display()));
        let mut octets = Vec::new();
        let file = fs::File::open(path).map_err(cannot_read)?;
        file.take(LARGEST_FILE + 1)
            .read_to_end(&mut octets)
            .map_err(cannot_read)?;
        if octets.len() as u64 > LARGEST_FILE {
            return Err(config.wrong(format!(
                "{} is too large to be a configuration",
                path.display()
            )));
        }
        match String::from_utf8(octets) {
            Ok(text) => Ok(Self::new(path.clone(), text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let before = &error.as_bytes()[..valid];
                let line = 1 + before.iter().filter(|octet| **octet == b'\n').count();
                let file = path.display().to_string();
                Err(ConfigError::at(
                    Origin::File {
                        file,
                        line,
                        key: None,
                    },
                    "is not UTF-8 text",
                ))
            }
        }
    }

    fn parse(&self) -> Result<Document, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let place = DeTable::parse(&self.text)
                .ok()
                .and_then(|table| Place::at(table.get_ref(), offset))
                .map(Place::first_unknown);
            let problem = match &place {
                Some(place) if error.message().starts_with("unknown field") => unknown(place),
                _ => error.message().trim().replace('\n', "; "),
            };
            let key = place.map(|place| place.key());
            ConfigError::at(self.origin(key, offset), problem)
        })
    }

    fn origin(&self, key: Option<String>, offset: usize) -> Origin {
        let line = 1 + self.ends.partition_point(|end| *end < offset);
        Origin::File {
            file: self.path.display().to_string(),
            line,
            key,
        }
    }

    fn given<T>(&self, key: &str, written: Written<T>) -> Option<Given<T>> {
        let written = written?;
        let origin = self.origin(Some(key.to_owned()), written.span().start);
        Some(Given {
            value: written.into_inner(),
            origin,
        })
    }

    fn path(&self, key: &str, written: Written<String>) -> Option<Given<PathBuf>> {
        let given = self.given(key, written)?;
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let value = match given.value.as_str() {
            "" => PathBuf::new(),
            path => folder.join(path),
        };
        Some(given.with(value))
    }

    fn list(&self, key: &str, written: Written<OneOrMore>) -> Vec<Given<String>> {
        let Some(written) = written else {
            return Vec::new();
        };
        let whole = written.span();
        let strings = written.into_inner().0.into_iter();
        strings
            .map(|(value, span)| {
                let offset = span.unwrap_or(whole.clone()).start;
                Given {
                    value,
                    origin: self.origin(Some(key.to_owned()), offset),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
