//! Message text (RFC 8620 §6.2): a stream that ends well only behind exactly as
//! many octets as the message has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::api::Api;
use super::calls::Calls;
use super::clients::Lane;
use super::ids::Ids;
use crate::maildrop::Portion;
use crate::upstream::{Body, UpstreamError};

/// The first part fetched for TOP; each further one doubles it.
pub(super) const FIRST_PART: u64 = 16 * 1024;
/// The largest part.
const LARGEST_PART: u64 = 1024 * 1024;

/// A message being downloaded: whole, or for TOP in parts, as far as they are
/// wanted.
pub(super) struct Download {
    api: Arc<Api>,
    blob: Box<str>,
    url: Url,
    /// Octets of the whole message: exact in JMAP.
    size: u64,
    portion: Portion,
    /// Parts come by `Blob/get`.
    blob_get: bool,
    source: Source,
    /// Octets taken from the source so far.
    taken: u64,
    /// Those of them that were read ahead, and not passed on yet.
    held: Bytes,
    /// The leave to hold them.
    leave: Option<OwnedSemaphorePermit>,
    lane: Lane,
    /// Where the part under way ends.
    end: u64,
    /// Octets of the next part.
    part: u64,
    /// How long the rest may be waited for.
    patience: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlobAnswer {
    list: Vec<Part>,
    #[serde(default)]
    not_found: Ids,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "data:asBase64")]
    data: Option<String>,
}

/// What the octets come from.
enum Source {
    /// All that was asked for has come.
    Nothing,
    Stream(Response),
    Held(Bytes),
}

impl Download {
    /// Begins the download: a message that is gone shows here, before the
    /// client was told anything.
    pub async fn begin(
        api: &Arc<Api>,
        blob: &str,
        size: u64,
        portion: Portion,
        lane: Lane,
    ) -> Result<Self, UpstreamError> {
        let mut download = Self {
            api: Arc::clone(api),
            blob: blob.into(),
            url: api.resource.download_url(blob)?,
            size,
            portion,
            blob_get: api.resource.blob_get,
            source: Source::Nothing,
            taken: 0,
            held: Bytes::new(),
            leave: None,
            lane,
            end: 0,
            part: FIRST_PART,
            patience: api.http.patience(size),
        };
        download.next_part().await?;
        Ok(download)
    }

    /// Reads all that was asked for, or of a large message's top the first part,
    /// and holds it by this leave until it is passed on. Counts the octets as
    /// they come.
    pub async fn read_ahead(
        &mut self,
        leave: OwnedSemaphorePermit,
        progress: &AtomicU64,
    ) -> Result<(), UpstreamError> {
        let is_top = matches!(self.portion, Portion::Top { .. }) && self.size > FIRST_PART;
        // What a server sends that knows no parts would not be read to its end, and
        // hold up all else that comes over the same connection.
        if is_top && self.end > 2 * FIRST_PART {
            return Err(UpstreamError::protocol("more than a part, ahead"));
        }
        let enough = match is_top {
            true => usize::try_from(FIRST_PART).unwrap_or(usize::MAX),
            // Up to the end that the rules of a body see.
            false => usize::MAX,
        };
        let mut held = Vec::new();
        while (held.len() < enough || self.taken < self.end)
            && let Some(octets) = self.read().await?
        {
            progress.fetch_add(octets.len() as u64, Ordering::Relaxed);
            held.extend_from_slice(&octets);
        }
        self.held = held.into();
        self.leave = Some(leave);
        // What is asked for now is asked for by the client.
        self.lane = Lane::Asked;
        Ok(())
    }

    /// Asks for the octets behind those that were taken: all, or for TOP the
    /// next part.
    async fn next_part(&mut self) -> Result<(), UpstreamError> {
        let in_parts = matches!(self.portion, Portion::Top { .. }) && self.size > FIRST_PART;
        if !in_parts {
            return self.whole().await;
        }
        let octets = self.part.min(self.size - self.taken);
        self.part = (self.part * 2).min(LARGEST_PART);
        if self.blob_get {
            if let Some(part) = self.get(octets).await? {
                self.end = self.taken + octets;
                self.source = Source::Held(part);
                return Ok(());
            }
            self.blob_get = false;
        }
        self.range(octets).await
    }

    async fn whole(&mut self) -> Result<(), UpstreamError> {
        let response = self.api.http.download(&self.url, None, self.lane).await?;
        if response.status() != StatusCode::OK {
            return Err(UpstreamError::protocol("a part of a blob, not asked for"));
        }
        self.take(response, self.size)
    }

