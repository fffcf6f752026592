//! What an import found, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::import::comparison::Comparison;
use crate::import::matching::{By, Place};
use crate::import::{Flaw, Listed};

/// Messages that are named in the text; JSON names all.
const MOST_NAMED: usize = 10;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Messages at the old server.
    old: usize,
    /// Messages in the new maildrop.
    pub new: usize,
    matched: usize,
    by_size: usize,
    by_header: usize,
    unmatched_old: Vec<Named>,
    unmatched_new: Vec<usize>,
    ambiguous_old: Vec<Named>,
    ambiguous_new: Vec<usize>,
    /// Old messages whose unique id is none, or another one's.
    flawed: Vec<Flawed>,
    /// Matched, and frozen by an earlier import.
    pub already_frozen: usize,
    /// Matched, but the message, or the unique id, is frozen with another one.
    pub frozen_otherwise: usize,
    /// Frozen now.
    pub frozen: usize,
    dry_run: bool,
}

/// A message of the old server.
#[derive(Debug, Serialize)]
struct Named {
    number: usize,
    unique_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Flawed {
    number: usize,
    reason: String,
}

#[derive(Serialize)]
struct Line<'a, T> {
    user: &'a str,
    ok: bool,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
}

impl Report {
    pub fn new(comparison: &Comparison, dry_run: bool) -> Self {
        let Comparison { listed, matching } = comparison;
        let named = |places: &[Place]| -> Vec<Named> {
            let name = |place: &Place| Named {
                number: place + 1,
                unique_id: unique_id(listed.get(*place)),
            };
            places.iter().map(name).collect()
        };
        let numbers = |places: &[Place]| places.iter().map(|place| place + 1).collect();
        let by_size = matching.pairs.iter().filter(|pair| pair.by == By::Size);
        let by_size = by_size.count();
        let flawed = |(number, message): (usize, &Listed)| {
            let flaw: Flaw = *message.unique_id.as_ref().err()?;
            let reason = flaw.to_string();
            Some(Flawed { number, reason })
        };
        Self {
            old: listed.len(),
            new: 0,
            matched: matching.pairs.len(),
            by_size,
            by_header: matching.pairs.len() - by_size,
            unmatched_old: named(&matching.unmatched_old),
            unmatched_new: numbers(&matching.unmatched_new),
            ambiguous_old: named(&matching.ambiguous_old),
            ambiguous_new: numbers(&matching.ambiguous_new),
            flawed: (1..).zip(listed).filter_map(flawed).collect(),
            already_frozen: 0,
            frozen_otherwise: 0,
            frozen: 0,
            dry_run,
        }
    }

    /// Whether somebody should look at it before anything is frozen.
    pub fn leaves_doubts(&self) -> bool {
        self.frozen_otherwise > 0
            || ![
                self.unmatched_old.len(),
                self.unmatched_new.len(),
                self.ambiguous_old.len(),
                self.ambiguous_new.len(),
                self.flawed.len(),
            ]
            .iter()
            .all(|count| *count == 0)
    }

    pub fn json(&self, user: &str) -> String {
        line(user, true, self)
    }

