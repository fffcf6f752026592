//! Holds the import table of the architecture to the code: what a module may
//! use of popgate's own modules is written here, and nowhere else.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module (a file or folder directly in `src`), and what it may use. `main`
/// and `lib` put the program together and may use everything.
///
/// Vocabulary is at the top, the program at the bottom. `pop3` and `upstream`
/// never meet: only `server` knows both. Each module owns its own `Config`;
/// only the program itself knows `config`, which assembles them.
const MAY_USE: &[(&str, &[&str])] = &[
    ("maildrop", &[]),
    ("secret", &[]),
    ("metrics", &[]),
    ("logging", &[]),
    ("process", &[]),
    ("http_failure", &[]),
    ("sasl", &["secret"]),
    ("pop3", &["maildrop", "sasl"]),
    ("store", &["maildrop"]),
    ("oauth2", &["http_failure", "secret"]),
    (
        "accounts",
        &[
            "http_failure",
            "metrics",
            "oauth2",
            "sasl",
            "secret",
            "store",
        ],
    ),
    (
        "upstream",
        &["http_failure", "store", "maildrop", "sasl", "metrics"],
    ),
    (
        "import",
        &["maildrop", "sasl", "secret", "store", "upstream"],
    ),
    (
        "server",
        &[
            "pop3", "upstream", "accounts", "maildrop", "sasl", "metrics", "secret",
        ],
    ),
    ("web", &["accounts", "metrics", "oauth2", "secret"]),
    (
        "config",
        &[
            "web", "server", "import", "upstream", "accounts", "oauth2", "maildrop", "secret",
            "logging",
        ],
    ),
    ("cli", &["config", "secret"]),
    ("check", &["config", "upstream", "maildrop", "sasl"]),
    (
        "account",
        &[
            "cli", "config", "accounts", "oauth2", "server", "web", "maildrop", "sasl", "secret",
        ],
    ),
    ("state", &["store"]),
    (
        "uidl",
        &[
            "account", "accounts", "cli", "config", "import", "server", "upstream", "store",
            "maildrop", "sasl", "secret",
        ],
    ),
    ("main", EVERYTHING),
    ("lib", EVERYTHING),
];

const EVERYTHING: &[&str] = &["*"];

/// The library's own name: how `main` calls the modules.
const CRATE: &str = "popgate";

#[test]
fn every_module_uses_only_what_the_table_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&source);
    let modules: BTreeSet<String> = files
        .iter()
        .map(|file| module_path(&source, file).remove(0))
        .collect();
    assert!(
        modules.contains("maildrop") && modules.contains("upstream"),
        "{modules:?}"
    );

    let mut breaches = Vec::new();
    for file in &files {
        let path = module_path(&source, file);
        let text = fs::read_to_string(file).unwrap();
        for import in imports(&text, &path, &modules) {
            if !allowed(&path[0], &import) {
                breaches.push(format!("{}: {} uses {import}", file.display(), path[0]));
            }
        }
    }
    assert!(
        breaches.is_empty(),
        "the table in {} forbids:\n{}",
        file!(),
        breaches.join("\n")
    );
}

#[test]
fn every_module_stands_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let module = module_path(&source, &file).remove(0);
        assert!(
            MAY_USE.iter().any(|(name, _)| *name == module),
            "what may `{module}` use? Add it to the table in {}",
            file!()
        );
    }
}

#[test]
fn the_map_that_people_read_is_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let names = |cell: &str| -> BTreeSet<String> {
        let odd = cell.split('`').skip(1).step_by(2);
        odd.map(str::to_owned).collect()
    };
    let mut mapped = BTreeSet::new();
    for line in lib.lines().filter(|line| line.starts_with("//! | `")) {
        let cells: Vec<&str> = line.split('|').collect();
        let module = names(cells[1]).pop_first().unwrap();
        let (_, may_use) = MAY_USE.iter().find(|(name, _)| *name == module).unwrap();
        let may_use = may_use.iter().map(|&it| it.to_owned()).collect();
        assert_eq!(names(cells[3]), may_use, "{module}");
        mapped.insert(module);
    }
    for (module, _) in MAY_USE {
        let is_program = ["main", "lib", "process"].contains(module);
        assert!(is_program || mapped.contains(*module), "{module}");
    }
}

