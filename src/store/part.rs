//! One database file of the store: opened with a check, closed after an error,
//! opened again when it is next used.

use std::fmt::{self, Display};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, WriteTransaction,
};

use super::held_file::{HeldFile, Octets};
use super::marker::{Mark, StoreId};
use super::{OpenError, StoreError};

/// The version of the tables, in both parts.
pub(super) const VERSION: u64 = 1;

/// Enough for what is read at once; redb's own default is 1 GiB.
const CACHE_OCTETS: usize = 16 << 20;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Gives a file's octets.
pub(super) type Opener = Arc<dyn Fn(&Path) -> io::Result<Octets> + Send + Sync>;

/// The real one.
pub(super) fn files() -> Opener {
    Arc::new(|path| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    })
}

/// Opens a part, whenever it is needed.
type Reopen = Box<dyn Fn() -> std::result::Result<Open, OpenError> + Send + Sync>;

pub(super) struct Part {
    path: PathBuf,
    reopen: Reopen,
    state: RwLock<State>,
}

enum State {
    Open(Open),
    /// To be opened when it is next used.
    Closed,
    /// It will not get better by itself.
    Broken(OpenError),
}

/// A database that was found whole.
pub(super) struct Open {
    database: Database,
    file: HeldFile,
    mark: Mark,
}

/// A transaction's own error, whatever redb calls it.
pub(super) type Result<T> = std::result::Result<T, redb::Error>;

impl Part {
    /// A new part with nothing in it, there as a whole or not at all.
    pub(super) fn create(
        path: &Path,
        mark: Mark,
        tables: fn(&WriteTransaction) -> Result<()>,
    ) -> std::result::Result<(), OpenError> {
        let new = path.with_extension("redb.new");
        Self::create_at(&new, mark, tables)?;
        put(&new, path).map_err(|error| OpenError::io(path, &error))
    }

    /// Makes a database at `path`, filled by `fill`, and makes it durable.
    pub(super) fn create_at(
        path: &Path,
        mark: Mark,
        fill: impl FnOnce(&WriteTransaction) -> Result<()>,
    ) -> std::result::Result<(), OpenError> {
        let io = |error: io::Error| OpenError::io(path, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        give_to_owner_of_folder(&file, path).map_err(io)?;
        let handle = file.try_clone().map_err(io)?;
        let backend = FileBackend::new(file).map_err(|error| open_error(path, error))?;
        let made = guarded(|| {
            let database = builder().create_with_backend(backend)?;
            let transaction = database.begin_write()?;
            {
                let mut meta = transaction.open_table(META)?;
                meta.insert("version", VERSION.to_be_bytes().as_slice())?;
                meta.insert("id", mark.id.as_slice())?;
                meta.insert("generation", mark.generation.to_be_bytes().as_slice())?;
            }
            fill(&transaction)?;
            transaction.commit()?;
            database.close()?;
            Ok(())
        });
        made.map_err(|fault| fault.open_error(path))?;
        handle.sync_all().map_err(io)
    }

    /// A part that `reopen` opens when it is used.
    pub(super) fn new(
        path: &Path,
        reopen: impl Fn() -> std::result::Result<Open, OpenError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            path: path.to_owned(),
            reopen: Box::new(reopen),
            state: RwLock::new(State::Closed),
        }
    }

    /// Opens it now, to see whether it can be used, and says what it is.
    pub(super) fn open(&self) -> std::result::Result<Mark, OpenError> {
        let open = (self.reopen)()?;
        let mark = open.mark;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Open(open);
        Ok(mark)
    }

    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T>,
    ) -> std::result::Result<T, StoreError> {
        self.with(|open| {
            let transaction = open.database.begin_read()?;
            read(&transaction)
        })
    }

    /// All of `write` or nothing. Gives the mark that came of it.
    pub(super) fn write<T>(
        &self,
        durability: Durability,
        write: impl FnOnce(&WriteTransaction) -> Result<T>,
    ) -> std::result::Result<(T, Mark), StoreError> {
        self.with(|open| {
            open.file.release()?;
            let mut transaction = open.database.begin_write()?;
            transaction.set_durability(durability)?;
            let outcome = write(&transaction)?;
            let mut mark = open.mark;
            {
                let mut meta = transaction.open_table(META)?;
                mark.generation = number(&meta.get("generation")?)
                    .unwrap_or_default()
                    .saturating_add(1);
                meta.insert("generation", mark.generation.to_be_bytes().as_slice())?;
            }
            transaction.commit()?;
            Ok((outcome, mark))
        })
    }

    /// Makes durable what is not yet, and closes the file.
    pub(super) fn close(&self) {
        let state = std::mem::replace(
            &mut *self.state.write().unwrap_or_else(PoisonError::into_inner),
            State::Closed,
        );
        state.discard();
    }

    /// After any error the file is closed, and what was in memory forgotten: redb
    /// uses no file again that failed once, and a panic leaves anything behind.
    fn with<T>(&self, act: impl FnOnce(&Open) -> Result<T>) -> std::result::Result<T, StoreError> {
        self.reopen()?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let fault = match &*state {
            State::Open(open) => match guarded(|| act(open)) {
                Ok(outcome) => return Ok(outcome),
                Err(fault) => fault,
            },
            State::Closed => return Err(StoreError::failed(&self.path, "it was closed meanwhile")),
            State::Broken(error) => return Err(StoreError::Unusable(error.clone())),
        };
        drop(state);
        self.close();
        Err(StoreError::failed(&self.path, &fault))
    }

    fn reopen(&self) -> std::result::Result<(), StoreError> {
        let closed = |state: &State| matches!(state, State::Closed);
        if !closed(&self.state.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !closed(&state) {
            return Ok(());
        }
        match (self.reopen)() {
            Ok(open) => *state = State::Open(open),
            Err(error @ (OpenError::Io { .. } | OpenError::InUse { .. })) => {
                return Err(StoreError::Unusable(error));
            }
            Err(error) => {
                tracing::error!("{error}; {}", error.advice());
                *state = State::Broken(error);
            }
        }
        Ok(())
    }
}

