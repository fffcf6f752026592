//! The command line. Other programs drive it: what is here stays.
//!
//! Nothing but its form is checked here; values are checked where those of the
//! configuration file are, with the same words.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Given, Origin, Overrides};
use crate::secret::Secret;

mod account;
mod confirmation;
mod password;
mod uidl;

pub use account::{AccountCommand, Method, NewAccount, NewDevice, SignIn};
pub use confirmation::{confirmed, somebody_is_there};
pub use password::{PasswordSource, read_pasted};
pub use uidl::{ImportAccounts, ImportFrom, UidlImport};

/// The configuration is wrong (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// What popgate was asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// `popgate serve`
    Serve(Overrides),
    /// `popgate check`
    Check {
        /// As for `serve`.
        overrides: Overrides,
        /// Who logs in; without, nobody does.
        user: Option<String>,
        /// Where the password comes from.
        password: PasswordSource,
    },
    /// `popgate state export`
    StateExport {
        /// Where the state folder is.
        overrides: Overrides,
        /// `None` for the standard output.
        to: Option<PathBuf>,
    },
    /// `popgate state import`
    StateImport {
        /// Where the state folder is.
        overrides: Overrides,
        /// `None` for the standard input.
        from: Option<PathBuf>,
        /// Whatever is there.
        replace: bool,
    },
    /// `popgate uidl import`
    UidlImport {
        /// As for `serve`.
        overrides: Overrides,
        /// What else was said.
        import: Box<UidlImport>,
    },
    /// `popgate account`
    Account {
        /// As for `serve`.
        overrides: Overrides,
        /// What to do.
        command: AccountCommand,
        /// Answers are JSON.
        json: bool,
    },
    /// `popgate account key`
    AccountKey,
    /// `popgate uidl export`
    UidlExport {
        /// As for `serve`.
        overrides: Overrides,
        /// Whose unique ids.
        user: String,
        /// Where the password comes from.
        password: PasswordSource,
        /// `None` for the standard output.
        to: Option<PathBuf>,
    },
}

/// The arguments ask for nothing that can be done: help, or an error.
#[derive(Debug)]
pub struct Stop(clap::Error);

#[derive(Debug, Parser)]
#[command(name = "popgate", version, about, disable_help_subcommand = true)]
#[command(
    after_help = "Exit status: 0 after SIGTERM or SIGINT, drained; 78 if the configuration is wrong; 1 otherwise."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve POP3 until SIGTERM or SIGINT; SIGHUP reads the certificate again
    Serve(Options),
    /// Look at the upstream step by step, and say what to do where it fails
    Check {
        #[command(flatten)]
        options: Options,
        /// Also log in as USER, with the password in POPGATE_PASSWORD, in a
        /// file, or typed at the prompt
        user: Option<String>,
        #[command(flatten)]
        password: PasswordFile,
    },
    /// Back up what must last, and restore it
    State {
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Accounts of popgate's own: passwords for devices, tokens for providers
    Account {
        #[command(subcommand)]
        command: account::AccountArguments,
    },
    /// Carry unique ids over from an old server, or to another one
    Uidl {
        #[command(subcommand)]
        command: uidl::UidlCommand,
    },
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Write a backup, while popgate runs or not
    Export {
        #[command(flatten)]
        options: StateOptions,
        /// Where to; the standard output by default, or with -
        file: Option<PathBuf>,
    },
    /// Restore a backup; popgate must not run
    Import {
        #[command(flatten)]
        options: StateOptions,
        /// Replace what is there, be it damaged; it is kept beside, as
        /// durable.redb.before-import (or -import-2 and so on)
        #[arg(long)]
        replace: bool,
        /// The backup; - is the standard input
        file: PathBuf,
    },
}

/// Where the password of a user comes from, who is named beside.
#[derive(Debug, Args)]
struct PasswordFile {
    /// File with USER's password
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_PASSWORD_FILE",
        hide_env_values = true
    )]
    password_file: Option<OsString>,
}

/// All that a command needs which works on the state folder alone.
#[derive(Debug, Args)]
struct StateOptions {
    /// Configuration file (TOML), of which `state` counts
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
}

