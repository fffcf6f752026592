//! The unique ids that an old POP3 server handed out, carried over to the
//! maildrop that popgate serves now: so that no client downloads again what it
//! has.
//!
//! Here is what reads the old server ([`pop3_client`]) and what finds out which
//! message is which ([`matching`], pure). Neither mailbox is ever written to.

use std::collections::HashSet;

use crate::maildrop::UniqueId;

pub mod accounts;
pub mod comparison;
pub mod file;
mod header;
pub mod matching;
pub mod pop3_client;

pub use header::HeaderHash;

/// A message as the old server listed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its size in octets, as LIST gave it.
    pub octets: u64,
    /// Its unique id, or why this one is not carried over.
    pub unique_id: Result<UniqueId, Flaw>,
}

/// Why a unique id of the old server cannot be carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It breaks RFC 1939 §7.
    #[error("it does not have 1 to 70 octets from 0x21 to 0x7E")]
    Invalid,
    /// An earlier message has it, too.
    #[error("an earlier message has the same one")]
    Duplicate,
}

/// Judges what an old server listed, in its order: octets, and the unique id as
/// it came.
pub fn listed(rows: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Vec<Listed> {
    let mut seen = HashSet::new();
    let judge = |unique_id: Vec<u8>| {
        let text = String::from_utf8(unique_id).map_err(|_| Flaw::Invalid)?;
        let unique_id = UniqueId::new(text).ok_or(Flaw::Invalid)?;
        match seen.insert(unique_id.clone()) {
            true => Ok(unique_id),
            false => Err(Flaw::Duplicate),
        }
    };
    let (octets, ids): (Vec<u64>, Vec<Vec<u8>>) = rows.into_iter().unzip();
    let ids = ids.into_iter().map(judge);
    octets
        .into_iter()
        .zip(ids)
        .map(|(octets, unique_id)| Listed { octets, unique_id })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flawed_unique_ids_keep_their_place() {
        let rows: [&[u8]; 8] = [
            b"a",
            b"",
            b"b c",
            b"a",
            b"\xff",
            &[b'x'; 71],
            &[b'x'; 70],
            b"b",
        ];
        let judged = listed((1..).zip(rows.map(<[u8]>::to_vec)));
        let octets: Vec<u64> = judged.iter().map(|message| message.octets).collect();
        assert_eq!(octets, [1, 2, 3, 4, 5, 6, 7, 8]);
        let flaws: Vec<Option<Flaw>> = judged
            .iter()
            .map(|message| message.unique_id.as_ref().err().copied())
            .collect();
        let invalid = Some(Flaw::Invalid);
        assert_eq!(
            flaws,
            [
                None,
                invalid,
                invalid,
                Some(Flaw::Duplicate),
                invalid,
                invalid,
                None,
                None
            ]
        );
    }
}
