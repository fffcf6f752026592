//! The control socket: how other processes of the same user reach the store,
//! which only one process can have open.
//!
//! A connection is one request, a JSON object up to the end of what is sent, and
//! one answer: a line of JSON with `ok` or `error`; behind that of `export`
//! comes the backup.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AccountRow, Change, FolderKey, Freezing, Frozen, Kept, MessageKey, Store, StoreError};
use crate::maildrop::UniqueId;

pub(super) const FILE: &str = "control.sock";

/// Enough to freeze a million unique ids at once.
const LARGEST_REQUEST: u64 = 256 << 20;
/// How long anything on the socket may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Requests at a time; others wait.
const REQUESTS: usize = 2;
/// Octets of a backup sent at once.
const CHUNK: usize = 64 << 10;

#[derive(Deserialize, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    Folder {
        account: String,
        folder: String,
    },
    Freeze {
        account: String,
        folder: String,
        ids: Vec<Id>,
        #[serde(default)]
        released: Vec<String>,
    },
    Export,
    Account {
        account: String,
    },
    Accounts,
    PutAccount {
        account: String,
        read: u64,
        value: String,
    },
    RemoveAccount {
        account: String,
        read: u64,
    },
    Uses {
        account: String,
    },
    Keys,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer<T> {
    Ok(T),
    Error(String),
}

/// A frozen unique id; messages are in base64.
#[derive(Deserialize, Serialize)]
pub(super) struct Id {
    message: String,
    rank: u32,
    unique_id: String,
}

/// A row of an account, which is JSON itself.
#[derive(Deserialize, Serialize)]
pub(super) struct Row {
    account: String,
    version: u64,
    value: String,
}

impl Row {
    fn new(account: String, row: &AccountRow) -> Self {
        Self {
            account,
            version: row.version,
            value: String::from_utf8_lossy(&row.value).into_owned(),
        }
    }

    pub(super) fn row(self) -> (String, AccountRow) {
        let row = AccountRow {
            version: self.version,
            value: self.value.into_bytes().into(),
        };
        (self.account, row)
    }
}

/// Everything kept of a folder.
#[derive(Deserialize, Serialize)]
pub(super) struct Folder {
    hidden: Vec<String>,
    frozen: Vec<Id>,
    octets: HashMap<String, u64>,
    retrieved: HashMap<String, i64>,
}

impl From<Frozen> for Id {
    fn from(frozen: Frozen) -> Self {
        Self {
            message: STANDARD.encode(frozen.message),
            rank: frozen.rank,
            unique_id: frozen.unique_id.as_str().to_owned(),
        }
    }
}

impl Id {
    fn frozen(self) -> Option<Frozen> {
        Some(Frozen {
            message: message(&self.message)?,
            rank: self.rank,
            unique_id: UniqueId::new(self.unique_id)?,
        })
    }
}

impl From<Kept> for Folder {
    fn from(kept: Kept) -> Self {
        let frozen = kept.frozen.into_iter();
        Self {
            hidden: kept.hidden.into_iter().map(text).collect(),
            frozen: frozen
                .map(|(message, (rank, unique_id))| {
                    Id::from(Frozen {
                        message,
                        rank,
                        unique_id,
                    })
                })
                .collect(),
            octets: kept.octets.into_iter().map(|(k, v)| (text(k), v)).collect(),
            retrieved: kept
                .retrieved
                .into_iter()
                .map(|(k, v)| (text(k), v))
                .collect(),
        }
    }
}

impl Folder {
    pub(super) fn kept(self) -> Option<Kept> {
        let frozen = self.frozen.into_iter().map(|id| {
            let frozen = id.frozen()?;
            Some((frozen.message, (frozen.rank, frozen.unique_id)))
        });
        Some(Kept {
            hidden: self
                .hidden
                .iter()
                .map(|it| message(it))
                .collect::<Option<_>>()?,
            frozen: frozen.collect::<Option<_>>()?,
            octets: keyed(self.octets)?,
            retrieved: keyed(self.retrieved)?,
        })
    }
}

pub(super) fn text(message: MessageKey) -> String {
    STANDARD.encode(message)
}

fn message(text: &str) -> Option<MessageKey> {
    STANDARD.decode(text).ok().map(Vec::into_boxed_slice)
}

fn keyed<T>(map: HashMap<String, T>) -> Option<HashMap<MessageKey, T>> {
    map.into_iter()
        .map(|(text, value)| Some((message(&text)?, value)))
        .collect()
}

/// The control socket of the store in `folder`, bound. The caller has that store
/// open: a socket that is there is one of a process that was killed.
pub fn bind(folder: &Path) -> io::Result<Control> {
    let path = folder.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Control { listener, path })
}

/// Whose rows the store keeps, in the process that serves it.
pub trait Owner: Send + Sync {
    /// The ids of the keys with which it opens them.
    fn keys(&self) -> Vec<String>;

    /// Another process has changed a row; `None`: there was none, or is none now.
    fn changed(&self, name: &str, before: Option<&AccountRow>, after: Option<&AccountRow>);
}

