//! An old maildrop and the new one, read as far as needed to match them.

use std::collections::HashMap;
use std::fmt;

use super::matching::{Matching, Place, Sizes};
use super::pop3_client::{Pop3Error, Session};
use super::{HeaderHash, Listed, file};
use crate::maildrop::{Maildrop, Portion};
use crate::upstream::{UpstreamError, UpstreamSession};

/// Where the old unique ids come from.
pub enum Old {
    /// From the server itself.
    Server(Box<Session>),
    /// From a file that `popgate uidl export` wrote.
    File(Vec<file::Row>),
}

/// What came of it.
#[derive(Debug)]
pub struct Comparison {
    /// The old maildrop, in its order.
    pub listed: Vec<Listed>,
    /// Which message of the new one is which of the old one.
    pub matching: Matching,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// The old server is to blame.
    #[error("old server: {0}")]
    Old(#[from] Pop3Error),
    /// The new one is.
    #[error("upstream: {0}")]
    New(#[from] UpstreamError),
}

/// What is being done: for showing that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Headers of the old server are read.
    OldHeaders,
    /// Headers of the new server are read.
    NewHeaders,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OldHeaders => "headers at the old server",
            Self::NewHeaders => "headers at the upstream",
        })
    }
}

/// Told how many of how many are done.
pub type Progress<'a> = &'a (dyn Fn(Stage, usize, usize) + Sync);

/// Octets of a header that are looked at.
const LONGEST_HEADER: usize = 1024 * 1024;

/// Reads the old listing and matches it with `maildrop`, which is `new`'s.
/// Neither mailbox is written to. Without `trust_sizes` every message is matched
/// by its header.
pub async fn compare(
    old: &mut Old,
    new: &mut dyn UpstreamSession,
    maildrop: &Maildrop,
    trust_sizes: bool,
    progress: Progress<'_>,
) -> Result<Comparison, ComparisonError> {
    let listed = old.listing().await?;
    let old_sizes = listed.iter().map(|message| message.octets).collect();
    let new_sizes = maildrop.iter().map(|message| message.octets).collect();
    let sizes = Sizes::compare(old_sizes, new_sizes);
    let samples = if trust_sizes {
        sizes.samples()
    } else {
        Vec::new()
    };
    let (mut of_old, mut of_new) = both(old, new, &samples, &samples, progress).await?;
    let agrees = |place: &Place| {
        let old = of_old.get(place);
        old.is_some() && old == of_new.get(place)
    };
    let agree = trust_sizes && samples.iter().all(agrees);
    let doubtful = sizes.judged(agree);
    let (need_old, need_new) = doubtful.headers_needed();
    let without = |known: &Headers, needed: &[Place]| -> Vec<Place> {
        let unknown = |place: &&Place| !known.contains_key(place);
        needed.iter().filter(unknown).copied().collect()
    };
    let (need_old, need_new) = (without(&of_old, need_old), without(&of_new, need_new));
    let (more_old, more_new) = both(old, new, &need_old, &need_new, progress).await?;
    of_old.extend(more_old);
    of_new.extend(more_new);
    let matching = doubtful.by_header(&of_old, &of_new);
    Ok(Comparison { listed, matching })
}

type Headers = HashMap<Place, HeaderHash>;

/// Headers of both sides, at the same time: neither session rests for so long
/// that its server ends it.
async fn both(
    old: &mut Old,
    new: &mut dyn UpstreamSession,
    of_old: &[Place],
    of_new: &[Place],
    progress: Progress<'_>,
) -> Result<(Headers, Headers), ComparisonError> {
    let of_old = async { Ok(old.headers(of_old, progress).await?) };
    let of_new = async { Ok(headers(new, of_new, progress).await?) };
    tokio::try_join!(of_old, of_new)
}

impl Old {
    async fn listing(&mut self) -> Result<Vec<Listed>, Pop3Error> {
        match self {
            Self::Server(session) => session.listing().await,
            Self::File(rows) => Ok(rows
                .iter()
                .map(|row| Listed {
                    octets: row.octets,
                    unique_id: Ok(row.unique_id.clone()),
                })
                .collect()),
        }
    }

    async fn headers(
        &mut self,
        places: &[Place],
        progress: Progress<'_>,
    ) -> Result<Headers, Pop3Error> {
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        match self {
            Self::Server(session) => {
                let tell = |done| progress(Stage::OldHeaders, done, places.len());
                session.headers(places, &tell).await
            }
            Self::File(rows) => {
                let known = |place: &Place| Some((*place, rows.get(*place)?.header?));
                Ok(places.iter().filter_map(known).collect())
            }
        }
    }

    /// Ends the session, where there is one.
    pub async fn close(self) {
        if let Self::Server(session) = self {
            session.quit().await;
        }
    }
}

/// The hashes of the headers of these messages. One that is gone, or whose
/// header says nothing, is left out.
pub async fn headers(
    session: &mut dyn UpstreamSession,
    places: &[Place],
    progress: Progress<'_>,
) -> Result<Headers, UpstreamError> {
    let mut hashes = HashMap::with_capacity(places.len());
    for (done, place) in (1..).zip(places) {
        match header(session, *place).await {
            Ok(Some(hash)) => {
                hashes.insert(*place, hash);
            }
            Ok(None) | Err(UpstreamError::Gone) => {}
            Err(error) => return Err(error),
        }
        progress(Stage::NewHeaders, done, places.len());
    }
    Ok(hashes)
}

async fn header(
    session: &mut dyn UpstreamSession,
    place: Place,
) -> Result<Option<HeaderHash>, UpstreamError> {
    let mut body = session.retrieve(place, Portion::Top { lines: 0 }).await?;
    let mut header = Vec::new();
    while let Some(octets) = body.chunk().await? {
        let before = header.len();
        header.extend_from_slice(&octets);
        if header.len() > LONGEST_HEADER {
            body.abandon().await;
            return Ok(None);
        }
        if has_blank_line(&header, before) {
            body.abandon().await;
            break;
        }
    }
    Ok(HeaderHash::of(&header))
}

/// Whether a blank line ends in `octets[from..]`.
fn has_blank_line(octets: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', &octets[from..]).any(|at| {
        let before = &octets[..from + at];
        let before = before.strip_suffix(b"\r").unwrap_or(before);
        matches!(before.last(), None | Some(b'\n'))
    })
}

#[cfg(test)]
mod tests;
