//! `password`: the passwords of an account's devices.

use serde_json::json;

use super::output::{Output, shown};
use super::{AccountError, Site};
use crate::accounts::{Account, AccountsError, DevicePassword};
use crate::cli::NewDevice;
use crate::secret::Secret;

/// How often a device is added where others change the account meanwhile.
const TRIES: u32 = 5;

impl Site {
    pub(super) async fn add_password(
        &self,
        address: &str,
        device: NewDevice,
        output: Output<'_>,
    ) -> Result<(), AccountError> {
        let account = self.found(address).await?;
        let name = device.name;
        let chosen = match device.chosen {
            Some(source) => Some(source.read_new(&account.address)?),
            None => None,
        };
        let is_locked = account
            .lock
            .as_ref()
            .is_some_and(|lock| !lock.private_keys.is_empty());
        let existing = match is_locked {
            true => Some(device.existing.read(&account.address)?),
            false => None,
        };
        let (account, name, new) = self
            .with_device(account, name, chosen.as_ref(), existing.as_ref())
            .await?;
        let is_chosen = chosen.is_some();
        if output.json {
            let object = self.object(&account).await?;
            let device = device_object(&new, &name, is_chosen);
            output.object(&json!({
                "event": "device", "account": object, "device": device,
                "server": self.server_object(),
            }));
        } else {
            self.tell_device(&account, &new, &name, is_chosen, output);
        }
        Ok(())
    }

    async fn with_device(
        &self,
        mut account: Account,
        name: Option<String>,
        chosen: Option<&Secret>,
        existing: Option<&Secret>,
    ) -> Result<(Account, String, DevicePassword), AccountError> {
        let mut tries = 0;
        loop {
            let name = name.clone().unwrap_or_else(|| account.free_device_name());
            let adding = self
                .accounts
                .add_device(&mut account, &name, chosen.cloned(), existing);
            let new = adding.await?;
            tries += 1;
            match self.accounts.save(&mut account).await {
                Ok(()) => return Ok((account, name, new)),
                Err(AccountsError::Changed(address)) if tries < TRIES => {
                    account = self.found(&address).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) async fn revoke_password(
        &self,
        address: &str,
        device: &str,
        output: Output<'_>,
    ) -> Result<(), AccountError> {
        let account = self.found(address).await?;
        let named = |it: &&crate::accounts::Device| it.id == device || it.name == device;
        let mut found = account.devices.iter().filter(named);
        let Some(one) = found.next() else {
            return Err(AccountError::Unsuitable(format!(
                "{} has no device {:?}: popgate account password list {}",
                shown(&account.address),
                shown(device).to_string(),
                shown(&account.address),
            )));
        };
        if found.next().is_some() {
            return Err(AccountError::Unsuitable(format!(
                "several devices are called {:?}: say the id of one",
                shown(device).to_string()
            )));
        }
        let (id, name) = (one.id.clone(), one.name.clone());
        let revoke = |account: &mut Account| self.accounts.revoke_device(account, &id);
        let (account, _) = self.accounts.change(&account.address, revoke).await?;
        if output.json {
            let object = self.object(&account).await?;
            let device = json!({"id": id, "name": name});
            output.object(&json!({"event": "revoked", "account": object, "device": device}));
        }
        output.say(format_args!(
            "{} has lost its password; {} left",
            shown(&name),
            super::report::devices(account.devices.len())
        ));
        if account.lock.is_some() && account.devices.is_empty() {
            output.say(format_args!(
                "Nothing opens the secrets of this account any more: after `popgate account password add`, `popgate account reauthorize` brings new ones."
            ));
        }
        Ok(())
    }

    /// What a person types into a mail client.
    pub(super) fn tell_device(
        &self,
        account: &Account,
        new: &DevicePassword,
        name: &str,
        is_chosen: bool,
        output: Output<'_>,
    ) {
        let server = self.reached.as_ref();
        let host = server.map_or("where popgate listens", |it| it.host.as_str());
        let (security, port) = match server {
            Some(it) if it.pop3s_port.is_some() => ("TLS", it.pop3s_port),
            Some(it) if it.pop3_port.is_some() => ("STARTTLS (STLS)", it.pop3_port),
            _ => ("TLS", None),
        };
        output.say(format_args!(
            "\nFor the mail client of {:?}:\n",
            shown(name).to_string()
        ));
        output.say(format_args!("  protocol    POP3"));
        output.say(format_args!("  server      {host}"));
        if let Some(port) = port {
            output.say(format_args!("  port        {port}"));
            output.say(format_args!("  encryption  {security}"));
        }
        output.say(format_args!("  user name   {}", shown(&account.address)));
        match is_chosen {
            true => output.say(format_args!("  password    the one that you chose")),
            false => {
                output.say(format_args!("  password    {}", new.password.reveal()));
                output.say(format_args!("\nThe password is shown only now."));
            }
        }
    }

    pub(super) fn server_object(&self) -> serde_json::Value {
        let server = self.reached.as_ref();
        server.map_or(serde_json::Value::Null, |it| {
            json!({
                "host": it.host,
                "pop3s_port": it.pop3s_port,
                "pop3_port": it.pop3_port,
            })
        })
    }
}

/// A new device for programs; a password that somebody chose is known to him.
pub(super) fn device_object(
    new: &DevicePassword,
    name: &str,
    is_chosen: bool,
) -> serde_json::Value {
    let password = (!is_chosen).then(|| new.password.reveal());
    json!({"id": new.device, "name": name, "password": password})
}