#[test]
fn the_table_allows_only_what_is_used() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut used = BTreeSet::new();
    for file in rust_files(&source) {
        let path = module_path(&source, &file);
        for import in imports(&fs::read_to_string(&file).unwrap(), &path, &modules) {
            used.insert((path[0].clone(), import));
        }
    }
    for (module, uses) in MAY_USE {
        for allowed in uses.iter().filter(|allowed| **allowed != "*") {
            assert!(
                used.contains(&((*module).to_owned(), (*allowed).to_owned())),
                "`{module}` does not use `{allowed}`: take it out of the table"
            );
        }
    }
}

#[test]
fn the_table_has_no_circle() {
    // A module uses only modules that stand above it.
    for (row, (module, uses)) in MAY_USE.iter().enumerate() {
        for used in uses.iter().filter(|used| **used != "*") {
            assert!(
                MAY_USE[..row].iter().any(|(above, _)| above == used),
                "`{module}` uses `{used}`, which does not stand above it"
            );
        }
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let found = |text: &str| found_in(text, &["pop3", "session"]);
    assert_eq!(found("use crate::upstream::Upstream;"), ["upstream"]);
    assert_eq!(
        found("fn f() { crate :: upstream\n::imap::f() }"),
        ["upstream"]
    );
    assert_eq!(
        found("use crate::{sasl::{self, Plain}, maildrop as m, server};"),
        ["maildrop", "sasl", "server"]
    );
    assert_eq!(found("use popgate::server;"), ["server"]);
    assert_eq!(found("use super::super::server::X;"), ["server"]);
    assert_eq!(
        found("mod tests { use super::super::super::server::X; }"),
        ["server"]
    );
    assert_eq!(
        found("macro_rules! m { () => { $crate::web::f() } }"),
        ["web"]
    );
    assert_eq!(found("use crate::*;"), ["*"]);
    assert_eq!(found("use crate::{self as all};"), ["*"]);
    assert_eq!(found("use crate as all;"), ["*"]);
    assert_eq!(
        found("use r#crate; let c = 'c'; let l: &'crate str; use crate::web;"),
        ["web"]
    );
}

#[test]
fn what_is_no_import_is_not_found() {
    let found = |text: &str| found_in(text, &["pop3", "session"]);
    assert_eq!(
        found("// use crate::server;\n/* crate::a /* crate::web */ crate::b */"),
        [""; 0]
    );
    assert_eq!(
        found("//! [`crate::server`]\nlet s = \"crate::server \\\" crate::web\";"),
        [""; 0]
    );
    assert_eq!(
        found("let s = r#\"crate::server \" crate::web\"#; let c = '\"';"),
        [""; 0]
    );
    assert_eq!(
        found("let b = b\"crate::server\"; let c = br\"crate::web\\\";"),
        [""; 0]
    );
    assert_eq!(
        found("pub(crate) fn f() {} pub(in crate) fn g() {}"),
        [""; 0]
    );
    assert_eq!(found("use super::server; use super::web::X;"), [""; 0]);
    assert_eq!(found("mod tests { use super::super::server; }"), [""; 0]);
    assert_eq!(found("use crate::pop3::command::Command;"), [""; 0]);
    assert_eq!(
        found("use other::crate_::server; use tokio::sync;"),
        [""; 0]
    );
}

fn allowed(module: &str, import: &str) -> bool {
    MAY_USE
        .iter()
        .filter(|(name, _)| *name == module)
        .any(|(_, uses)| uses.contains(&import) || uses.contains(&"*"))
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
    files.sort();
    files
}

/// `src/pop3/session.rs` → `pop3`, `session`; `src/pop3/mod.rs` → `pop3`.
fn module_path(source: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(source).unwrap().with_extension("");
    let mut path: Vec<String> = inside
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if path.len() > 1 && path.last().unwrap() == "mod" {
        path.pop();
    }
    path
}

fn found_in(text: &str, path: &[&str]) -> Vec<String> {
    let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
    let modules = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    imports(text, &path, &modules).into_iter().collect()
}

/// The modules of popgate that a file uses, besides its own; `*` where it
/// takes the whole crate.
fn imports(text: &str, path: &[String], modules: &BTreeSet<String>) -> BTreeSet<String> {
    let tokens = tokens(text);
    let is_root_file = path.len() == 1 && (path[0] == "main" || path[0] == "lib");
    let file_depth = if is_root_file { 0 } else { path.len() };
    let mut found = BTreeSet::new();
    // One entry an open brace: whether it opened a module within the file.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map_or("", |index| tokens[index].as_str());
        match tokens[at].as_str() {
            "{" => braces.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => {
                braces.pop();
            }
            "crate" if before != "::" => from_root(&tokens, at + 1, &mut found),
            CRATE if before != "::" && next_is(&tokens, at + 1, "::") => {
                from_root(&tokens, at + 1, &mut found);
            }
            "super" if before != "::" => {
                let mut climbed = 1;
                while next_is(&tokens, at + 1, "::") && next_is(&tokens, at + 2, "super") {
                    climbed += 1;
                    at += 2;
                }
                if climbed >= file_depth + braces.iter().filter(|module| **module).count() {
                    from_root(&tokens, at + 1, &mut found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found.remove(&path[0]);
    found.retain(|name| name == "*" || modules.contains(name));
    found
}

/// Adds what follows the crate's root at `at`: `::name`, `::{a::b, c}`, `::*`.
fn from_root(tokens: &[String], at: usize, found: &mut BTreeSet<String>) {
    if next_is(tokens, at, "as") {
        found.insert("*".to_owned());
    }
    if !next_is(tokens, at, "::") {
        return;
    }
    if !next_is(tokens, at + 1, "{") {
        found.extend(tokens.get(at + 1).cloned());
        return;
    }
    let mut depth = 0;
    for index in at + 1..tokens.len() {
        match tokens[index].as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return,
            "}" => depth -= 1,
            name if depth == 1 && matches!(tokens[index - 1].as_str(), "{" | ",") => {
                let name = if name == "self" { "*" } else { name };
                found.insert(name.to_owned());
            }
            _ => {}
        }
    }
}

fn next_is(tokens: &[String], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token == text)
}

/// Words, `::` and single characters of Rust; no comments, no literals.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        match rest[0] {
            '/' if rest.starts_with(&['/', '/']) => at += until(rest, 0, &['\n']),
            '/' if rest.starts_with(&['/', '*']) => at += block_comment(rest),
            '"' => at += quoted(rest, '"'),
            '\'' => at += quote_or_lifetime(rest),
            start if start.is_alphanumeric() || start == '_' => {
                let length = rest
                    .iter()
                    .take_while(|c| c.is_alphanumeric() || **c == '_')
                    .count();
                let word: String = rest[..length].iter().collect();
                at += length;
                let rest = &rest[length..];
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                let hashes = rest.iter().take_while(|c| **c == '#').count();
                if raw && rest.get(hashes) == Some(&'"') {
                    let mut end = vec!['"'];
                    end.resize(hashes + 1, '#');
                    at += until(rest, hashes + 1, &end);
                } else if raw && hashes == 1 {
                    // A raw identifier: never a keyword.
                    at += 1;
                    at += text[at..]
                        .iter()
                        .take_while(|c| c.is_alphanumeric() || **c == '_')
                        .count();
                } else {
                    tokens.push(word);
                }
            }
            ':' if rest.starts_with(&[':', ':']) => {
                tokens.push("::".to_owned());
                at += 2;
            }
            space if space.is_whitespace() => at += 1,
            other => {
                tokens.push(other.to_string());
                at += 1;
            }
        }
    }
    tokens
}

/// The length up to and with `end`, looked for from `from` on.
fn until(text: &[char], from: usize, end: &[char]) -> usize {
    (from..text.len())
        .find(|at| text[*at..].starts_with(end))
        .map_or(text.len(), |at| at + end.len())
}

fn block_comment(text: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(text: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn quote_or_lifetime(text: &[char]) -> usize {
    let is_character = text.get(1) == Some(&'\\') || text.get(2) == Some(&'\'');
    if is_character {
        quoted(text, '\'')
    } else {
        1 + text[1..]
            .iter()
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .count()
    }
}
