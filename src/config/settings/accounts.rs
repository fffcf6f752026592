//! What is written of accounts: the tables `[accounts]`, `[provider.NAME]`,
//! `[auth_http]`, `[enrolment]` and `[alarm]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Text, Written, quoted};
use crate::config::Given;
use crate::config::values::{OneOrMore, Period};

/// The providers, by name.
pub(super) type Tables = BTreeMap<Spanned<String>, ProviderTable>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(in crate::config) struct AccountsTable {
    pub key_file: Written<String>,
    pub locked_by_password: Written<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table, as in [provider.gmail]"
)]
pub(in crate::config) struct ProviderTable {
    pub preset: Written<String>,
    pub title: Written<String>,
    pub upstream: Written<String>,
    pub trusted_hosts: Written<OneOrMore>,
    pub grant: Written<String>,
    pub client_id: Written<String>,
    pub client_secret_file: Written<String>,
    pub certificate_key_file: Written<String>,
    pub thumbprint: Written<String>,
    pub tenant: Written<String>,
    pub scopes: Written<OneOrMore>,
    pub authorization_url: Written<String>,
    pub authorization_parameters: Written<OneOrMore>,
    pub token_url: Written<String>,
    pub device_url: Written<String>,
    pub userinfo_url: Written<String>,
    pub issuer: Written<String>,
    pub redirect_url: Written<String>,
    pub ca_file: Written<String>,
    pub user: Written<String>,
    pub password_file: Written<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(in crate::config) struct AuthHttpTable {
    pub url: Written<String>,
    pub ca_file: Written<String>,
    pub timeout: Written<Period>,
    pub servers: Written<OneOrMore>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(in crate::config) struct EnrolmentTable {
    pub public_url: Written<String>,
    pub domains: Written<OneOrMore>,
    pub providers: Written<OneOrMore>,
    pub title: Written<String>,
    pub host: Written<String>,
    pub operator_password_file: Written<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(in crate::config) struct AlarmTable {
    pub webhook: Written<String>,
    pub command: Written<OneOrMore>,
    pub ca_file: Written<String>,
    pub patience: Written<Period>,
    pub notice: Written<bool>,
}

/// A provider as it is written.
#[derive(Debug)]
pub(in crate::config) struct NamedProvider {
    /// Its name, with the place of its table.
    pub name: Given<String>,
    /// What its keys begin with: `provider.gmail.`
    pub prefix: String,
    pub table: ProviderTable,
}

impl Text {
    /// The providers, in the order of the file.
    pub(super) fn providers(&self, tables: Tables) -> Vec<NamedProvider> {
        let mut tables: Vec<_> = tables.into_iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        tables
            .into_iter()
            .map(|(name, table)| {
                let key = format!("provider.{}", quoted(name.get_ref()));
                let origin = self.origin(Some(key.clone()), name.span().start);
                let name = Given {
                    value: name.into_inner(),
                    origin,
                };
                NamedProvider {
                    name,
                    prefix: format!("{key}."),
                    table,
                }
            })
            .collect()
    }
}
