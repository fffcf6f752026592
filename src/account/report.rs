//! `list` and `show`: how accounts are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::output::{Output, shown};
use super::time::{now, told};
use super::{AccountError, Site};
use crate::accounts::{Account, Credential, Entry, Home, Verifier};

impl Site {
    pub(super) async fn list(&self, output: Output<'_>) -> Result<(), AccountError> {
        let accounts = self.accounts.all().await?;
        if output.json {
            for account in &accounts {
                output.object(&self.object(account).await?);
            }
            return Ok(());
        }
        if accounts.is_empty() {
            output.say(format_args!(
                "There are no accounts. `popgate account add ADDRESS` makes one."
            ));
            return Ok(());
        }
        let header = ["ACCOUNT", "MAILBOX AT", "BY", "DEVICES", "STATE"].map(str::to_owned);
        let mut rows = vec![header];
        rows.extend(accounts.iter().map(|account| {
            [
                shown(&account.address).to_string(),
                shown(&self.place(account)).to_string(),
                way(account).to_owned(),
                account.devices.len().to_string(),
                self.state(account, now()).name().to_owned(),
            ]
        }));
        for line in table(&rows) {
            output.say(format_args!("{line}"));
        }
        Ok(())
    }

    pub(super) async fn show(&self, address: &str, output: Output<'_>) -> Result<(), AccountError> {
        let account = self.found(address).await?;
        if output.json {
            output.object(&self.object(&account).await?);
            return Ok(());
        }
        let used = self.accounts.last_used(&account.address).await?;
        let text = self.text(&account, &used, now());
        output.say(format_args!("{text}"));
        Ok(())
    }

    pub(super) async fn list_passwords(
        &self,
        address: &str,
        output: Output<'_>,
    ) -> Result<(), AccountError> {
        let account = self.found(address).await?;
        let used = self.accounts.last_used(&account.address).await?;
        if output.json {
            for device in devices_object(&account, &used) {
                output.object(&device);
            }
            return Ok(());
        }
        match account.devices.is_empty() {
            true => output.say(format_args!("{} has no device", shown(&account.address))),
            false => {
                for line in device_lines(&account, &used, now()) {
                    output.say(format_args!("{line}"));
                }
            }
        }
        Ok(())
    }

    /// An account for programs. The keys are documented, and stay.
    pub(super) async fn object(&self, account: &Account) -> Result<Value, AccountError> {
        let used = self.accounts.last_used(&account.address).await?;
        let (home, provider) = match &account.home {
            Home::Gateway => ("gateway", None),
            Home::Provider(name) => ("provider", Some(name)),
            Home::Upstream(_) => ("upstream", None),
        };
        let token = match &account.credential {
            Credential::OAuth(tokens) => json!({
                "signed_in": tokens.signed_in,
                "renewed": tokens.refreshed,
                "expires": tokens.expires_at,
                "renewable": tokens.refresh.is_some(),
            }),
            _ => Value::Null,
        };
        let trouble = account.trouble.as_ref();
        let trouble = trouble.map(|it| json!({"since": it.since, "reason": it.reason}));
        Ok(json!({
            "address": account.address,
            "state": self.state(account, now()).name(),
            "home": home,
            "provider": provider,
            "upstream": self.accounts.upstream_of(&account.home),
            "mailbox": account.mailbox(),
            "signs_in": account.signs_in(),
            "credential": way(account),
            "master": account.master,
            "disabled": account.disabled,
            "locked_by_password": account.lock.is_some(),
            "created": account.created,
            "token": token,
            "trouble": trouble,
            "devices": devices_object(account, &used),
            "rules": {
                "delete": account.rules.delete,
                "seen": account.rules.seen,
                "folders": account.rules.folders,
            },
        }))
    }

    fn state(&self, account: &Account, now: i64) -> State {
        let ended = match &account.credential {
            Credential::OAuth(tokens) => tokens.refresh.is_none() && tokens.expires_at <= now,
            _ => false,
        };
        if account.disabled {
            State::Disabled
        } else if !self.accounts.missing_keys_of(account).is_empty() {
            State::KeyMissing
        } else if account.trouble.is_some() || ended {
            State::SignInNeeded
        } else {
            State::Well
        }
    }

    /// Where the mailbox is, for people.
    fn place(&self, account: &Account) -> String {
        match &account.home {
            _ if account.master => "(all others)".to_owned(),
            Home::Gateway => "the gateway's upstream".to_owned(),
            Home::Provider(name) => match self.accounts.provider(name) {
                Some(provider) => provider.title.clone(),
                None => format!("{name} (not configured)"),
            },
            Home::Upstream(url) => url.clone(),
        }
    }

