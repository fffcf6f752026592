//! The arguments of `popgate account`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, Subcommand, ValueEnum};

use super::{
    Cli, Invocation, PasswordSource, Stop, accounts_key_credential, accounts_key_file, path,
    secret, text,
};
use crate::config::{Given, Origin, Overrides};

/// What `popgate account` was asked to do.
#[derive(Debug)]
pub enum AccountCommand {
    /// `add`
    Add(Box<NewAccount>),
    /// `list`
    List,
    /// `show`
    Show {
        /// Whose.
        address: String,
    },
    /// `disable`, `enable`
    Disable {
        /// Whose.
        address: String,
        /// Or not any more.
        disabled: bool,
    },
    /// `remove`
    Remove {
        /// Whose.
        address: String,
        /// Nobody is asked.
        yes: bool,
    },
    /// `password add`
    AddPassword {
        /// Whose.
        address: String,
        /// Its first, or one more.
        device: NewDevice,
    },
    /// `password list`
    ListPasswords {
        /// Whose.
        address: String,
    },
    /// `password revoke`
    RevokePassword {
        /// Whose.
        address: String,
        /// The name or the id.
        device: String,
    },
    /// `reauthorize`
    Reauthorize {
        /// Whose.
        address: String,
        /// What is brought.
        sign_in: SignIn,
    },
    /// `rekey`
    Rekey,
}

/// An account that is to be.
#[derive(Debug)]
pub struct NewAccount {
    /// What clients give as user name.
    pub address: String,
    /// The provider, by its name.
    pub provider: Option<String>,
    /// Another server, by its URL.
    pub upstream: Option<String>,
    /// The user name there.
    pub user: Option<String>,
    /// Who signs in for a shared mailbox.
    pub shared_by: Option<String>,
    /// It logs in as others.
    pub master: bool,
    /// As `delete` in the configuration.
    pub delete: Option<String>,
    /// As `seen` in the configuration.
    pub seen: Option<String>,
    /// As `folders` in the configuration.
    pub folders: Vec<String>,
    /// Its first device.
    pub device: NewDevice,
    /// What is brought.
    pub sign_in: SignIn,
}

/// A device that is to be.
#[derive(Debug)]
pub struct NewDevice {
    /// What its owner calls it; `None`: nothing.
    pub name: Option<String>,
    /// A password that a person chose, instead of a generated one.
    pub chosen: Option<PasswordSource>,
    /// The password of a device that there is.
    pub existing: PasswordSource,
}

/// How somebody shows that the mailbox is his.
#[derive(Debug)]
pub struct SignIn {
    /// How a person signs in; `None`: as the provider can.
    pub method: Option<Method>,
    /// A password upstream.
    pub password: PasswordSource,
    /// A token upstream.
    pub api_token: PasswordSource,
}

/// How a person signs in for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// By a code, on any device (RFC 8628).
    Device,
    /// In any browser, whose last address is pasted here.
    Paste,
}

#[derive(Debug, Subcommand)]
pub(super) enum AccountArguments {
    /// Make an account: sign in, try the mailbox, and show a password for the
    /// first device
    Add(Box<AddArguments>),
    /// Every account and how it is
    List(Listing),
    /// One account, with its devices and the state of its token
    Show(OneWithJson),
    /// Let nobody log in; nothing is lost
    Disable(OneWithJson),
    /// Let people log in again
    Enable(OneWithJson),
    /// Remove an account, with its passwords and tokens; its mail stays where it is
    Remove(RemoveArguments),
    /// The passwords of an account's devices
    Password {
        #[command(subcommand)]
        command: PasswordArguments,
    },
    /// Sign in again, or bring a new password or token
    Reauthorize(ReauthorizeArguments),
    /// Print a new key for accounts.key_file
    Key,
    /// Seal everything with the first key of accounts.key_file
    Rekey(Listing),
}

#[derive(Debug, Subcommand)]
pub(super) enum PasswordArguments {
    /// One more device: its password is shown once
    Add(DeviceArguments),
    /// The devices, and when they were last used
    List(OneWithJson),
    /// Take the password of a device away
    Revoke(RevokeArguments),
}

