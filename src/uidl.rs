//! `popgate uidl`: carries unique ids over from an old POP3 server, and writes
//! down those that are served now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Arguments;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::{confirmed, somebody_is_there};
use crate::import::accounts::Account;
use crate::import::comparison::{self, Comparison, ComparisonError, Old};
use crate::import::file;
use crate::import::matching::Place;
use crate::import::pop3_client::{self, Session};
use crate::maildrop::{Policy, UniqueId, Window};
use crate::store::{Access, FolderKey, Freezing, Frozen, MessageKey, OpenError, StoreError};
use crate::upstream::UpstreamError;

mod arguments;
mod export;
mod mailboxes;
mod progress;
mod report;

pub use arguments::{SourceError, accounts, password};
pub use export::{ExportError, export};
pub use mailboxes::{Mailboxes, Shut, Wanted};
use progress::Meter;
use report::Report;

/// What `popgate uidl import` does.
pub struct Import {
    /// Where the old unique ids are.
    pub from: Source,
    /// Stop after the report.
    pub dry_run: bool,
    /// Nobody is asked.
    pub yes: bool,
    /// The report is JSON.
    pub json: bool,
    /// Sizes are not trusted.
    pub by_header: bool,
}

/// Where old unique ids are.
pub enum Source {
    /// At the old server.
    Server(pop3_client::Config),
    /// In a file.
    File(Vec<file::Row>),
}

/// Why an account's unique ids were not imported; none of them was.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Comparison(#[from] ComparisonError),
    #[error("{0}")]
    Shut(#[from] Shut),
    #[error("no password for the old server")]
    NoPassword,
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("store: {error}; {}", error.advice())]
    Open { error: OpenError },
    #[error("stopped, and nothing was frozen")]
    Stopped,
}

impl From<UpstreamError> for ImportError {
    fn from(error: UpstreamError) -> Self {
        Self::Comparison(error.into())
    }
}