    /// By an HTTP range (RFC 9110 §14). A server may send all of the message
    /// instead: what is wanted of it is at its beginning.
    async fn range(&mut self, octets: u64) -> Result<(), UpstreamError> {
        let part = Some((self.taken, octets));
        let response = self.api.http.download(&self.url, part, self.lane).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE);
                let range = range.and_then(|it| it.to_str().ok()).and_then(range_of);
                let end = match range {
                    Some((first, last)) if first == self.taken => last.checked_add(1),
                    _ => None,
                };
                match end {
                    Some(end) if end > self.taken && end <= self.taken + octets => {
                        self.take(response, end)
                    }
                    _ => Err(UpstreamError::protocol("another range than was asked for")),
                }
            }
            StatusCode::OK if self.taken == 0 => self.take(response, self.size),
            _ => Err(UpstreamError::protocol("no range, and not the whole blob")),
        }
    }

    /// Octets up to `end` come from `response`.
    fn take(&mut self, response: Response, end: u64) -> Result<(), UpstreamError> {
        let length = response.content_length();
        if length.is_some_and(|length| length != end - self.taken) {
            let reason = "a blob of another size than its Email";
            return Err(UpstreamError::protocol(reason));
        }
        self.end = end;
        self.source = Source::Stream(response);
        Ok(())
    }

    /// By `Blob/get` (RFC 9404 §4.2). None where the server will not.
    async fn get(&self, octets: u64) -> Result<Option<Bytes>, UpstreamError> {
        let arguments = json!({
            "ids": [self.blob],
            "properties": ["data:asBase64"],
            "offset": self.taken,
            "length": octets,
        });
        let call = Calls::default()
            .push("Blob/get", arguments)
            .for_account(self.api.account());
        let answer: BlobAnswer = match self.api.call(&call).await?.try_get(0)? {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(kind = error.kind, "Blob/get does not work");
                return Ok(None);
            }
        };
        if !answer.not_found.is_empty() {
            return Err(UpstreamError::Gone);
        }
        let data = answer.list.into_iter().next().and_then(|part| part.data);
        let engine = base64::engine::general_purpose::STANDARD;
        match data.map(|data| engine.decode(data)) {
            Some(Ok(part)) if part.len() as u64 == octets => Ok(Some(part.into())),
            _ => Err(UpstreamError::protocol(
                "Blob/get of other octets than asked",
            )),
        }
    }

    /// The next octets from upstream.
    async fn read(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let octets = match &mut self.source {
                Source::Stream(response) => {
                    self.api.http.chunk(response, &mut self.patience).await?
                }
                Source::Held(part) if !part.is_empty() => Some(std::mem::take(part)),
                Source::Held(_) | Source::Nothing => None,
            };
            if let Some(octets) = octets {
                self.taken += octets.len() as u64;
                if self.taken > self.end {
                    return Err(UpstreamError::protocol("more octets than the message has"));
                }
                if octets.is_empty() {
                    continue;
                }
                return Ok(Some(octets));
            }
            self.source = Source::Nothing;
            // However cleanly HTTP ended: this was not all.
            if self.taken < self.end {
                return Err(UpstreamError::temporary("the download was cut short"));
            }
            if self.taken == self.size {
                return Ok(None);
            }
            self.next_part().await?;
        }
    }
}

#[async_trait]
impl Body for Download {
    fn announced(&self) -> Option<u64> {
        (self.portion == Portion::Whole).then_some(self.size)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if !self.held.is_empty() {
            return Ok(Some(std::mem::take(&mut self.held)));
        }
        self.leave = None;
        self.read().await
    }

    async fn abandon(&mut self) {
        self.held = Bytes::new();
        self.source = Source::Nothing;
    }
}

/// The first and the last octet of `bytes 0-499/1234` (RFC 9110 §14.4).
fn range_of(range: &str) -> Option<(u64, u64)> {
    let range = range.trim().strip_prefix("bytes")?.trim_start();
    let (range, _) = range.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(range_of("bytes 16384-32767/99999"), Some((16_384, 32_767)));
        assert_eq!(range_of("bytes 0-0/*"), Some((0, 0)));
        assert_eq!(range_of("bytes */99"), None);
        assert_eq!(range_of("bytes 0-1"), None);
        assert_eq!(range_of("0-1/2"), None);
    }
}
