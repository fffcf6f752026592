//! `popgate state`: backups of what must last, and the way back from them.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::store::{self, Access, BackupError, Counts, OpenError, StoreError};

/// Why there is no backup, or none was restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder has nothing to back up.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be opened.
    #[error("{error}; {}", error.advice())]
    Open {
        /// Why not.
        error: OpenError,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another popgate has the store.
    #[error("{0}: stop it first")]
    Running(OpenError),
    /// The backup cannot be restored.
    #[error("nothing was restored: {0}")]
    Restore(BackupError),
    /// A file cannot be written or read.
    #[error("{file}: {error}")]
    File {
        /// Its name.
        file: String,
        /// Why not.
        error: io::Error,
    },
}

/// Writes a backup of the store in `folder` to a file, there as a whole or not
/// at all, or to the standard output.
pub async fn export(folder: &Path, to: Option<PathBuf>) -> Result<(), StateError> {
    if !store::exists(folder) {
        return Err(StateError::NoStore(folder.to_owned()));
    }
    let access = Access::open(folder).map_err(|error| StateError::Open { error })?;
    let (backup, counts) = access.export().await?;
    drop(access);
    match &to {
        None => io::stdout()
            .write_all(&backup)
            .and_then(|()| io::stdout().flush())
            .map_err(|error| file_error(Path::new("the standard output"), error))?,
        Some(path) => store::write_whole(path, |out| out.write_all(&backup))
            .map_err(|error| file_error(path, error))?,
    }
    say("exported", counts);
    Ok(())
}

/// Restores a backup into `folder`.
pub fn import(folder: &Path, from: Option<PathBuf>, replace: bool) -> Result<(), StateError> {
    let restored = match &from {
        None => store::restore(folder, &mut io::stdin().lock(), replace),
        Some(path) => {
            let file = File::open(path).map_err(|error| file_error(path, error))?;
            store::restore(folder, &mut BufReader::new(file), replace)
        }
    };
    let counts = restored.map_err(|error| match error {
        BackupError::Store(error @ OpenError::InUse { .. }) => StateError::Running(error),
        error => StateError::Restore(error),
    })?;
    say("imported", counts);
    Ok(())
}

fn file_error(path: &Path, error: io::Error) -> StateError {
    StateError::File {
        file: path.display().to_string(),
        error,
    }
}

/// On the standard error, as the backup may be on the standard output.
fn say(done: &str, counts: Counts) {
    // Where nobody reads it, the exit code has to do.
    let _ = writeln!(
        io::stderr(),
        "{done}: {} hidden messages, {} frozen unique ids, {} accounts",
        counts.hidden,
        counts.frozen,
        counts.accounts
    );
}
