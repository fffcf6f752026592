//! `add` and `reauthorize`: how an account comes to what opens its mailbox.

use serde_json::json;

use super::output::{Output, shown};
use super::{AccountError, Site};
use crate::accounts::{Account, Entry, Home, NewCredential, Rules};
use crate::cli::{NewAccount, SignIn};
use crate::maildrop::{DeletePolicy, FolderName, SeenPolicy};

impl Site {
    pub(super) async fn add(
        &self,
        new: NewAccount,
        output: Output<'_>,
    ) -> Result<(), AccountError> {
        let home = self.home(&new)?;
        let mut account = self.accounts.new_account(&new.address, home)?;
        account.mailbox = new.user.clone();
        account.delegate = new.shared_by.as_deref().map(str::to_lowercase);
        account.master = new.master;
        account.rules = rules(&new)?;
        if self.accounts.find(&account.address).await?.is_some() {
            let address = shown(&account.address);
            return Err(AccountError::Unsuitable(format!(
                "there is an account {address} already: popgate account password add {address} gives it one more device, popgate account reauthorize {address} signs in again"
            )));
        }
        // What cannot be shows before anybody has signed in.
        let is_chosen = new.device.chosen.is_some();
        let name = new.device.name;
        let name = name.unwrap_or_else(|| account.free_device_name());
        let chosen = match new.device.chosen {
            Some(source) => Some(source.read_new(&account.address)?),
            None => None,
        };
        let device = self
            .accounts
            .add_device(&mut account, &name, chosen, None)
            .await?;
        let brought = self.bring(&account, new.sign_in, output).await?;
        let enrolled = self.accounts.enrol(account, brought, &self.probe).await?;
        let account = enrolled.account;
        if output.json {
            let object = self.object(&account).await?;
            output.object(&json!({
                "event": "enrolled", "account": object,
                "device": super::devices::device_object(&device, &name, is_chosen),
                "server": self.server_object(),
            }));
            return Ok(());
        }
        match account.master {
            true => output.say(format_args!(
                "{} may log in as others: {}*{} as user name, or PLAIN with an authorization identity.",
                shown(&account.address),
                "alice@example.com",
                shown(&account.address),
            )),
            false => output.say(format_args!(
                "{} is enrolled: its mailbox opens.",
                shown(&account.address)
            )),
        }
        self.tell_device(&account, &device, &name, is_chosen, output);
        Ok(())
    }

    pub(super) async fn reauthorize(
        &self,
        address: &str,
        sign_in: SignIn,
        output: Output<'_>,
    ) -> Result<(), AccountError> {
        let account = self.found(address).await?;
        if account.master {
            return Err(AccountError::Unsuitable(
                "a master account has no mailbox of its own".to_owned(),
            ));
        }
        let brought = self.bring(&account, sign_in, output).await?;
        let enrolled = self.accounts.enrol(account, brought, &self.probe).await?;
        let account = enrolled.account;
        if output.json {
            let object = self.object(&account).await?;
            output.object(&json!({"event": "reauthorized", "account": object}));
        }
        output.say(format_args!(
            "{}: its mailbox opens again; the passwords of its devices are as they were.",
            shown(&account.address)
        ));
        if account.disabled {
            output.say(format_args!(
                "It is disabled: popgate account enable {}",
                shown(&account.address)
            ));
        }
        Ok(())
    }

    /// Where the mailbox is: as it was said, as its domain has it, or where it can only
    /// be.
    fn home(&self, new: &NewAccount) -> Result<Home, AccountError> {
        let config = self.accounts.config();
        let known = || {
            let names: Vec<&str> = config.providers.keys().map(String::as_str).collect();
            names.join(", ")
        };
        if new.master {
            return Ok(Home::Gateway);
        }
        if let Some(name) = &new.provider {
            return match config.providers.contains_key(name) {
                true => Ok(Home::Provider(name.clone())),
                false if config.providers.is_empty() => Err(AccountError::Unsuitable(format!(
                    "no provider is configured: [provider.NAME] says how to reach {:?}",
                    shown(name).to_string()
                ))),
                false => Err(AccountError::Unsuitable(format!(
                    "there is no [provider.{}]; configured are: {}",
                    shown(name),
                    known()
                ))),
            };
        }
        if let Some(url) = &new.upstream {
            return match config.gateway_upstream.as_ref() == Some(url) {
                true => Ok(Home::Gateway),
                false => {
                    self.probe.check(url).map_err(|problem| {
                        AccountError::Unsuitable(format!("--upstream: {problem}"))
                    })?;
                    Ok(Home::Upstream(url.clone()))
                }
            };
        }
        let of_domain = &self.policies.of(&new.address).login.home;
        if *of_domain != Home::Gateway {
            return Ok(of_domain.clone());
        }
        let mut providers = config.providers.keys();
        match (providers.next(), providers.next()) {
            (Some(only), None) => Ok(Home::Provider(only.clone())),
            (None, _) if self.has_upstream => Ok(Home::Gateway),
            (None, _) => Err(AccountError::Unsuitable(
                "nothing says where the mailbox is: say --upstream, or configure a [provider.NAME]"
                    .to_owned(),
            )),
            (Some(_), Some(_)) => Err(AccountError::Unsuitable(format!(
                "where is the mailbox? Say --provider with one of: {}; or --upstream",
                known()
            ))),
        }
    }

