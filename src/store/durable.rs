//! The durable part: never begun anew where there was one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Durability;

use super::marker::{Mark, Marker, StoreId, new_id};
use super::part::{Open, Opener, Part};
use super::records::{self, Counts};
use super::{FolderKey, Freezing, Kept, MessageKey, OpenError, StoreError, backup};

pub(super) const FILE: &str = "durable.redb";

pub(super) struct Durable {
    part: Part,
    marker: Arc<Marker>,
    id: StoreId,
}

impl Durable {
    /// Opens the part in `folder`, or makes it if nothing tells of an earlier one.
    pub(super) fn open(
        folder: &Path,
        marker: Arc<Marker>,
        has_cache: bool,
        opener: &Opener,
    ) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let missing = |path: PathBuf| OpenError::Damaged {
            file: path,
            problem: "it is missing, and this folder had one".to_owned(),
        };
        if !path
            .try_exists()
            .map_err(|error| OpenError::io(&path, &error))?
        {
            if marker.used() || has_cache {
                return Err(missing(path));
            }
            let mark = Mark {
                id: new_id(),
                generation: 0,
            };
            Part::create(&path, mark, records::durable_tables)?;
        }
        let part = {
            let (path, marker, opener) = (path.clone(), Arc::clone(&marker), Arc::clone(opener));
            Part::new(&path.clone(), move || {
                Open::new(&path, &opener, marker.mark())
            })
        };
        let mark = part.open()?;
        let io = |error| OpenError::io(marker.path(), &error);
        if marker.mark().is_none() {
            marker.advance(mark).map_err(io)?;
            marker.sync().map_err(io)?;
        }
        let id = mark.id;
        Ok(Self { part, marker, id })
    }

    pub(super) fn id(&self) -> StoreId {
        self.id
    }

    pub(super) fn folder(&self, folder: &FolderKey) -> Result<Kept, StoreError> {
        self.part
            .read(|transaction| records::durable(transaction, folder))
    }

    pub(super) fn hide(
        &self,
        folder: &FolderKey,
        messages: &[MessageKey],
    ) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        self.write(|transaction| records::hide(transaction, folder, messages))
    }

    pub(super) fn freeze(
        &self,
        folder: &FolderKey,
        freezing: &Freezing,
    ) -> Result<usize, StoreError> {
        if freezing.ids.is_empty() {
            return Ok(0);
        }
        self.write(|transaction| records::freeze(transaction, folder, freezing))
    }

    pub(super) fn counts(&self) -> Result<Counts, StoreError> {
        self.part.read(records::counts)
    }

    pub(super) fn export(&self, to: &mut dyn std::io::Write) -> Result<Counts, StoreError> {
        let written = self
            .part
            .read(|transaction| backup::write(transaction, to))?;
        written.map_err(|error| StoreError::failed(Path::new("the backup"), error))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> super::part::Result<T>,
    ) -> Result<T, StoreError> {
        self.marker
            .in_place()
            .map_err(|error| StoreError::failed(self.marker.path(), error))?;
        let (outcome, mark) = self.part.write(Durability::Immediate, write)?;
        // It is durable; the marker only guards it.
        if let Err(error) = self.marker.advance(mark) {
            tracing::warn!(%error, "the store's marker cannot be written");
        }
        Ok(outcome)
    }
}
