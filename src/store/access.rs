//! The store for a command: its own, or that of the popgate which runs.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::control::{self, Answer, Folder, Id, PATIENCE, Request};
use super::{Counts, FolderKey, Freezing, Kept, OpenError, Store, StoreError, backup};

/// A process that starts or stops has the store, and does not answer yet or no
/// longer.
const STARTING: Duration = Duration::from_secs(5);

/// The way of a command to the store.
#[derive(Clone, Debug)]
pub enum Access {
    /// The store itself.
    Local(Store),
    /// The control socket of the process that has it.
    Remote(PathBuf),
    /// Either, whichever it is at each call: for whoever waits for people, and keeps
    /// nobody from the store meanwhile. The state folder.
    Brief(PathBuf),
}

/// The way at this moment.
pub(super) enum Reached {
    Local(Store),
    /// A connection to the process that has the store: it does not go before it has
    /// answered.
    Remote(UnixStream),
}

impl Reached {
    fn find(folder: &Path) -> Result<Self, OpenError> {
        let socket = folder.join(control::FILE);
        let began = Instant::now();
        loop {
            let in_use = match Store::open(folder) {
                Err(error @ OpenError::InUse { .. }) => error,
                outcome => return outcome.map(Self::Local),
            };
            match UnixStream::connect(&socket) {
                Ok(stream) => return Ok(Self::Remote(stream)),
                Err(_) if began.elapsed() < STARTING => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(_) => return Err(in_use),
            }
        }
    }
}

impl Access {
    /// Opens the store in `folder`, or reaches the popgate that has it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Ok(match Reached::find(folder)? {
            Reached::Local(store) => Self::Local(store),
            Reached::Remote(_) => Self::Remote(folder.join(control::FILE)),
        })
    }

    /// Opens the store in `folder`, for a process that serves it. A command that
    /// has it now is waited for; another server is not.
    pub fn open_own(folder: &Path) -> Result<Store, OpenError> {
        match Self::open(folder)? {
            Self::Local(store) => Ok(store),
            Self::Remote(_) | Self::Brief(_) => Err(OpenError::InUse {
                folder: folder.to_owned(),
            }),
        }
    }

    pub(super) async fn reached(&self) -> Result<Reached, StoreError> {
        let task = match self.clone() {
            Self::Local(store) => return Ok(Reached::Local(store)),
            Self::Remote(socket) => tokio::task::spawn_blocking(move || {
                UnixStream::connect(socket)
                    .map(Reached::Remote)
                    .map_err(remote)
            }),
            Self::Brief(folder) => tokio::task::spawn_blocking(move || {
                Reached::find(&folder).map_err(StoreError::Unusable)
            }),
        };
        task.await.map_err(remote)?
    }

    /// As [`Store::folder`].
    pub async fn folder(&self, folder: &FolderKey) -> Result<Kept, StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.folder(folder).await,
            Reached::Remote(socket) => {
                let request = Request::Folder {
                    account: folder.account.clone(),
                    folder: folder.folder.clone(),
                };
                let answer: Folder = ask(socket, request).await?;
                answer.kept().ok_or_else(|| remote(UNREADABLE))
            }
        }
    }

    /// As [`Store::freeze`].
    pub async fn freeze(
        &self,
        folder: &FolderKey,
        freezing: impl Into<Freezing>,
    ) -> Result<usize, StoreError> {
        let Freezing { ids, released } = freezing.into();
        match self.reached().await? {
            Reached::Local(store) => store.freeze(folder, Freezing { ids, released }).await,
            Reached::Remote(socket) => {
                let request = Request::Freeze {
                    account: folder.account.clone(),
                    folder: folder.folder.clone(),
                    ids: ids.into_iter().map(Id::from).collect(),
                    released: released.into_iter().map(control::text).collect(),
                };
                ask(socket, request).await
            }
        }
    }

    /// A backup of what must last, and how much is in it. All of it comes before
    /// any of it is used: whoever is slow to read keeps nobody from the store.
    pub async fn export(&self) -> Result<(Vec<u8>, Counts), StoreError> {
        match self.reached().await? {
            Reached::Local(store) => store.backup().await,
            Reached::Remote(socket) => {
                conversation(socket, Request::Export, |(), answer| {
                    let mut backup = Vec::new();
                    answer.read_to_end(&mut backup)?;
                    let counts = backup::counts(&backup)
                        .ok_or_else(|| io::Error::other("the backup was cut off"))?;
                    Ok((backup, counts))
                })
                .await
            }
        }
    }
}

const UNREADABLE: &str = "its answer is not understood";

fn remote(problem: impl std::fmt::Display) -> StoreError {
    StoreError::Remote(problem.to_string())
}

/// Where the answer is one line.
pub(super) async fn ask<T>(socket: UnixStream, request: Request) -> Result<T, StoreError>
where
    T: DeserializeOwned + Send + 'static,
{
    conversation(socket, request, |answer, _| Ok(answer)).await
}

/// Asks, and has `read` read on behind the first line of a good answer.
async fn conversation<A, T>(
    stream: UnixStream,
    request: Request,
    read: impl FnOnce(A, &mut BufReader<UnixStream>) -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError>
where
    A: DeserializeOwned,
    T: Send + 'static,
{
    let task = tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(&serde_json::to_vec(&request)?)?;
        stream.get_ref().shutdown(Shutdown::Write)?;
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_slice(&line)? {
            Answer::Ok(answer) => read(answer, &mut stream),
            Answer::Error(problem) => Err(io::Error::other(problem)),
        }
    });
    task.await.map_err(remote)?.map_err(remote)
}
