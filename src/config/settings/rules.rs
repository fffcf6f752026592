//! The policies as they are written: for the gateway, for a domain, for an
//! account.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Text, Written, quoted};
use crate::config::Given;
use crate::config::values::{Age, Count, OneOrMore, Period};

/// The tables of a kind, by name.
pub(super) type Tables = BTreeMap<Spanned<String>, RulesTable>;

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table of policies, as in [domain.\"example.com\"]"
)]
pub(super) struct RulesTable {
    pub upstream: Written<String>,
    pub provider: Written<String>,
    pub login: Written<String>,
    pub delete: Written<String>,
    pub seen: Written<String>,
    pub folders: Written<OneOrMore>,
    pub shared: Written<String>,
    pub max_age: Written<Age>,
    pub max_messages: Written<Count>,
    pub expire_after: Written<Age>,
    pub login_delay: Written<Period>,
    pub unique_ids: Written<String>,
}

/// The policies of one table, each with its origin. `None`: as in the table
/// above it.
#[derive(Debug, Default)]
pub(in crate::config) struct GivenRules {
    pub upstream: Option<Given<String>>,
    pub provider: Option<Given<String>>,
    pub login: Option<Given<String>>,
    pub delete: Option<Given<String>>,
    pub seen: Option<Given<String>>,
    pub folders: Option<Given<Vec<Given<String>>>>,
    pub shared: Option<Given<String>>,
    pub max_age: Option<Given<Age>>,
    pub max_messages: Option<Given<Count>>,
    pub expire_after: Option<Given<Age>>,
    pub login_delay: Option<Given<Period>>,
    pub unique_ids: Option<Given<String>>,
}

/// The rules of somebody: a domain, or an account.
#[derive(Debug)]
pub(in crate::config) struct NamedRules {
    /// As it was written.
    pub name: Given<String>,
    pub rules: GivenRules,
}

impl Text {
    /// A table of policies; `prefix` is what its keys begin with.
    pub(super) fn rules(&self, prefix: &str, table: RulesTable) -> GivenRules {
        let key = |key: &str| format!("{prefix}{key}");
        let folders = table.folders.map(|written| {
            let place = key("folders");
            let origin = self.origin(Some(place.clone()), written.span().start);
            let value = self.list(&place, Some(written));
            Given { value, origin }
        });
        GivenRules {
            upstream: self.given(&key("upstream"), table.upstream),
            provider: self.given(&key("provider"), table.provider),
            login: self.given(&key("login"), table.login),
            delete: self.given(&key("delete"), table.delete),
            seen: self.given(&key("seen"), table.seen),
            folders,
            shared: self.given(&key("shared"), table.shared),
            max_age: self.given(&key("max_age"), table.max_age),
            max_messages: self.given(&key("max_messages"), table.max_messages),
            expire_after: self.given(&key("expire_after"), table.expire_after),
            login_delay: self.given(&key("login_delay"), table.login_delay),
            unique_ids: self.given(&key("unique_ids"), table.unique_ids),
        }
    }

    /// The tables of a kind, in the order of the file.
    pub(super) fn named(&self, kind: &str, tables: Tables) -> Vec<NamedRules> {
        let mut tables: Vec<_> = tables.into_iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        tables
            .into_iter()
            .map(|(name, table)| {
                let key = format!("{kind}.{}", quoted(name.get_ref()));
                let origin = self.origin(Some(key.clone()), name.span().start);
                let name = Given {
                    value: name.into_inner(),
                    origin,
                };
                let rules = self.rules(&format!("{key}."), table);
                NamedRules { name, rules }
            })
            .collect()
    }
}
