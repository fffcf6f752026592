//! Holds the RFCs that the code cites to `docs/rfc-index.tsv`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const STATUSES: [&str; 4] = ["full", "partial", "later", "no"];

struct Row {
    rfc: u32,
    status: String,
    modules: Vec<String>,
}

#[test]
fn every_cited_rfc_is_in_the_index() {
    let index = index();
    let mut missing: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut cited = 0;
    for file in rust_files(&root().join("src")) {
        for rfc in citations(&fs::read_to_string(&file).unwrap()) {
            cited += 1;
            if !index.iter().any(|row| row.rfc == rfc) {
                missing
                    .entry(rfc)
                    .or_default()
                    .push(file.display().to_string());
            }
        }
    }
    assert!(
        cited > 0,
        "the code cites no RFC at all: is the search broken?"
    );
    assert!(
        missing.is_empty(),
        "cited, but not in docs/rfc-index.tsv: {missing:#?}"
    );
}

#[test]
fn the_index_is_in_order() {
    let index = index();
    for pair in index.windows(2) {
        assert!(
            pair[0].rfc < pair[1].rfc,
            "RFC {} stands before {}",
            pair[0].rfc,
            pair[1].rfc
        );
    }
    for Row {
        rfc,
        status,
        modules,
    } in &index
    {
        assert!(
            STATUSES.contains(&status.as_str()),
            "RFC {rfc}: status {status:?}"
        );
        let built = matches!(status.as_str(), "full" | "partial");
        assert_eq!(
            built,
            !modules.is_empty(),
            "RFC {rfc} is {status}, where is {modules:?}"
        );
        for module in modules {
            let path = root().join("src").join(module);
            assert!(
                path.is_dir() || path.with_extension("rs").is_file(),
                "RFC {rfc}: there is no module {module}"
            );
        }
    }
}

#[test]
fn citations_are_found() {
    assert_eq!(citations("/// (RFC 1939 §7), see RFC 2449."), [1939, 2449]);
    assert_eq!(
        citations("RFC3501, RFC-9051 and rfc 7888"),
        [3501, 9051, 7888]
    );
    assert_eq!(
        citations("RFCs 2595 and 8314; RFC 3501/9051, 4315"),
        [2595, 8314, 3501, 9051, 4315]
    );
    assert_eq!(
        citations("RFC 1939, 512 octets; RFC 6749 in 2012"),
        [1939, 6749]
    );
    assert_eq!(citations("/// see RFC\n/// 1939"), [1939]);
    assert_eq!(citations("an RFC, 1939; RFC822.SIZE; RFC822"), [0; 0]);
}

/// The numbers behind each `RFC`. More numbers of four digits may follow,
/// joined by a comma, a slash or `and`.
fn citations(text: &str) -> Vec<u32> {
    // A citation may be broken over two lines of a comment.
    let text = text
        .to_ascii_lowercase()
        .replace("///", " ")
        .replace("//", " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for behind in text.split("rfc").skip(1) {
        let mut rest = behind.strip_prefix('s').unwrap_or(behind);
        rest = rest.trim_start_matches([' ', '-']);
        while let Some((rfc, after)) = number(rest) {
            found.push(rfc);
            let joint = [", and ", " and ", ", ", "/"]
                .iter()
                .find_map(|joint| after.strip_prefix(joint));
            let Some(next) = joint else { break };
            rest = next;
        }
    }
    found
}

/// A number of four digits or more at the start: older RFCs are not cited, but
/// RFC822.SIZE is an IMAP item.
fn number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (4..=5)
        .contains(&digits)
        .then(|| (text[..digits].parse().unwrap(), &text[digits..]))
}

fn index() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/rfc-index.tsv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("rfc\ttitle\tstatus\twhere\tnotes"));
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [rfc, title, status, modules, _notes] = fields[..] else {
                panic!("five columns, please: {line:?}");
            };
            assert!(!title.is_empty(), "a title, please: {line:?}");
            Row {
                rfc: rfc.parse().unwrap(),
                status: status.to_owned(),
                modules: modules.split_whitespace().map(str::to_owned).collect(),
            }
        })
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