// Read through `ArgMatches`, which also tell where a value came from.
#[derive(Debug, Args)]
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "brackets in a help text are what may be left out"
)]
struct Options {
    /// Configuration file (TOML); flags and environment come before it
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_CONFIG",
        hide_env_values = true
    )]
    config: Option<OsString>,
    /// Listen for POP3, with STLS where there is a certificate: IP:PORT, or
    /// PORT for all interfaces; may be repeated
    #[arg(long, value_name = "ADDR", env = "POPGATE_POP3", hide_env_values = true, action = ArgAction::Append)]
    pop3: Vec<String>,
    /// Listen for POP3 over TLS; may be repeated
    #[arg(long, value_name = "ADDR", env = "POPGATE_POP3S", hide_env_values = true, action = ArgAction::Append)]
    pop3s: Vec<String>,
    /// Certificate chain; without one, --pop3s makes its own for trying out
    #[arg(long, value_name = "PEM", env = "POPGATE_CERT", hide_env_values = true)]
    cert: Option<OsString>,
    /// The certificate's key
    #[arg(long, value_name = "PEM", env = "POPGATE_KEY", hide_env_values = true)]
    key: Option<OsString>,
    /// Accept logins without TLS: for loopback and trusted networks
    #[arg(
        long,
        value_name = "BOOL",
        env = "POPGATE_ALLOW_CLEARTEXT",
        hide_env_values = true
    )]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_cleartext: Option<String>,
    /// Where the mailboxes are: imaps://host[:993],
    /// imap+starttls://host[:143] or imap+plain://host[:143] for IMAP,
    /// https://host/path or jmap://host for JMAP
    #[arg(
        long,
        value_name = "URL",
        env = "POPGATE_UPSTREAM",
        hide_env_values = true
    )]
    upstream: Option<String>,
    /// Trust these certificates upstream, instead of the system's
    #[arg(
        long,
        value_name = "PEM",
        env = "POPGATE_CA_FILE",
        hide_env_values = true
    )]
    ca_file: Option<OsString>,
    /// What DELE and QUIT do: trash, expunge, archive, move:FOLDER, seen, hide
    /// or refuse [default: trash where the upstream has a Trash, else expunge]
    #[arg(
        long,
        value_name = "POLICY",
        env = "POPGATE_DELETE",
        hide_env_values = true
    )]
    delete: Option<String>,
    /// Serve /metrics, /live, /ready and what sets mail clients up: IP:PORT, or
    /// PORT for loopback
    #[arg(
        long,
        value_name = "ADDR",
        env = "POPGATE_HTTP",
        hide_env_values = true
    )]
    http: Option<String>,
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
    /// File with the password of the operator's page; POPGATE_OPERATOR_PASSWORD may
    /// have the password itself
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_OPERATOR_PASSWORD_FILE",
        hide_env_values = true
    )]
    operator_password_file: Option<OsString>,
    /// text or json
    #[arg(
        long,
        value_name = "FORMAT",
        env = "POPGATE_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: Option<String>,
    /// off, error, warn, info, debug, trace, or levels by module
    #[arg(
        long,
        value_name = "LEVEL",
        env = "POPGATE_LOG",
        hide_env_values = true
    )]
    log_level: Option<String>,
}

/// Reads the arguments, with the environment where they are silent. An empty
/// environment variable is one that is not set.
pub fn parse<I>(arguments: I) -> Result<Invocation, Stop>
where
    I: IntoIterator<Item = OsString>,
{
    let matches = Cli::command()
        .try_get_matches_from(arguments)
        .map_err(Stop)?;
    let cli = Cli::from_arg_matches(&matches).map_err(Stop)?;
    let Some((_, matches)) = matches.subcommand() else {
        // clap insists on a subcommand.
        return Err(Stop(clap::Error::new(
            clap::error::ErrorKind::MissingSubcommand,
        )));
    };
    Ok(match cli.command {
        Command::Serve(_) => Invocation::Serve(overrides(matches)),
        Command::State { command } => {
            let overrides = matches
                .subcommand()
                .map(|(_, matches)| state_overrides(matches))
                .unwrap_or_default();
            match command {
                StateCommand::Export { file, .. } => Invocation::StateExport {
                    overrides,
                    to: file.and_then(or_standard),
                },
                StateCommand::Import { file, replace, .. } => Invocation::StateImport {
                    overrides,
                    from: or_standard(file),
                    replace,
                },
            }
        }
        Command::Account { command } => account::invocation(command, matches)?,
        Command::Uidl { command } => uidl::invocation(command, matches)?,
        Command::Check { user, .. } => Invocation::Check {
            overrides: overrides(matches),
            user,
            password: password(matches),
        },
    })
}

impl Stop {
    /// Prints help, or what is wrong, and says how to exit.
    pub fn print(&self) -> ExitCode {
        if !self.0.use_stderr() {
            // Nobody is there to read it: nothing else can be done.
            let _ = self.0.print();
            return ExitCode::SUCCESS;
        }
        let text = self.0.render().to_string();
        // As above.
        let _ = match text.strip_prefix("error: ") {
            Some(error) => write!(io::stderr(), "popgate: {error}"),
            None => write!(io::stderr(), "{text}"),
        };
        ExitCode::from(EXIT_CONFIG)
    }
}