    fn text(&self, account: &Account, used: &BTreeMap<String, i64>, now: i64) -> String {
        let mut text = format!("{}\n", shown(&account.address));
        let mut row = |name: &str, value: &str| {
            // Writing to a string succeeds.
            let _ = writeln!(text, "  {name:<12}  {}", shown(value));
        };
        row("state", &self.state(account, now).words(account, now));
        if account.master {
            row("is", "a master: its password opens other accounts");
        } else {
            let upstream = self.accounts.upstream_of(&account.home);
            let place = self.place(account);
            let place = match upstream.filter(|url| **url != *place) {
                Some(url) => format!("{place} ({url})"),
                None => place,
            };
            row("mailbox", &format!("{} at {place}", account.mailbox()));
            if account.signs_in() != account.address {
                row("signs in", account.signs_in());
            }
            row("gets in by", &self.way_in_words(account, now));
        }
        if account.lock.is_some() {
            row("locked", "secrets open only with the password of a device");
        }
        let rules = &account.rules;
        for (name, value) in [("delete", &rules.delete), ("seen", &rules.seen)] {
            if let Some(value) = value {
                row(name, value);
            }
        }
        if !rules.folders.is_empty() {
            row("folders", &rules.folders.join(", "));
        }
        row("made", &told(account.created, now));
        row(
            "devices",
            if account.devices.is_empty() {
                "none"
            } else {
                ""
            },
        );
        for line in device_lines(account, used, now) {
            let _ = writeln!(text, "    {line}");
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n")
    }

    fn way_in_words(&self, account: &Account, now: i64) -> String {
        match &account.credential {
            Credential::Password(_) => "a password there".to_owned(),
            Credential::ApiToken(_) => "an API token".to_owned(),
            Credential::Provider => {
                let entry = match &account.home {
                    Home::Provider(name) => self.accounts.provider(name).map(|it| &it.entry),
                    Home::Gateway | Home::Upstream(_) => None,
                };
                match entry {
                    Some(Entry::Master { user, .. }) => format!("the master user {user}"),
                    Some(entry) if entry.needs_nobody() => {
                        "popgate's own registration at the provider".to_owned()
                    }
                    _ => "nothing yet".to_owned(),
                }
            }
            Credential::OAuth(tokens) => {
                let renewal = match tokens.refresh {
                    Some(_) => "",
                    None => ", and cannot be renewed",
                };
                format!(
                    "a token: signed in {}; renewed {}; good until {}{renewal}",
                    told(tokens.signed_in, now),
                    told(tokens.refreshed, now),
                    told(tokens.expires_at, now),
                )
            }
        }
    }
}

/// How an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Disabled,
    /// It is sealed with a key that is not configured.
    KeyMissing,
    SignInNeeded,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Disabled => "disabled",
            Self::KeyMissing => "key-missing",
            Self::SignInNeeded => "sign-in-needed",
        }
    }

    fn words(self, account: &Account, now: i64) -> String {
        let trouble = account.trouble.as_ref();
        let trouble = trouble.map(|it| format!("since {}: {}", told(it.since, now), it.reason));
        match (self, trouble) {
            (Self::Well, _) => "ok".to_owned(),
            (Self::Disabled, None) => "disabled: nobody logs in".to_owned(),
            (Self::Disabled, Some(trouble)) => format!("disabled; {trouble}"),
            (Self::KeyMissing, _) => format!(
                "sealed with a key that is not among those of [accounts]: put it back, or, \
                where it is lost, have somebody sign in again (popgate account reauthorize {})",
                account.address
            ),
            (Self::SignInNeeded, trouble) => format!(
                "somebody has to sign in again (popgate account reauthorize {}){}",
                account.address,
                trouble.map_or_else(String::new, |it| format!(", {it}"))
            ),
        }
    }
}

/// How popgate gets in, by the name of a documented value.
fn way(account: &Account) -> &'static str {
    match &account.credential {
        Credential::Provider => "provider",
        Credential::Password(_) => "password",
        Credential::ApiToken(_) => "api-token",
        Credential::OAuth(_) => "oauth",
    }
}

fn devices_object(account: &Account, used: &BTreeMap<String, i64>) -> Vec<Value> {
    let devices = account.devices.iter();
    devices
        .map(|device| {
            json!({
                "id": device.id,
                "name": device.name,
                "created": device.created,
                "last_used": used.get(&device.id),
                "chosen": matches!(device.verifier, Verifier::Chosen(_)),
            })
        })
        .collect()
}

fn device_lines(account: &Account, used: &BTreeMap<String, i64>, now: i64) -> Vec<String> {
    let rows: Vec<_> = account
        .devices
        .iter()
        .map(|device| {
            let last = match used.get(&device.id) {
                Some(time) => format!("last used {}", told(*time, now)),
                None => "not used yet".to_owned(),
            };
            [
                shown(&device.name).to_string(),
                shown(&device.id).to_string(),
                format!("made {}", told(device.created, now)),
                last,
            ]
        })
        .collect();
    table(&rows)
}

/// Rows with columns of one width; the last has what it needs.
fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A number of devices.
pub(super) fn devices(count: usize) -> String {
    match count {
        1 => "1 device".to_owned(),
        count => format!("{count} devices"),
    }
}
