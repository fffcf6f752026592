use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::import::matching::By;
use crate::maildrop::{MaildropBuilder, MessageIndex, Outcome, UniqueId, Update};
use crate::store::{FolderKey, MessageKey};
use crate::upstream::Body;

/// A mailbox in memory that notes what is fetched of it, in pieces of a few
/// octets.
#[derive(Default)]
struct Mailbox {
    messages: Vec<&'static str>,
    fetched: Vec<MessageIndex>,
    piece: usize,
}

struct Pieces(Vec<Bytes>);

#[async_trait]
impl Body for Pieces {
    fn announced(&self) -> Option<u64> {
        None
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        Ok(self.0.pop())
    }

    async fn abandon(&mut self) {}
}

#[async_trait]
impl UpstreamSession for Mailbox {
    async fn folders(&mut self) -> Result<Vec<String>, UpstreamError> {
        panic!("not asked for");
    }

    async fn snapshot(&mut self) -> Result<Maildrop, UpstreamError> {
        panic!("not asked for");
    }

    async fn retrieve(
        &mut self,
        message: MessageIndex,
        portion: Portion,
    ) -> Result<Box<dyn Body + Send + '_>, UpstreamError> {
        assert_eq!(portion, Portion::Top { lines: 0 });
        self.fetched.push(message);
        match self.messages[message] {
            "gone" => Err(UpstreamError::Gone),
            "lost" => Err(UpstreamError::temporary("lost")),
            text => {
                let pieces = text.as_bytes().chunks(self.piece);
                Ok(Box::new(Pieces(
                    pieces.rev().map(Bytes::from_static).collect(),
                )))
            }
        }
    }

    fn kept_as(&self, _: MessageIndex) -> Option<(FolderKey, MessageKey)> {
        panic!("not asked for");
    }

    async fn delivered(&mut self, _: MessageIndex, _: u64) {
        panic!("a message was retrieved");
    }

    async fn update(&mut self, _: &Update) -> Result<Outcome, UpstreamError> {
        panic!("the mailbox was written to");
    }

    async fn close(&mut self) {}
}

const A: &str = "Subject: a\r\n\r\nSubject: body\r\n";
const B: &str = "Subject: b\nX-UID: 5\n\nmore\n";
const C: &str = "Subject: c\r\n";
const D: &str = "Subject: d\r\n\r\n";

fn mailbox(messages: &[&'static str]) -> Mailbox {
    Mailbox {
        messages: messages.to_vec(),
        fetched: Vec::new(),
        piece: 5,
    }
}

fn maildrop(octets: &[u64]) -> Maildrop {
    let mut maildrop = MaildropBuilder::with_capacity(octets.len());
    for (number, octets) in octets.iter().enumerate() {
        let id = UniqueId::new(format!("new{number}")).unwrap();
        maildrop.push(*octets, &id).unwrap();
    }
    maildrop.build().unwrap()
}

fn old(messages: &[(u64, &str)]) -> Old {
    let row = |(number, (octets, text)): (usize, &(u64, &str))| file::Row {
        octets: *octets,
        unique_id: UniqueId::new(format!("old{number}")).unwrap(),
        header: HeaderHash::of(text.as_bytes()),
    };
    Old::File(messages.iter().enumerate().map(row).collect())
}

fn pairs(comparison: &Comparison) -> Vec<(Place, Place, By)> {
    let pairs = comparison.matching.pairs.iter();
    pairs.map(|pair| (pair.old, pair.new, pair.by)).collect()
}

const QUIET: Progress<'_> = &|_, _, _| {};

#[tokio::test]
async fn sizes_first_and_headers_of_what_is_left() {
    let mut old = old(&[(10, A), (20, B), (30, "Subject: gone\n"), (40, C)]);
    let mut new = mailbox(&[A, B, C, D]);
    let told = Mutex::new(Vec::new());
    let progress = |stage, done, all| told.lock().unwrap().push((stage, done, all));
    let found = compare(
        &mut old,
        &mut new,
        &maildrop(&[10, 20, 40, 50]),
        true,
        &progress,
    )
    .await
    .unwrap();
    assert_eq!(
        pairs(&found),
        [(0, 0, By::Size), (1, 1, By::Size), (3, 2, By::Header)]
    );
    assert_eq!(found.matching.unmatched_old, [2]);
    assert_eq!(found.matching.unmatched_new, [3]);
    assert_eq!(new.fetched, [0, 1, 2, 3]);
    let new_headers = |done, all| (Stage::NewHeaders, done, all);
    assert_eq!(
        *told.lock().unwrap(),
        [
            new_headers(1, 2),
            new_headers(2, 2),
            new_headers(1, 2),
            new_headers(2, 2)
        ]
    );
}

#[tokio::test]
async fn a_coincidence_of_sizes_hides_no_message() {
    let mut old = old(&[(10, A), (20, B), (30, C)]);
    let mut new = mailbox(&[A, D, C]);
    let found = compare(&mut old, &mut new, &maildrop(&[10, 20, 30]), true, QUIET)
        .await
        .unwrap();
    assert_eq!(pairs(&found), [(0, 0, By::Header), (2, 2, By::Header)]);
    assert_eq!(found.matching.unmatched_new, [1]);
    // What was fetched to check is not fetched again.
    assert_eq!(new.fetched, [0, 1, 2]);
}

#[tokio::test]
async fn sizes_that_are_not_to_be_trusted_are_not() {
    let mut old = old(&[(10, A), (20, B)]);
    let mut new = mailbox(&[A, B]);
    let found = compare(&mut old, &mut new, &maildrop(&[10, 20]), false, QUIET)
        .await
        .unwrap();
    assert_eq!(pairs(&found), [(0, 0, By::Header), (1, 1, By::Header)]);
}

#[tokio::test]
async fn a_message_that_is_gone_matches_nothing_and_an_outage_ends_it() {
    let mut old = old(&[(1, A), (1, B)]);
    let found = compare(
        &mut old,
        &mut mailbox(&["gone", B]),
        &maildrop(&[1, 1]),
        true,
        QUIET,
    )
    .await
    .unwrap();
    assert_eq!(pairs(&found), [(1, 1, By::Header)]);
    assert_eq!(found.matching.unmatched_new, [0]);
    let error = compare(
        &mut old,
        &mut mailbox(&["lost", B]),
        &maildrop(&[1, 1]),
        true,
        QUIET,
    )
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "upstream: lost");
}

#[tokio::test]
async fn headers_end_at_the_blank_line_however_they_are_cut() {
    for text in [A, B, C, D, "\r\nbody: x\r\n", ""] {
        for piece in 1..20 {
            let mut new = mailbox(&[text]);
            new.piece = piece;
            let found = headers(&mut new, &[0], QUIET).await.unwrap();
            assert_eq!(found.get(&0).copied(), HeaderHash::of(text.as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_header_that_does_not_end_matches_nothing() {
    let endless: &'static str = Box::leak("X: y\r\n".repeat(LONGEST_HEADER / 6 + 1).into());
    let mut new = mailbox(&[endless]);
    new.piece = 65536;
    assert!(headers(&mut new, &[0], QUIET).await.unwrap().is_empty());
}