fn overrides(matches: &ArgMatches) -> Overrides {
    Overrides {
        config: path(matches, "config", "--config", "POPGATE_CONFIG"),
        pop3: texts(matches, "pop3", "--pop3", "POPGATE_POP3"),
        pop3s: texts(matches, "pop3s", "--pop3s", "POPGATE_POP3S"),
        cert: path(matches, "cert", "--cert", "POPGATE_CERT"),
        key: path(matches, "key", "--key", "POPGATE_KEY"),
        allow_cleartext: text(
            matches,
            "allow_cleartext",
            "--allow-cleartext",
            "POPGATE_ALLOW_CLEARTEXT",
        ),
        upstream: text(matches, "upstream", "--upstream", "POPGATE_UPSTREAM"),
        ca_file: path(matches, "ca_file", "--ca-file", "POPGATE_CA_FILE"),
        delete: text(matches, "delete", "--delete", "POPGATE_DELETE"),
        http: text(matches, "http", "--http", "POPGATE_HTTP"),
        state: path(matches, "state", "--state", "POPGATE_STATE"),
        log_format: text(matches, "log_format", "--log-format", "POPGATE_LOG_FORMAT"),
        log_level: text(matches, "log_level", "--log-level", "POPGATE_LOG"),
        accounts_key: secret("POPGATE_ACCOUNTS_KEY"),
        accounts_key_file: accounts_key_file(matches),
        accounts_key_credential: accounts_key_credential(),
        operator_password: secret("POPGATE_OPERATOR_PASSWORD"),
        operator_password_file: path(
            matches,
            "operator_password_file",
            "--operator-password-file",
            "POPGATE_OPERATOR_PASSWORD_FILE",
        ),
    }
}

fn accounts_key_file(matches: &ArgMatches) -> Option<Given<PathBuf>> {
    path(
        matches,
        "accounts_key_file",
        "--accounts-key-file",
        "POPGATE_ACCOUNTS_KEY_FILE",
    )
}

/// What systemd's LoadCredential= gives, where it does.
fn accounts_key_credential() -> Option<Given<PathBuf>> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").filter(|it| !it.is_empty())?;
    let value = PathBuf::from(folder).join("popgate-accounts-key");
    let origin = Origin::Environment("CREDENTIALS_DIRECTORY");
    value.exists().then_some(Given { value, origin })
}

/// A secret that stands in a variable itself. No flag has one: arguments are seen
/// by every user of the machine.
fn secret(variable: &'static str) -> Option<Given<Secret>> {
    let value = env::var(variable).ok().filter(|value| !value.is_empty())?;
    Some(Given {
        value: Secret::new(value),
        origin: Origin::Environment(variable),
    })
}

fn state_overrides(matches: &ArgMatches) -> Overrides {
    Overrides {
        config: path(matches, "config", "--config", "POPGATE_CONFIG"),
        state: path(matches, "state", "--state", "POPGATE_STATE"),
        ..Overrides::default()
    }
}

/// What [`PasswordFile`] says.
fn password(matches: &ArgMatches) -> PasswordSource {
    PasswordSource::new(path(
        matches,
        "password_file",
        "--password-file",
        "POPGATE_PASSWORD_FILE",
    ))
}

/// The file, unless it is `-`, which stands for the standard input or output.
fn or_standard(file: PathBuf) -> Option<PathBuf> {
    (file.as_os_str() != "-").then_some(file)
}

/// Where the value of `id` came from, if it has one that counts.
fn origin(
    matches: &ArgMatches,
    id: &str,
    flag: &'static str,
    variable: &'static str,
) -> Option<Origin> {
    let is_empty = |mut values: clap::parser::RawValues<'_>| values.all(|value| value.is_empty());
    match matches.value_source(id)? {
        ValueSource::EnvVariable if matches.get_raw(id).is_none_or(is_empty) => None,
        ValueSource::EnvVariable => Some(Origin::Environment(variable)),
        _ => Some(Origin::Flag(flag)),
    }
}

fn text(
    matches: &ArgMatches,
    id: &str,
    flag: &'static str,
    variable: &'static str,
) -> Option<Given<String>> {
    let origin = origin(matches, id, flag, variable)?;
    let value = matches.get_one::<String>(id)?.clone();
    Some(Given { value, origin })
}

fn path(
    matches: &ArgMatches,
    id: &str,
    flag: &'static str,
    variable: &'static str,
) -> Option<Given<PathBuf>> {
    let origin = origin(matches, id, flag, variable)?;
    let value = PathBuf::from(matches.get_one::<OsString>(id)?);
    Some(Given { value, origin })
}

/// Several values, or one with commas, as an environment variable must have.
fn texts(
    matches: &ArgMatches,
    id: &str,
    flag: &'static str,
    variable: &'static str,
) -> Vec<Given<String>> {
    let Some(origin) = origin(matches, id, flag, variable) else {
        return Vec::new();
    };
    let values = matches.get_many::<String>(id).into_iter().flatten();
    values
        .flat_map(|value| value.split(','))
        .map(|value| Given {
            value: value.to_owned(),
            origin: origin.clone(),
        })
        .collect()
}
