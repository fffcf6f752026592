//! The arguments of `popgate uidl`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, Subcommand};

use super::{
    Cli, Invocation, Options, PasswordFile, PasswordSource, Stop, or_standard, overrides, password,
    path, text,
};
use crate::config::Given;

/// What `popgate uidl import` was asked to do.
#[derive(Debug)]
pub struct UidlImport {
    /// Where the old unique ids are.
    pub from: ImportFrom,
    /// Whose they are.
    pub accounts: ImportAccounts,
    /// Only the report.
    pub dry_run: bool,
    /// Nobody is asked.
    pub yes: bool,
    /// The report is JSON.
    pub json: bool,
    /// Sizes are not trusted.
    pub by_header: bool,
}

/// Where old unique ids are.
#[derive(Debug)]
pub enum ImportFrom {
    /// At the old server.
    Server {
        /// Its URL.
        url: Given<String>,
        /// Whom its certificate must come from.
        ca_file: Option<Given<PathBuf>>,
    },
    /// In a file of `popgate uidl export`; `None` is the standard input.
    File(Option<PathBuf>),
}

/// Whose unique ids are imported.
#[derive(Debug)]
pub enum ImportAccounts {
    /// Those of one user.
    One {
        /// At the upstream.
        user: String,
        /// The same.
        password: PasswordSource,
        /// At the old server, where it is another one.
        from_user: Option<String>,
        /// At the old server, where it is another one.
        from_password: Box<PasswordSource>,
    },
    /// Those in a CSV file.
    Many(Given<PathBuf>),
}

#[derive(Debug, Subcommand)]
pub(super) enum UidlCommand {
    /// Keep the unique ids that an old POP3 server handed out, so that no client
    /// downloads again what it has; writes to neither mailbox
    Import(Box<ImportArguments>),
    /// Write the unique ids of a user's maildrop to a file that `import` reads
    Export(Box<ExportArguments>),
}

#[derive(Debug, Args)]
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "brackets in a help text are what may be left out"
)]
pub(super) struct ImportArguments {
    #[command(flatten)]
    options: Options,
    /// The old server: pop3s://host[:995], pop3+stls://host[:110] or
    /// pop3+plain://host[:110]
    #[arg(long, value_name = "URL", env = "POPGATE_FROM", hide_env_values = true)]
    from: Option<String>,
    /// Read a file of `popgate uidl export` instead; - is the standard input
    #[arg(long, value_name = "FILE", conflicts_with = "accounts")]
    from_file: Option<PathBuf>,
    /// Trust these certificates at the old server, instead of the system's
    #[arg(
        long,
        value_name = "PEM",
        env = "POPGATE_FROM_CA_FILE",
        hide_env_values = true
    )]
    from_ca_file: Option<OsString>,
    /// Whose unique ids; the password is in POPGATE_PASSWORD, in a file, or typed
    /// at the prompt. Where the user has an account, none is needed
    #[arg(
        long,
        value_name = "USER",
        conflicts_with = "accounts",
        required_unless_present = "accounts"
    )]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordFile,
    /// The user's name at the old server, where it is another one
    #[arg(long, value_name = "USER", conflicts_with = "accounts")]
    from_user: Option<String>,
    /// File with the password for the old server, where it is another one (or
    /// POPGATE_FROM_PASSWORD)
    #[arg(
        long,
        value_name = "FILE",
        env = "POPGATE_FROM_PASSWORD_FILE",
        hide_env_values = true
    )]
    from_password_file: Option<OsString>,
    /// Import many accounts, one after the other: a CSV file with the columns
    /// user,password and, where they are others, from_user,from_password. The
    /// password may be empty where the user has an account
    #[arg(long, value_name = "CSV")]
    accounts: Option<OsString>,
    /// Compare every header: trust no size
    #[arg(long)]
    by_header: bool,
    /// Stop after the report
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, whatever the report says
    #[arg(long)]
    yes: bool,
    /// Report in JSON, one line an account; asks nothing
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    options: Options,
    /// Whose unique ids; the password is in POPGATE_PASSWORD, in a file, or typed
    /// at the prompt. Where the user has an account, none is needed
    #[arg(long, value_name = "USER")]
    user: String,
    #[command(flatten)]
    password: PasswordFile,
    /// Where to; the standard output by default, or with -
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `matches` are those of `uidl`.
pub(super) fn invocation(command: UidlCommand, matches: &ArgMatches) -> Result<Invocation, Stop> {
    let missing = |what: &str| {
        let kind = ErrorKind::MissingRequiredArgument;
        Stop(Cli::command().error(kind, what))
    };
    let Some((_, matches)) = matches.subcommand() else {
        return Err(missing("import or export"));
    };
    let password = password(matches);
    let overrides = overrides(matches);
    let given = match command {
        UidlCommand::Export(given) => {
            return Ok(Invocation::UidlExport {
                overrides,
                user: given.user,
                password,
                to: given.output.and_then(or_standard),
            });
        }
        UidlCommand::Import(given) => given,
    };
    let from = match (
        given.from_file,
        text(matches, "from", "--from", "POPGATE_FROM"),
    ) {
        (Some(file), _) => ImportFrom::File(or_standard(file)),
        (None, Some(url)) => ImportFrom::Server {
            url,
            ca_file: path(
                matches,
                "from_ca_file",
                "--from-ca-file",
                "POPGATE_FROM_CA_FILE",
            ),
        },
        (None, None) => {
            return Err(missing(
                "the old server (--from, POPGATE_FROM) or a file of its unique ids (--from-file) is needed",
            ));
        }
    };
    let accounts = match (path(matches, "accounts", "--accounts", ""), given.user) {
        (Some(file), _) => ImportAccounts::Many(file),
        (None, Some(user)) => ImportAccounts::One {
            user,
            password,
            from_user: given.from_user,
            from_password: Box::new(PasswordSource::for_old_server(path(
                matches,
                "from_password_file",
                "--from-password-file",
                "POPGATE_FROM_PASSWORD_FILE",
            ))),
        },
        (None, None) => return Err(missing("--user or --accounts is needed")),
    };
    Ok(Invocation::UidlImport {
        overrides,
        import: Box::new(UidlImport {
            from,
            accounts,
            dry_run: given.dry_run,
            yes: given.yes,
            json: given.json,
            by_header: given.by_header,
        }),
    })
}