    /// What opens the mailbox, from whoever has it.
    async fn bring(
        &self,
        account: &Account,
        given: SignIn,
        output: Output<'_>,
    ) -> Result<NewCredential, AccountError> {
        if account.master {
            return Ok(NewCredential::Provider);
        }
        let unsuitable = |problem: String| Err(AccountError::Unsuitable(problem));
        let needless = [&given.password, &given.api_token]
            .into_iter()
            .find_map(|source| source.flag());
        let name = match &account.home {
            Home::Provider(name) => name,
            // A server that is no provider takes either.
            Home::Gateway | Home::Upstream(_) => {
                return match given.api_token.read_if_set()? {
                    Some(token) => Ok(NewCredential::ApiToken(token)),
                    None => {
                        let password = given.password.read(account.mailbox())?;
                        Ok(NewCredential::Password(password))
                    }
                };
            }
        };
        let Some(provider) = self.accounts.provider(name) else {
            return unsuitable(format!("there is no [provider.{}] any more", shown(name)));
        };
        match &provider.entry {
            Entry::Password => match given.api_token.flag() {
                Some(flag) => unsuitable(format!("{flag}: [provider.{name}] takes passwords")),
                None => {
                    let password = given.password.read(account.mailbox())?;
                    Ok(NewCredential::Password(password))
                }
            },
            Entry::ApiToken => match given.password.flag() {
                Some(flag) => unsuitable(format!("{flag}: [provider.{name}] takes API tokens")),
                None => {
                    let token = given.api_token.read(account.mailbox())?;
                    Ok(NewCredential::ApiToken(token))
                }
            },
            entry if entry.needs_nobody() => match needless {
                Some(flag) => unsuitable(format!(
                    "{flag}: [provider.{name}] lets popgate in without anything of the account's own"
                )),
                None => Ok(NewCredential::Provider),
            },
            Entry::OAuth(client) => match needless {
                Some(flag) => unsuitable(format!(
                    "{flag}: at [provider.{name}] people sign in, and show no password to popgate"
                )),
                None => {
                    // Nobody signs in for what could not be kept.
                    self.accounts.may_seal().await?;
                    let tokens = self
                        .sign_in(client, provider, account, given.method, output)
                        .await?;
                    Ok(NewCredential::OAuth(tokens))
                }
            },
            Entry::Master { .. } => Ok(NewCredential::Provider),
        }
    }
}

/// Policies, which are checked here, and kept as they are written.
fn rules(new: &NewAccount) -> Result<Rules, AccountError> {
    fn checked<T: std::str::FromStr<Err: std::fmt::Display>>(
        flag: &str,
        text: &str,
    ) -> Result<(), AccountError> {
        match text.parse::<T>() {
            Ok(_) => Ok(()),
            Err(error) => Err(AccountError::Unsuitable(format!(
                "{flag}: {:?}: {error}",
                shown(text).to_string()
            ))),
        }
    }
    if let Some(delete) = &new.delete {
        checked::<DeletePolicy>("--delete", delete)?;
    }
    if let Some(seen) = &new.seen {
        checked::<SeenPolicy>("--seen", seen)?;
    }
    for folder in &new.folders {
        checked::<FolderName>("--folder", folder)?;
    }
    Ok(Rules {
        delete: new.delete.clone(),
        seen: new.seen.clone(),
        folders: new.folders.clone(),
    })
}