impl State {
    /// Closing a database that failed may fail, or panic.
    fn discard(self) {
        let closed = guarded(|| {
            drop(self);
            Ok(())
        });
        if let Err(fault) = closed {
            tracing::debug!(%fault, "closing a database");
        }
    }
}

impl Open {
    /// Checks the whole file at `path`, and that it is no older than `at_least`. Nothing is
    /// written to it.
    pub(super) fn new(
        path: &Path,
        opener: &Opener,
        at_least: Option<Mark>,
    ) -> std::result::Result<Self, OpenError> {
        let io = |error: io::Error| OpenError::io(path, &error);
        let damaged = |problem: &str| OpenError::Damaged {
            file: path.to_owned(),
            problem: problem.to_owned(),
        };
        let file = opener(path).and_then(HeldFile::new).map_err(io)?;
        if redb::StorageBackend::len(&file).map_err(io)? == 0 {
            return Err(damaged("it is empty"));
        }
        let opened = guarded(|| {
            let database = builder().create_with_backend(file.clone())?;
            let meta = meta(&database)?;
            Ok((database, meta))
        });
        let (database, meta) = opened.map_err(|fault| fault.open_error(path))?;
        let refuse = |error: OpenError, database: Database| {
            let fate = guarded(|| Ok(database.close()?));
            if let Err(fault) = fate {
                tracing::debug!(%fault, "closing a database");
            }
            Err(error)
        };
        let Some((version, mark)) = meta else {
            return refuse(damaged("it is not a store of popgate"), database);
        };
        if version > VERSION {
            let error = OpenError::Version {
                file: path.to_owned(),
                found: version,
            };
            return refuse(error, database);
        }
        if let Some(least) = at_least {
            if least.id != mark.id {
                let problem = "it belongs to another store than this folder";
                return refuse(damaged(problem), database);
            }
            if mark.generation < least.generation {
                let problem = "it is older than what was stored last";
                return refuse(damaged(problem), database);
            }
        }
        Ok(Self {
            database,
            file,
            mark,
        })
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_OCTETS)
        .set_check_integrity_on_open(true);
    builder
}

/// What a database says of itself, if it is one of popgate's.
fn meta(database: &Database) -> Result<Option<(u64, Mark)>> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let version = number(&meta.get("version")?);
    let generation = number(&meta.get("generation")?);
    let id = meta
        .get("id")?
        .and_then(|value| StoreId::try_from(value.value()).ok());
    let (Some(version), Some(generation), Some(id)) = (version, generation, id) else {
        return Ok(None);
    };
    Ok(Some((version, Mark { id, generation })))
}

fn number(value: &Option<redb::AccessGuard<'_, &[u8]>>) -> Option<u64> {
    Some(u64::from_be_bytes(value.as_ref()?.value().try_into().ok()?))
}

/// Why redb could not.
enum Fault {
    Error(redb::Error),
    Panic,
}

/// redb may panic on a damaged file; that ends one operation, not the process.
fn guarded<T>(act: impl FnOnce() -> Result<T>) -> std::result::Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(outcome) => outcome.map_err(Fault::Error),
        Err(_) => Err(Fault::Panic),
    }
}

impl Fault {
    /// What it means for a file that was just opened.
    fn open_error(&self, path: &Path) -> OpenError {
        match self {
            Self::Error(redb::Error::Io(error))
                if !matches!(
                    error.kind(),
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
                ) =>
            {
                OpenError::io(path, error)
            }
            Self::Error(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse {
                folder: path.parent().unwrap_or(path).to_owned(),
            },
            fault => OpenError::Damaged {
                file: path.to_owned(),
                problem: fault.to_string(),
            },
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(redb::Error::Io(error)) => write!(f, "{error}"),
            Self::Error(error) => write!(f, "{error}"),
            Self::Panic => f.write_str("its structure is broken"),
        }
    }
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) => OpenError::io(path, &error),
        error => OpenError::Damaged {
            file: path.to_owned(),
            problem: error.to_string(),
        },
    }
}

/// What root makes for another user's popgate is that user's.
pub(super) fn give_to_owner_of_folder(file: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let folder = fs::metadata(path.parent().unwrap_or(path))?;
    fchown(file, Some(folder.uid()), Some(folder.gid()))
}

/// Gives a finished file its name, for good.
pub(super) fn put(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