/// What else of the configuration counts comes from the file and the environment.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Configuration file (TOML), as for `serve`; the environment counts, too
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_CONFIG",
        hide_env_values = true
    )]
    config: Option<OsString>,
    /// Folder for what must last
    #[arg(
        long,
        value_name = "DIR",
        env = "POPGATE_STATE",
        hide_env_values = true
    )]
    state: Option<OsString>,
    /// File with the key that seals what accounts hold; POPGATE_ACCOUNTS_KEY may
    /// have the key itself
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_ACCOUNTS_KEY_FILE",
        hide_env_values = true
    )]
    accounts_key_file: Option<OsString>,
    /// Trust these certificates at servers that are no provider's, instead of the
    /// system's
    #[arg(
        long,
        value_name = "PEM",
        env = "POPGATE_CA_FILE",
        hide_env_values = true
    )]
    ca_file: Option<OsString>,
    /// text or json, of the log
    #[arg(
        long,
        value_name = "FORMAT",
        env = "POPGATE_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: Option<String>,
    /// As for `serve` [default: warn]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "POPGATE_LOG",
        hide_env_values = true
    )]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Json {
    /// JSON for programs, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Listing {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct One {
    #[command(flatten)]
    options: Options,
    /// The account
    address: String,
}

#[derive(Debug, Args)]
pub(super) struct OneWithJson {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    #[command(flatten)]
    one: One,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArguments {
    #[command(flatten)]
    one: One,
    /// The device, by its name or id
    device: String,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Device {
    /// What the device is called ["first device", then "device 2" and so on]
    #[arg(long, value_name = "NAME")]
    device_name: Option<String>,
    /// Ask for a password that somebody has chosen, instead of making one
    #[arg(long)]
    chosen: bool,
    /// File with the password that somebody has chosen (or POPGATE_NEW_PASSWORD)
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_NEW_PASSWORD_FILE",
        hide_env_values = true
    )]
    new_password_file: Option<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct SignInArguments {
    /// How to sign in where the provider can do both
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// File with the password of the mailbox at its server, like an app password
    /// (or POPGATE_PASSWORD)
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_PASSWORD_FILE",
        hide_env_values = true
    )]
    password_file: Option<OsString>,
    /// File with an API token of the mailbox (or POPGATE_API_TOKEN)
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_API_TOKEN_FILE",
        hide_env_values = true
    )]
    api_token_file: Option<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct AddArguments {
    #[command(flatten)]
    one: One,
    /// Where the mailbox is: the name of a [provider.NAME]; not needed where there is
    /// one, or where its domain names one
    #[arg(long, value_name = "NAME", conflicts_with = "upstream")]
    provider: Option<String>,
    /// Where the mailbox is: the URL of a server
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The user name there, where it is not the address
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The mailbox is shared: who has access to it, and signs in
    #[arg(long, value_name = "ADDRESS")]
    shared_by: Option<String>,
    /// An account without a mailbox, whose password opens all others
    #[arg(long, conflicts_with_all = ["provider", "upstream", "user", "shared_by"])]
    master: bool,
    /// What DELE and QUIT do, as `delete` in the configuration
    #[arg(long, value_name = "POLICY")]
    delete: Option<String>,
    /// When messages are marked as read, as `seen` in the configuration
    #[arg(long, value_name = "POLICY")]
    seen: Option<String>,
    /// A folder of the maildrop, as `folders` in the configuration; may be repeated
    #[arg(long, value_name = "FOLDER")]
    folder: Vec<String>,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    sign_in: SignInArguments,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct DeviceArguments {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    device: Device,
    /// File with the password of a device that the account has, needed where secrets
    /// open only with one (or POPGATE_DEVICE_PASSWORD)
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_DEVICE_PASSWORD_FILE",
        hide_env_values = true
    )]
    device_password_file: Option<OsString>,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct ReauthorizeArguments {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    sign_in: SignInArguments,
    #[command(flatten)]
    json: Json,
}

/// `matches` are those of `account`.
pub(super) fn invocation(
    given: AccountArguments,
    matches: &ArgMatches,
) -> Result<Invocation, Stop> {
    let missing = || {
        let kind = ErrorKind::MissingSubcommand;
        Stop(Cli::command().error(kind, "popgate account --help lists the commands"))
    };
    let (_, mut matches) = matches.subcommand().ok_or_else(missing)?;
    let (command, json) = match given {
        AccountArguments::Key => return Ok(Invocation::AccountKey),
        AccountArguments::Add(given) => {
            let json = given.json.json;
            (AccountCommand::Add(Box::new(added(*given, matches))), json)
        }
        AccountArguments::List(given) => (AccountCommand::List, given.json.json),
        AccountArguments::Rekey(given) => (AccountCommand::Rekey, given.json.json),
        AccountArguments::Show(OneWithJson { one, json }) => {
            let address = one.address;
            (AccountCommand::Show { address }, json.json)
        }
        AccountArguments::Disable(given) => (disable(given.one, true), given.json.json),
        AccountArguments::Enable(given) => (disable(given.one, false), given.json.json),
        AccountArguments::Remove(given) => {
            let (address, yes) = (given.one.address, given.yes);
            (AccountCommand::Remove { address, yes }, given.json.json)
        }
        AccountArguments::Password { command } => {
            (_, matches) = matches.subcommand().ok_or_else(missing)?;
            match command {
                PasswordArguments::Add(given) => {
                    let device = device(given.device, matches);
                    let address = given.one.address;
                    let command = AccountCommand::AddPassword { address, device };
                    (command, given.json.json)
                }
                PasswordArguments::List(OneWithJson { one, json }) => {
                    let address = one.address;
                    (AccountCommand::ListPasswords { address }, json.json)
                }
                PasswordArguments::Revoke(given) => {
                    let (address, device) = (given.one.address, given.device);
                    let command = AccountCommand::RevokePassword { address, device };
                    (command, given.json.json)
                }
            }
        }
        AccountArguments::Reauthorize(given) => {
            let address = given.one.address;
            let sign_in = sign_in(&given.sign_in, matches);
            let command = AccountCommand::Reauthorize { address, sign_in };
            (command, given.json.json)
        }
    };
    Ok(Invocation::Account {
        overrides: overrides(matches),
        command,
        json,
    })
}

