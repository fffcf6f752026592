//! A maildrop with a notice in front, while the mailbox does not open: the notice is
//! all there is to read, and behind it stands what the mailbox showed last. Nothing
//! upstream is asked or changed.

use async_trait::async_trait;
use bytes::Bytes;

use super::listings::Listing;
use super::{Body, UpstreamError, UpstreamSession};
use crate::maildrop::{Maildrop, MessageIndex, Outcome, Portion, UniqueId, Update};
use crate::store::{FolderKey, MessageKey};

/// The place of the notice in its maildrop.
const NOTICE: MessageIndex = 0;

/// A message of popgate's own.
#[derive(Clone, Debug)]
pub struct Notice {
    /// No mail's, and the same each time for the same news.
    pub unique_id: UniqueId,
    /// With CRLF line ends.
    pub text: Bytes,
}

/// The session that shows it.
#[derive(Debug)]
pub struct NoticeSession {
    text: Bytes,
    folders: Vec<String>,
    maildrop: Option<Maildrop>,
}

impl NoticeSession {
    /// A notice in front of what the mailbox showed; `None`: a mail has its unique
    /// id.
    pub fn new(notice: Notice, listing: Listing) -> Option<Self> {
        let octets = notice.text.len() as u64;
        Some(Self {
            maildrop: Some(listing.behind(octets, &notice.unique_id)?),
            text: notice.text,
            folders: listing.folders,
        })
    }
}

fn closed() -> UpstreamError {
    UpstreamError::temporary("the mailbox does not open before somebody signs in again")
}

#[async_trait]
impl UpstreamSession for NoticeSession {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        Ok(self.folders.clone())
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        self.maildrop.take().ok_or_else(closed)
    }

    async fn retrieve(
        &mut self,
        message: MessageIndex,
        _portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        match message {
            NOTICE => Ok(Box::new(Text(Some(self.text.clone())))),
            _ => Err(closed()),
        }
    }

    fn kept_as(&self, _message: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        None
    }

    async fn delivered(&mut self, _message: MessageIndex, _octets: u64) {}

    async fn update(&mut self, update: &Update) -> Result<Outcome, UpstreamError> {
        let (removed, remaining) = update.delete().iter().partition(|it| **it == NOTICE);
        Ok(Outcome {
            removed,
            remaining,
            ..Outcome::default()
        })
    }

    async fn close(&mut self) {}
}

struct Text(Option<Bytes>);

#[async_trait]
impl Body for Text {
    fn announced(&self) -> Option<u64> {
        self.0.as_ref().map(|text| text.len() as u64)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        Ok(self.0.take())
    }

    async fn abandon(&mut self) {}
}