/// Imports the unique ids of these accounts, one after the other, and reports on
/// each. Exit code 1 where one of them failed; the others are done.
pub async fn import(mailboxes: &Mailboxes, import: &Import, accounts: &[Account]) -> ExitCode {
    let mut failed = 0;
    let is_alone = accounts.len() == 1;
    for account in accounts {
        let user = account.user.as_str();
        match import.account(mailboxes, account, is_alone).await {
            Ok(report) if import.json => say(format_args!("{}", report.json(user))),
            Ok(report) if !is_alone => say(format_args!("{user}: {}", report.line())),
            // The report was shown before anything was frozen.
            Ok(report) => say(format_args!("{}", report.outcome())),
            Err(error) => {
                failed += 1;
                let error = error.to_string();
                if import.json {
                    say(format_args!("{}", report::failure(user, &error)));
                } else {
                    say(format_args!("{user}: FAILED: {error}"));
                }
            }
        }
    }
    if !is_alone && !import.json {
        let done = accounts.len() - failed;
        say(format_args!("{done} accounts done, {failed} failed"));
    }
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What is to be frozen.
type Plan = BTreeMap<FolderKey, Freezing>;

impl Import {
    async fn account(
        &self,
        mailboxes: &Mailboxes,
        account: &Account,
        is_alone: bool,
    ) -> Result<Report, ImportError> {
        let (comparison, keys) = self.compare(mailboxes, account).await?;
        let mut report = Report::new(&comparison, self.dry_run);
        report.new = keys.len();
        let access = mailboxes.open().await?;
        let plan = plan(&comparison, &keys, &access, &mut report).await?;
        drop(access);
        let may_ask = !(self.dry_run || self.yes || self.json);
        let asks = may_ask && report.leaves_doubts() && somebody_is_there();
        if !self.json && (is_alone || asks) {
            say(format_args!("{}", report.text(&account.user)));
        }
        if self.dry_run {
            return Ok(report);
        }
        if asks && !confirmed("Freeze the unique ids that matched? [y/N] ").await {
            return Err(ImportError::Stopped);
        }
        let access = mailboxes.open().await?;
        for (folder, ids) in plan {
            report.frozen += access.freeze(&folder, ids).await?;
        }
        Ok(report)
    }

    /// Reads both sides; nothing is written. Also says what the store knows each
    /// message of the new maildrop by.
    async fn compare(
        &self,
        mailboxes: &Mailboxes,
        account: &Account,
    ) -> Result<(Comparison, Vec<Option<Key>>), ImportError> {
        let door = mailboxes
            .door(&account.user, account.password.as_ref())
            .await?;
        // What lies outside a window today may be shown tomorrow.
        let policy = Policy {
            window: Window::default(),
            ..door.policy.clone().read_only()
        };
        let mut session = mailboxes.login(&door, policy).await?;
        let maildrop = session.snapshot().await?;
        let mut old = match &self.from {
            Source::Server(config) => {
                let from = account.from.as_ref().ok_or(ImportError::NoPassword)?;
                let session = Session::login(config, from).await;
                Old::Server(Box::new(session.map_err(ComparisonError::Old)?))
            }
            Source::File(rows) => Old::File(rows.clone()),
        };
        let meter = Meter::new();
        let compared = comparison::compare(
            &mut old,
            session.as_mut(),
            &maildrop,
            !self.by_header,
            &|stage, done, all| meter.tell(stage, done, all),
        )
        .await;
        meter.clear();
        old.close().await;
        let keys = (0..maildrop.len()).map(|place| session.kept_as(place));
        let keys = keys.collect();
        session.close().await;
        Ok((compared?, keys))
    }
}

/// What the store knows a message by.
type Key = (FolderKey, MessageKey);

impl Mailboxes {
    /// The store, for a moment: a popgate that starts meanwhile, or a backup,
    /// waits for no mailbox that is read.
    async fn open(&self) -> Result<Access, ImportError> {
        let state = self.state.clone();
        let opened = tokio::task::spawn_blocking(move || Access::open(&state)).await;
        let opened = opened.map_err(|_| ImportError::Stopped)?;
        opened.map_err(|error| ImportError::Open { error })
    }
}

/// Finds what is new in a comparison, and notes the rest in the report.
async fn plan(
    comparison: &Comparison,
    keys: &[Option<Key>],
    access: &Access,
    report: &mut Report,
) -> Result<Plan, StoreError> {
    let mut wanted: BTreeMap<&FolderKey, Vec<Frozen>> = BTreeMap::new();
    for pair in &comparison.matching.pairs {
        let listed = comparison.listed.get(pair.old).map(|it| &it.unique_id);
        let key = keys.get(pair.new).and_then(Option::as_ref);
        let (Some(Ok(unique_id)), Some((folder, message))) = (listed, key) else {
            continue;
        };
        wanted.entry(folder).or_default().push(Frozen {
            message: message.clone(),
            rank: rank(pair.old),
            unique_id: unique_id.clone(),
        });
    }
    // Where all folders are looked at together, one is as good as another.
    let first = keys.iter().flatten().map(|(folder, _)| folder).next();
    let mut unmatched = first.map(|folder| (folder, nobodys(comparison)));
    if let Some(folder) = first {
        wanted.entry(folder).or_default();
    }
    let here: HashSet<&Key> = keys.iter().flatten().collect();
    let mut plan = Plan::new();
    for (folder, ids) in wanted {
        let kept = access.folder(folder).await?;
        let holders = kept.frozen.iter();
        let holders: HashMap<&UniqueId, &MessageKey> =
            holders.map(|(message, (_, id))| (id, message)).collect();
        let mut new = Freezing::default();
        for id in ids {
            let holder = holders.get(&id.unique_id).copied();
            match kept.frozen.get(&id.message) {
                Some((_, unique_id)) if *unique_id == id.unique_id => report.already_frozen += 1,
                Some(_) => report.frozen_otherwise += 1,
                None => match holder {
                    Some(holder) if here.contains(&(folder.clone(), holder.clone())) => {
                        report.frozen_otherwise += 1;
                    }
                    // Of a message that is gone: UIDVALIDITY may have changed.
                    holder => {
                        new.released.extend(holder.cloned());
                        new.ids.push(id);
                    }
                },
            }
        }
        if let Some((_, unmatched)) = unmatched.take_if(|(first, _)| *first == folder) {
            let unknown = |id: &Frozen| !holders.contains_key(&id.unique_id);
            new.ids.extend(unmatched.into_iter().filter(unknown));
        }
        if !new.ids.is_empty() {
            plan.insert(folder.clone(), new);
        }
    }
    Ok(plan)
}

/// The old unique ids that no message has now. Clients may know them.
fn nobodys(comparison: &Comparison) -> Vec<Frozen> {
    let Comparison { listed, matching } = comparison;
    let places = matching.unmatched_old.iter().chain(&matching.ambiguous_old);
    let ids = places.filter_map(|place| listed.get(*place)?.unique_id.as_ref().ok());
    ids.cloned().map(Frozen::nobodys).collect()
}

fn rank(place: Place) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A line, for as long as anybody reads; after that the exit code has to do.
fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}