    /// The report before anything is frozen.
    pub fn text(&self, user: &str) -> String {
        let mut text = format!("{user}\n");
        let mut row = |what: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {what:<36} {value}");
        };
        row("messages at the old server", self.old.to_string());
        row("messages in the maildrop now", self.new.to_string());
        row(
            "matched",
            format!(
                "{} ({} by size, {} by header)",
                self.matched, self.by_size, self.by_header
            ),
        );
        let old = |all: &[Named]| {
            listed(all, |message| match &message.unique_id {
                Some(unique_id) => format!("{} ({unique_id})", message.number),
                None => message.number.to_string(),
            })
        };
        let new = |all: &[usize]| listed(all, usize::to_string);
        for (what, value) in [
            ("old, not there any more", old(&self.unmatched_old)),
            ("new, to be downloaded", new(&self.unmatched_new)),
            (
                "old, more copies than there are now",
                old(&self.ambiguous_old),
            ),
            ("new, more copies than there were", new(&self.ambiguous_new)),
            (
                "old, with a unique id of no use",
                listed(&self.flawed, |it| format!("{} ({})", it.number, it.reason)),
            ),
        ] {
            if let Some(value) = value {
                row(what, value);
            }
        }
        if self.already_frozen > 0 {
            row("frozen before", self.already_frozen.to_string());
        }
        if self.frozen_otherwise > 0 {
            row(
                "frozen otherwise, and kept so",
                self.frozen_otherwise.to_string(),
            );
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// What was done, as one line.
    pub fn outcome(&self) -> String {
        if self.dry_run {
            "a dry run: nothing was frozen".to_owned()
        } else {
            format!("{} unique ids frozen", self.frozen)
        }
    }

    /// All of it, as one line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} old, {} now, {} matched ({} by size, {} by header)",
            self.old, self.new, self.matched, self.by_size, self.by_header
        );
        for (what, count) in [
            ("old not matched", self.unmatched_old.len()),
            ("new not matched", self.unmatched_new.len()),
            (
                "ambiguous",
                self.ambiguous_old.len() + self.ambiguous_new.len(),
            ),
            ("with a unique id of no use", self.flawed.len()),
            ("frozen before", self.already_frozen),
            ("frozen otherwise", self.frozen_otherwise),
        ] {
            if count > 0 {
                let _ = write!(line, ", {count} {what}");
            }
        }
        let _ = write!(line, "; {}", self.outcome());
        line
    }
}

/// An account that failed, as JSON.
pub(super) fn failure(user: &str, error: &str) -> String {
    line(user, false, Failure { error })
}

fn line<T: Serialize>(user: &str, ok: bool, what: T) -> String {
    // Text and numbers are always JSON.
    serde_json::to_string(&Line { user, ok, what }).unwrap_or_default()
}

fn unique_id(message: Option<&Listed>) -> Option<String> {
    Some(message?.unique_id.as_ref().ok()?.as_str().to_owned())
}

/// How many there are and which, as far as there is room; `None` without any.
fn listed<T>(all: &[T], name: impl Fn(&T) -> String) -> Option<String> {
    let count = all.len();
    let mut names: Vec<String> = all.iter().take(MOST_NAMED).map(name).collect();
    if count > MOST_NAMED {
        names.push("…".to_owned());
    }
    (count > 0).then(|| format!("{count}: number {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::listed as judge;
    use crate::import::matching::{Matching, Pair};

    fn report() -> Report {
        let rows = [&b"a"[..], b"b", b"a", b"c"];
        let pair = |old, new, by| Pair { old, new, by };
        let comparison = Comparison {
            listed: judge(rows.map(|id| (1, id.to_vec()))),
            matching: Matching {
                pairs: vec![pair(0, 0, By::Size), pair(2, 1, By::Header)],
                unmatched_old: vec![1],
                unmatched_new: (2..14).collect(),
                ambiguous_old: vec![3],
                ambiguous_new: vec![],
            },
        };
        let mut report = Report::new(&comparison, false);
        report.new = 14;
        report.frozen = 1;
        report
    }

    #[test]
    fn for_people() {
        assert_eq!(
            report().text("alice"),
            "alice
  messages at the old server           4
  messages in the maildrop now         14
  matched                              2 (1 by size, 1 by header)
  old, not there any more              1: number 2 (b)
  new, to be downloaded                12: number 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, …
  old, more copies than there are now  1: number 4 (c)
  old, with a unique id of no use      1: number 3 (an earlier message has the same one)"
        );
        assert!(report().leaves_doubts());
        assert_eq!(
            report().line(),
            "4 old, 14 now, 2 matched (1 by size, 1 by header), 1 old not matched, 12 new not matched, 1 ambiguous, 1 with a unique id of no use; 1 unique ids frozen"
        );
    }

    #[test]
    fn for_programs() {
        let json: serde_json::Value = serde_json::from_str(&report().json("a\"b")).unwrap();
        assert_eq!(json["user"], "a\"b");
        assert_eq!(json["ok"], true);
        assert_eq!(json["matched"], 2);
        assert_eq!(json["unmatched_old"][0]["unique_id"], "b");
        assert_eq!(json["unmatched_new"][11], 14);
        assert_eq!(json["frozen"], 1);
        let json: serde_json::Value = serde_json::from_str(&failure("a", "why")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"user": "a", "ok": false, "error": "why"})
        );
    }
}
