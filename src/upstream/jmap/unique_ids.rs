//! Unique ids of JMAP messages (`docs/decisions/0006-jmap-unique-ids.md`).
//!
//! An `Email.id` may be replaced while the message stays what it is, so the
//! unique id is made of the blobId, which names the octets. Where several
//! Emails of a mailbox share a blob, the later ones get a suffix.

use std::collections::HashMap;

use base64::Engine as _;
use ring::digest;

/// Octets up to which a blobId is its own unique id; the rest of the 70 are
/// for a suffix.
const LONGEST: usize = 58;

/// Counts the copies of one mailbox, in its order: all of them, whatever is
/// shown.
#[derive(Default)]
pub(super) struct Copies<'a> {
    /// How many messages have a blob.
    copies: HashMap<&'a str, u32>,
}

impl<'a> Copies<'a> {
    /// Which copy of its blob the next message is, from 1.
    pub fn next(&mut self, blob: &'a str) -> u32 {
        let copies = self.copies.entry(blob).or_default();
        *copies = copies.saturating_add(1);
        *copies
    }
}

/// The unique id of a copy, which no other message of the mailbox has: no
/// blobId that is taken as it is has the dot of a suffix.
pub(super) fn unique_id(blob: &str, copy: u32) -> String {
    let mut text = base(blob);
    if copy > 1 {
        text.push_str(&format!(".{copy}"));
    }
    text
}

/// The blobId itself where it is an id (RFC 8620 §1.2) that leaves room, else
/// its SHA-256.
fn base(blob: &str) -> String {
    let is_id_octet = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
    if (1..=LONGEST).contains(&blob.len()) && blob.bytes().all(is_id_octet) {
        return blob.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, blob.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::UniqueId;

    fn ids(blobs: &[&str]) -> Vec<String> {
        let mut copies = Copies::default();
        let ids: Vec<String> = blobs
            .iter()
            .map(|blob| unique_id(blob, copies.next(blob)))
            .collect();
        let fits = |id: &String| UniqueId::new(id.clone()).is_some();
        assert!(ids.iter().all(fits));
        ids
    }

    #[test]
    fn copies_get_a_suffix_and_nothing_collides() {
        assert_eq!(ids(&["G1", "G2", "G1", "G1"]), ["G1", "G2", "G1.2", "G1.3"]);
        let made = ids(&["G1", "G1", "G1.2", "G1-2"]);
        assert_eq!(made[..2], ["G1", "G1.2"]);
        assert_eq!(made[2].len(), 43);
        assert_eq!(made[3], "G1-2");
    }

    #[test]
    fn long_and_strange_blob_ids_are_hashed() {
        let long = "x".repeat(255);
        let made = ids(&[&long, &"x".repeat(254), "with space", &long]);
        assert!(made.iter().all(|id| id.len() <= 70));
        assert_eq!(made[0].len(), 43);
        assert_ne!(made[0], made[1]);
        assert_eq!(made[3], format!("{}.2", made[0]));
    }
}
