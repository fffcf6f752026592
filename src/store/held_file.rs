//! A database's file, written to only once it is known to be whole.
//!
//! redb repairs what it opens: from a damaged file it may go back to the commit
//! before the last, and write that down. So what it writes is held in memory
//! until the caller has seen what is in the database, and is satisfied.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// Where a database's octets are; a file, but for tests of what fails.
pub(super) type Octets = Box<dyn StorageBackend>;

/// What redb is given. Its clones are one.
#[derive(Clone, Debug)]
pub(super) struct HeldFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    octets: Octets,
    held: Mutex<Option<Held>>,
}

/// What was not yet written, in order.
#[derive(Debug)]
struct Held {
    changes: Vec<Change>,
    length: u64,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

impl HeldFile {
    pub(super) fn new(octets: Octets) -> io::Result<Self> {
        let length = octets.len()?;
        let held = Held {
            changes: Vec::new(),
            length,
        };
        Ok(Self(Arc::new(Inner {
            octets,
            held: Mutex::new(Some(held)),
        })))
    }

    /// Writes what was held, in its order and as durable as redb wanted it; from
    /// now on nothing is held. After an error the file is as after a crash.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut held = self.0.held();
        if let Some(Held { changes, .. }) = &*held {
            for change in changes {
                match change {
                    Change::Write(offset, data) => self.0.octets.write(*offset, data)?,
                    Change::Length(length) => self.0.octets.set_len(*length)?,
                    Change::Sync => self.0.octets.sync_data()?,
                }
            }
        }
        *held = None;
        Ok(())
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn read(&self, file: &Octets, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = file.len()?.clamp(offset, end) - offset;
        let (there, beyond) = out.split_at_mut(index(written));
        if !there.is_empty() {
            file.read(offset, there)?;
        }
        beyond.fill(0);
        for change in &self.changes {
            match change {
                Change::Write(at, data) => {
                    let from = offset.max(*at);
                    let to = end.min(at.saturating_add(data.len() as u64));
                    if from < to {
                        out[index(from - offset)..index(to - offset)]
                            .copy_from_slice(&data[index(from - at)..index(to - at)]);
                    }
                }
                Change::Length(length) => {
                    let kept = (*length).clamp(offset, end) - offset;
                    out[index(kept)..].fill(0);
                }
                Change::Sync => {}
            }
        }
        Ok(())
    }
}

/// A distance within a slice.
fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

/// Locks are the file's own, though the store has one on its marker already: that
/// may be deleted.
impl StorageBackend for HeldFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.held() {
            Some(held) => Ok(held.length),
            None => self.0.octets.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(held) = &*self.0.held() {
            return held.read(&self.0.octets, offset, out);
        }
        self.0.octets.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.0.held() {
            Some(held) => {
                held.changes.push(Change::Length(len));
                held.length = len;
                Ok(())
            }
            None => self.0.octets.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut *self.0.held() {
            Some(held) => {
                held.changes.push(Change::Sync);
                Ok(())
            }
            None => self.0.octets.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.0.held() {
            Some(held) => {
                held.changes.push(Change::Write(offset, data.to_vec()));
                Ok(())
            }
            None => self.0.octets.write(offset, data),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.0.octets.close()
    }

    fn try_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.0.octets.try_lock_range(from, to)
    }

    fn try_lock_shared_range(
        &self,
        from: Bound<u64>,
        to: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.octets.try_lock_shared_range(from, to)
    }

    fn lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.octets.lock_range(from, to)
    }

    fn lock_shared_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.octets.lock_shared_range(from, to)
    }

    fn unlock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<(), BackendError> {
        self.0.octets.unlock_range(from, to)
    }

    fn query_lock_range(&self, from: Bound<u64>, to: Bound<u64>) -> Result<bool, BackendError> {
        self.0.octets.query_lock_range(from, to)
    }
}