/// A bound control socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Answers with what `store` has until `shutdown`, then removes the socket, and
    /// answers whoever has reached it before.
    pub async fn serve(self, store: Store, owner: Arc<dyn Owner>, shutdown: CancellationToken) {
        let (requests, permits) = (TaskTracker::new(), Arc::new(Semaphore::new(REQUESTS)));
        let begin = |stream: UnixStream, permit| {
            let (store, owner) = (store.clone(), Arc::clone(&owner));
            requests.spawn(async move {
                if let Err(error) = answer(stream, &store, &*owner).await {
                    tracing::debug!(%error, "a request on the control socket");
                }
                drop(permit);
            });
        };
        loop {
            let next = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (self.listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = next => accepted,
            };
            match accepted {
                Ok((stream, _)) => begin(stream, permit),
                Err(error) => {
                    tracing::warn!(%error, "the control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was not removed");
        }
        // Those that nobody has accepted yet. It does not block: there are no others.
        if let Ok(listener) = self.listener.into_std() {
            while let Ok((stream, _)) = listener.accept() {
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| UnixStream::from_std(stream));
                if let Ok(stream) = stream {
                    begin(stream, Arc::clone(&permits).acquire_owned().await);
                }
            }
        }
        requests.close();
        requests.wait().await;
    }
}

async fn answer(mut stream: UnixStream, store: &Store, owner: &dyn Owner) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    if user != rustix::process::geteuid().as_raw() && user != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut request = Vec::new();
    let mut limited = (&mut stream).take(LARGEST_REQUEST + 1);
    timeout(PATIENCE, limited.read_to_end(&mut request)).await??;
    if request.len() as u64 > LARGEST_REQUEST {
        return send::<()>(&mut stream, &error("the request is too large")).await;
    }
    match serde_json::from_slice(&request) {
        Ok(Request::Folder { account, folder }) => {
            let kept = store.folder(&FolderKey { account, folder }).await;
            let answer = kept.map(Folder::from);
            send(&mut stream, &answer.map_or_else(error, Answer::Ok)).await
        }
        Ok(Request::Freeze {
            account,
            folder,
            ids,
            released,
        }) => {
            let ids: Option<Vec<Frozen>> = ids.into_iter().map(Id::frozen).collect();
            let released: Option<_> = released.iter().map(|it| message(it)).collect();
            let freezing = ids.zip(released);
            let answer = match freezing.map(|(ids, released)| Freezing { ids, released }) {
                Some(freezing) => {
                    let folder = FolderKey { account, folder };
                    let new = store.freeze(&folder, freezing).await;
                    new.map_or_else(error, Answer::Ok)
                }
                None => error("a message or unique id is wrong"),
            };
            send(&mut stream, &answer).await
        }
        Ok(Request::Export) => export(&mut stream, store).await,
        Ok(Request::Account { account }) => {
            let row = store.account(&account).await;
            let row = row.map(|row| row.map(|row| Row::new(account, &row)));
            send(&mut stream, &row.map_or_else(error, Answer::Ok)).await
        }
        Ok(Request::Accounts) => {
            let rows = store.accounts().await.map(|rows| {
                let rows = rows.into_iter();
                rows.map(|(name, row)| Row::new(name, &row))
                    .collect::<Vec<_>>()
            });
            send(&mut stream, &rows.map_or_else(error, Answer::Ok)).await
        }
        Ok(Request::PutAccount {
            account,
            read,
            value,
        }) => {
            let change = change(store, owner, &account, read, Some(value)).await;
            send(&mut stream, &change.map_or_else(error, Answer::Ok)).await
        }
        Ok(Request::RemoveAccount { account, read }) => {
            let change = change(store, owner, &account, read, None).await;
            send(&mut stream, &change.map_or_else(error, Answer::Ok)).await
        }
        Ok(Request::Uses { account }) => {
            let uses = store.uses(&account).await;
            send(&mut stream, &uses.map_or_else(error, Answer::Ok)).await
        }
        Ok(Request::Keys) => send(&mut stream, &Answer::Ok(owner.keys())).await,
        Err(problem) => send::<()>(&mut stream, &error(problem)).await,
    }
}

/// Puts or removes a row, and tells its owner.
async fn change(
    store: &Store,
    owner: &dyn Owner,
    name: &str,
    read: u64,
    value: Option<String>,
) -> Result<Change, StoreError> {
    // If this is not the one that was read, nothing comes of it.
    let before = store.account(name).await?;
    let value = value.map(String::into_bytes);
    let outcome = match value.clone() {
        Some(value) => store.put_account(name, read, value).await?,
        None => store.remove_account(name, read).await?,
    };
    if let Change::Done(version) = outcome {
        let after = value.map(|value| AccountRow {
            version,
            value: value.into(),
        });
        owner.changed(name, before.as_deref(), after.as_ref());
    }
    Ok(outcome)
}

fn error<T>(problem: impl std::fmt::Display) -> Answer<T> {
    Answer::Error(problem.to_string())
}

async fn send<T: Serialize>(stream: &mut UnixStream, answer: &Answer<T>) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line)).await?
}

/// The first chunk shows that it goes well; one that stops without the last line
/// of a backup did not.
async fn export(stream: &mut UnixStream, store: &Store) -> io::Result<()> {
    let (to, mut chunks) = mpsc::channel(2);
    let written = tokio::spawn({
        let store = store.clone();
        let to = io::BufWriter::with_capacity(CHUNK, Chunks(to));
        async move { store.export(to).await }
    });
    let mut begun = false;
    while let Some(chunk) = chunks.recv().await {
        if !begun {
            send(stream, &Answer::Ok(())).await?;
            begun = true;
        }
        timeout(PATIENCE, stream.write_all(&chunk)).await??;
    }
    match written.await? {
        Err(problem) if !begun => send::<()>(stream, &error(problem)).await,
        Err(problem) => Err(io::Error::other(problem)),
        Ok(_) => Ok(()),
    }
}

/// Passes what is written on to another task.
struct Chunks(mpsc::Sender<Vec<u8>>);

impl io::Write for Chunks {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(octets.to_vec())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
