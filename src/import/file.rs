//! The file in which unique ids travel where the old server cannot be asked
//! any more. `popgate uidl export` writes it, `popgate uidl import --from-file`
//! reads it.
//!
//! ```text
//! popgate-unique-ids 1
//! 1532 0000000165a1b2c3 0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33
//! 98 0000000265a1b2c3 -
//! end 2
//! ```
//!
//! One line a message, in the order of the maildrop: octets, unique id, the
//! hash of the header (`-` where it has nothing that tells it from others). The
//! last line says how many there were: a file that was cut off is refused.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, Read as _, Write};

use super::HeaderHash;
use crate::maildrop::UniqueId;

const FIRST_LINE: &str = "popgate-unique-ids 1";
const LAST_WORD: &str = "end";
const NO_HASH: &str = "-";

/// Octets of a line: 20 digits, 70 of a unique id, 40 of a hash, and some.
const LONGEST_LINE: u64 = 256;

/// Messages in one maildrop.
const MOST_MESSAGES: usize = 5_000_000;

/// A message as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its size in octets.
    pub octets: u64,
    /// Its unique id.
    pub unique_id: UniqueId,
    /// What its header says.
    pub header: Option<HeaderHash>,
}

/// The file cannot be used.
#[derive(Debug)]
pub struct FileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl std::error::Error for FileError {}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// Writes the whole file.
pub fn write(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{FIRST_LINE}")?;
    for row in rows {
        write!(out, "{} {} ", row.octets, row.unique_id)?;
        match row.header {
            Some(hash) => writeln!(out, "{hash}")?,
            None => writeln!(out, "{NO_HASH}")?,
        }
    }
    writeln!(out, "{LAST_WORD} {}", rows.len())?;
    out.flush()
}

/// Reads the whole file, or says which line is wrong. A unique id that comes
/// twice is wrong: no popgate wrote that.
pub fn read(input: &mut impl BufRead) -> Result<Vec<Row>, FileError> {
    let mut lines = Lines { input, number: 0 };
    if lines.next()?.as_deref() != Some(FIRST_LINE) {
        return Err(lines.wrong(format!(
            "this is not a file of `popgate uidl export`: it does not begin with {FIRST_LINE:?}"
        )));
    }
    let mut rows = Vec::new();
    let mut seen: HashMap<UniqueId, usize> = HashMap::new();
    loop {
        let Some(line) = lines.next()? else {
            return Err(lines.wrong("the file was cut off: its last line does not say `end`"));
        };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [LAST_WORD, count] => {
                if count.parse() != Ok(rows.len()) {
                    return Err(lines.wrong("the count is not that of the lines before"));
                }
                break;
            }
            [octets, unique_id, header] => {
                let row = row(octets, unique_id, header).map_err(|what| lines.wrong(what))?;
                if let Some(before) = seen.insert(row.unique_id.clone(), lines.number) {
                    return Err(lines.wrong(format!("line {before} has the same unique id")));
                }
                if rows.len() == MOST_MESSAGES {
                    return Err(lines.wrong("there are too many messages"));
                }
                rows.push(row);
            }
            _ => return Err(lines.wrong("expected octets, unique id and hash")),
        }
    }
    match lines.next()? {
        None => Ok(rows),
        Some(_) => Err(lines.wrong("there is more behind the last line")),
    }
}

fn row(octets: &str, unique_id: &str, header: &str) -> Result<Row, &'static str> {
    if !octets.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err("the octets are not a number");
    }
    let octets = octets.parse().map_err(|_| "the octets are not a number")?;
    let unique_id = UniqueId::new(unique_id.to_owned())
        .ok_or("the unique id does not have 1 to 70 octets from 0x21 to 0x7E")?;
    let header = match header {
        NO_HASH => None,
        hash => Some(HeaderHash::parse(hash).ok_or("the hash does not have 40 hex digits")?),
    };
    Ok(Row {
        octets,
        unique_id,
        header,
    })
}

struct Lines<'a, R> {
    input: &'a mut R,
    number: usize,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line, without its end; `None` behind the last one.
    fn next(&mut self) -> Result<Option<String>, FileError> {
        self.number += 1;
        let mut line = Vec::new();
        let mut bounded = self.input.take(LONGEST_LINE);
        bounded
            .read_until(b'\n', &mut line)
            .map_err(|error| self.wrong(format!("cannot be read: {error}")))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop() != Some(b'\n') {
            return Err(self.wrong("the line is too long, or cut off"));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let text = String::from_utf8(line).map_err(|_| self.wrong("it is not text"))?;
        Ok(Some(text))
    }

    fn wrong(&self, problem: impl Into<String>) -> FileError {
        FileError {
            line: self.number,
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn written(rows: &[Row]) -> String {
        let mut out = Vec::new();
        write(rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn reread(text: &str) -> Result<Vec<Row>, String> {
        read(&mut text.as_bytes()).map_err(|error| error.to_string())
    }

    fn two() -> Vec<Row> {
        let row = |octets, id: &str, header| Row {
            octets,
            unique_id: UniqueId::new(id.to_owned()).unwrap(),
            header,
        };
        vec![
            row(1532, "0000000165a1b2c3", HeaderHash::of(b"Subject: a\n")),
            row(u64::MAX, "end", None),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let text = written(&two());
        assert!(text.starts_with("popgate-unique-ids 1\n1532 0000000165a1b2c3 "));
        assert!(text.ends_with(" end -\nend 2\n"));
        assert_eq!(reread(&text), Ok(two()));
        assert_eq!(reread(&text.replace('\n', "\r\n")), Ok(two()));
        assert_eq!(reread(&written(&[])), Ok(Vec::new()));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let text = written(&two());
        for end in 0..text.len() {
            let error = reread(&text[..end]).unwrap_err();
            assert!(error.starts_with("line "), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let hash = "0".repeat(40);
        let long = "x".repeat(71);
        for (lines, says) in [
            ("user,password\n", "line 1: this is not a file of"),
            ("popgate-unique-ids 2\nend 0\n", "line 1: this is not"),
            (
                "popgate-unique-ids 1\n1 a -\n1 a -\nend 2\n",
                "line 3: line 2 has the same",
            ),
            ("popgate-unique-ids 1\n1 a -\nend 2\n", "line 3: the count"),
            (
                "popgate-unique-ids 1\nend 0\nend 0\n",
                "line 3: there is more",
            ),
            (
                "popgate-unique-ids 1\n1 a\nend 1\n",
                "line 2: expected octets",
            ),
            ("popgate-unique-ids 1\n\nend 0\n", "line 2: expected octets"),
            (
                "popgate-unique-ids 1\n+1 a -\nend 1\n",
                "line 2: the octets",
            ),
            ("popgate-unique-ids 1\n 1 -\nend 1\n", "line 2: the octets"),
            (
                "popgate-unique-ids 1\n1  -\nend 1\n",
                "line 2: the unique id",
            ),
            (
                &format!("popgate-unique-ids 1\n1 {long} -\nend 1\n"),
                "line 2: the unique id",
            ),
            (
                &format!("popgate-unique-ids 1\n1 a {hash}0\nend 1\n"),
                "line 2: the hash",
            ),
            (
                &format!("popgate-unique-ids 1\n{}", "1".repeat(300)),
                "line 2: the line is too long",
            ),
        ] {
            let error = reread(lines).unwrap_err();
            assert!(error.starts_with(says), "{lines:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in vec(any::<u8>(), 0..400)) {
            let mut text = format!("{FIRST_LINE}\n").into_bytes();
            text.extend(octets);
            let _ = read(&mut text.as_slice());
        }
    }
}