fn disable(one: One, disabled: bool) -> AccountCommand {
    let address = one.address;
    AccountCommand::Disable { address, disabled }
}

fn added(given: AddArguments, matches: &ArgMatches) -> NewAccount {
    NewAccount {
        address: given.one.address,
        provider: given.provider,
        upstream: given.upstream,
        user: given.user,
        shared_by: given.shared_by,
        master: given.master,
        delete: given.delete,
        seen: given.seen,
        folders: given.folder,
        device: device(given.device, matches),
        sign_in: sign_in(&given.sign_in, matches),
    }
}

fn device(given: Device, matches: &ArgMatches) -> NewDevice {
    let chosen = PasswordSource::chosen(path(
        matches,
        "new_password_file",
        "--new-password-file",
        "POPGATE_NEW_PASSWORD_FILE",
    ));
    // `add` has no device yet.
    let known = matches.try_contains_id("device_password_file").is_ok();
    let existing = known.then(|| {
        path(
            matches,
            "device_password_file",
            "--device-password-file",
            "POPGATE_DEVICE_PASSWORD_FILE",
        )
    });
    NewDevice {
        name: given.device_name,
        chosen: (given.chosen || chosen.is_set()).then_some(chosen),
        existing: PasswordSource::of_device(existing.flatten()),
    }
}

fn sign_in(given: &SignInArguments, matches: &ArgMatches) -> SignIn {
    SignIn {
        method: given.method,
        password: super::password(matches),
        api_token: PasswordSource::api_token(path(
            matches,
            "api_token_file",
            "--api-token-file",
            "POPGATE_API_TOKEN_FILE",
        )),
    }
}

/// As for `serve`, as far as it has a meaning here.
fn overrides(matches: &ArgMatches) -> Overrides {
    Overrides {
        config: path(matches, "config", "--config", "POPGATE_CONFIG"),
        pop3: listed("POPGATE_POP3"),
        pop3s: listed("POPGATE_POP3S"),
        cert: variable("POPGATE_CERT").map(|it| it.with(PathBuf::from(&it.value))),
        key: variable("POPGATE_KEY").map(|it| it.with(PathBuf::from(&it.value))),
        allow_cleartext: variable("POPGATE_ALLOW_CLEARTEXT"),
        upstream: variable("POPGATE_UPSTREAM"),
        ca_file: path(matches, "ca_file", "--ca-file", "POPGATE_CA_FILE"),
        delete: variable("POPGATE_DELETE"),
        http: variable("POPGATE_HTTP"),
        state: path(matches, "state", "--state", "POPGATE_STATE"),
        log_format: text(matches, "log_format", "--log-format", "POPGATE_LOG_FORMAT"),
        log_level: text(matches, "log_level", "--log-level", "POPGATE_LOG"),
        accounts_key: secret("POPGATE_ACCOUNTS_KEY"),
        accounts_key_file: accounts_key_file(matches),
        accounts_key_credential: accounts_key_credential(),
        operator_password: None,
        operator_password_file: None,
    }
}

/// What only the environment says.
fn variable(name: &'static str) -> Option<Given<String>> {
    let value = env::var(name).ok().filter(|value| !value.is_empty())?;
    let origin = Origin::Environment(name);
    Some(Given { value, origin })
}

fn listed(name: &'static str) -> Vec<Given<String>> {
    let Some(given) = variable(name) else {
        return Vec::new();
    };
    let values = given.value.split(',');
    values.map(|value| given.with(value.to_owned())).collect()
}
