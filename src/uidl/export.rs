//! `popgate uidl export`: the unique ids of a maildrop as popgate serves it now.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter};
use std::path::Path;

use super::{Mailboxes, Meter, Shut};
use crate::import::comparison;
use crate::import::file::{self, Row};
use crate::maildrop::{DeletePolicy, Maildrop, Message, Policy, UniqueId, Window};
use crate::secret::Secret;
use crate::store::{Access, FolderKey, Kept, StoreError, write_whole};
use crate::upstream::{UpstreamError, UpstreamSession};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The mailbox does not open.
    #[error("{0}")]
    Shut(#[from] Shut),
    /// The maildrop cannot be read.
    #[error("upstream: {0}")]
    Upstream(#[from] UpstreamError),
    /// What is kept of it cannot be read.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The popgate that runs would rename some of them.
    #[error("some unique ids would come twice: stop popgate, and export again")]
    Duplicates,
    /// The file cannot be written.
    #[error("cannot write {file}: {error}")]
    File {
        /// Its name.
        file: String,
        /// Why not.
        error: io::Error,
    },
}

/// Writes the unique ids of a user's maildrop to a file, or to the standard
/// output, in the order in which they are served, those outside a window too.
/// `access` is to what is kept of them. Returns how many there are.
pub async fn export(
    mailboxes: &Mailboxes,
    access: &Access,
    user: &str,
    password: Option<&Secret>,
    to: Option<&Path>,
) -> Result<usize, ExportError> {
    let door = mailboxes.door(user, password).await?;
    let policy = door.policy.clone();
    // What is hidden by a keyword is only seen to be where it is the policy.
    let hides = policy.delete == DeletePolicy::Hide;
    // What lies outside a window today may be shown tomorrow.
    let mut policy = Policy {
        window: Window::default(),
        ..policy.read_only()
    };
    if hides {
        policy.delete = DeletePolicy::Hide;
    }
    let mut session = mailboxes.login(&door, policy).await?;
    let maildrop = session.snapshot().await?;
    let served = match access {
        // The session has the store.
        Access::Local(_) => as_listed(&maildrop),
        Access::Remote(_) | Access::Brief(_) => {
            let listed = as_listed(&maildrop);
            as_kept(listed, session.as_ref(), access).await?
        }
    };
    let places: Vec<usize> = served.iter().map(|message| message.place).collect();
    let meter = Meter::new();
    let tell = |stage, done, all| meter.tell(stage, done, all);
    let headers = comparison::headers(session.as_mut(), &places, &tell).await;
    meter.clear();
    session.close().await;
    let headers = headers?;
    let rows: Vec<Row> = served
        .into_iter()
        .map(|message| Row {
            octets: message.octets,
            unique_id: message.unique_id,
            header: headers.get(&message.place).copied(),
        })
        .collect();
    write(&rows, to).map_err(|error| ExportError::File {
        file: to.map_or_else(|| "-".into(), |path| path.display().to_string()),
        error,
    })?;
    Ok(rows.len())
}

fn write(rows: &[Row], to: Option<&Path>) -> io::Result<()> {
    match to {
        None => file::write(rows, &mut BufWriter::new(io::stdout())),
        Some(path) => write_whole(path, |out| file::write(rows, out)),
    }
}

/// A message as it is served.
struct Served {
    place: usize,
    octets: u64,
    unique_id: UniqueId,
}

fn as_listed(maildrop: &Maildrop) -> Vec<Served> {
    let served = |message: Message<'_>| {
        Some(Served {
            place: message.index,
            octets: message.octets,
            unique_id: UniqueId::new(message.unique_id.to_owned())?,
        })
    };
    maildrop.iter().filter_map(served).collect()
}

/// What the popgate that has the store makes of a maildrop.
async fn as_kept(
    listed: Vec<Served>,
    session: &dyn UpstreamSession,
    access: &Access,
) -> Result<Vec<Served>, ExportError> {
    let mut folders: HashMap<FolderKey, Kept> = HashMap::new();
    let mut served = Vec::with_capacity(listed.len());
    for mut message in listed {
        let Some((folder, key)) = session.kept_as(message.place) else {
            continue;
        };
        if !folders.contains_key(&folder) {
            let kept = access.folder(&folder).await?;
            folders.insert(folder.clone(), kept);
        }
        let Some(kept) = folders.get(&folder).filter(|it| !it.hidden.contains(&key)) else {
            continue;
        };
        message.octets = kept.octets.get(&key).copied().unwrap_or(message.octets);
        let mut rank = u32::MAX;
        if let Some((frozen, unique_id)) = kept.frozen.get(&key) {
            rank = *frozen;
            message.unique_id = unique_id.clone();
        }
        served.push((rank, message));
    }
    served.sort_by_key(|(rank, _)| *rank);
    let frozen = folders.values().flat_map(|kept| kept.frozen.values());
    let frozen: HashSet<&UniqueId> = frozen.map(|(_, unique_id)| unique_id).collect();
    let mut seen = HashSet::new();
    let mut alone = |(rank, message): &(u32, Served)| {
        let is_anothers = *rank == u32::MAX && frozen.contains(&message.unique_id);
        !is_anothers && seen.insert(message.unique_id.clone())
    };
    if !served.iter().all(&mut alone) {
        return Err(ExportError::Duplicates);
    }
    Ok(served.into_iter().map(|(_, message)| message).collect())
}
