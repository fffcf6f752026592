//! Many accounts to import at once, from a CSV file (RFC 4180).
//!
//! ```text
//! user,password,from_user,from_password
//! alice@example.org,secret one,alice,"secret ""two"""
//! bob@example.org,secret three,,
//! ```
//!
//! The first line names the columns, in any order. `from_user` and
//! `from_password` are for the old server; where they are missing or empty, they
//! are those of the new one. `password` may be empty where popgate has what opens
//! the mailbox.

use std::collections::HashMap;
use std::fmt;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use crate::sasl::{Credentials, SaslError, check_user};
use crate::secret::Secret;

/// One account: how to log in to the new server, and how to the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user name, as clients give it to popgate.
    pub user: String,
    /// The password for it; `None`: popgate has what opens the mailbox.
    pub password: Option<Secret>,
    /// At the old server; `None`: nobody logs in there.
    pub from: Option<Credentials>,
}

impl Account {
    /// A user name and a password, where one is needed, that may be passed on.
    pub fn new(user: &str, password: Option<Secret>) -> Result<Self, SaslError> {
        match &password {
            Some(password) => drop(Credentials::password(user, password.reveal())?),
            None => check_user(user)?,
        }
        Ok(Self {
            user: user.to_owned(),
            password,
            from: None,
        })
    }
}

/// The file cannot be used. What it holds is not repeated: it may be a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountsError {
    /// The line, from 1; 0 where it is about the whole file.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

impl AccountsError {
    fn at(line: u64, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self { line, problem }
    }
}

impl std::error::Error for AccountsError {}

impl fmt::Display for AccountsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.problem),
            line => write!(f, "line {line}: {}", self.problem),
        }
    }
}

/// Octets that some editors put before text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const USER: &str = "user";
const PASSWORD: &str = "password";
const FROM_USER: &str = "from_user";
const FROM_PASSWORD: &str = "from_password";

/// Reads all accounts, in the order of the file, or says which line is wrong.
/// Each `user` comes once.
pub fn parse(csv: &[u8]) -> Result<Vec<Account>, AccountsError> {
    let csv = csv.strip_prefix(BYTE_ORDER_MARK).unwrap_or(csv);
    let mut reader = ReaderBuilder::new().has_headers(false).from_reader(csv);
    let mut records = reader.byte_records();
    let header = match records.next() {
        Some(header) => header.map_err(|error| unreadable(csv, &error))?,
        None => return Err(AccountsError::at(0, "the file is empty")),
    };
    let columns = Columns::named(&header)?;
    let mut accounts = Vec::new();
    let mut seen: HashMap<String, u64> = HashMap::new();
    for record in records {
        let record = record.map_err(|error| unreadable(csv, &error))?;
        let line = line(csv, record.position());
        let account = columns.account(&record, line)?;
        if let Some(before) = seen.insert(account.user.clone(), line) {
            let problem = format!("line {before} has the same user");
            return Err(AccountsError::at(line, problem));
        }
        accounts.push(account);
    }
    match accounts.is_empty() {
        true => Err(AccountsError::at(0, "the file names no account")),
        false => Ok(accounts),
    }
}

/// Where the columns are.
struct Columns {
    user: usize,
    password: usize,
    from_user: Option<usize>,
    from_password: Option<usize>,
}

impl Columns {
    fn named(header: &ByteRecord) -> Result<Self, AccountsError> {
        let expected = [USER, PASSWORD, FROM_USER, FROM_PASSWORD];
        let wrong = |problem| AccountsError::at(1, problem);
        // Without a first line of names, this is an account: not to be shown.
        let named = |column: &[u8]| expected.iter().any(|name| column == name.as_bytes());
        if !header.iter().all(named) {
            return Err(wrong(
                "the first line must name the columns: user,password, and from_user,from_password where the old server has others",
            ));
        }
        let place = |name: &'static str| {
            let mut places = (0..header.len()).filter(|at| &header[*at] == name.as_bytes());
            let place = places.next();
            match places.next() {
                Some(_) => Err(AccountsError::at(
                    1,
                    format!("two columns are called {name}"),
                )),
                None => Ok(place),
            }
        };
        let needed = |name| {
            place(name)?.ok_or_else(|| AccountsError::at(1, format!("no column is called {name}")))
        };
        Ok(Self {
            user: needed(USER)?,
            password: needed(PASSWORD)?,
            from_user: place(FROM_USER)?,
            from_password: place(FROM_PASSWORD)?,
        })
    }

    fn account(&self, record: &ByteRecord, line: u64) -> Result<Account, AccountsError> {
        let text = |column: usize, name: &str| {
            let octets = record.get(column).unwrap_or_default();
            std::str::from_utf8(octets)
                .map_err(|_| AccountsError::at(line, format!("{name} is not UTF-8 text")))
        };
        let or_else = |column: Option<usize>, name, other| match column {
            Some(column) => Ok(Some(text(column, name)?)
                .filter(|it| !it.is_empty())
                .unwrap_or(other)),
            None => Ok(other),
        };
        let (user, password) = (text(self.user, USER)?, text(self.password, PASSWORD)?);
        let from_user = or_else(self.from_user, FROM_USER, user)?;
        let from_password = or_else(self.from_password, FROM_PASSWORD, password)?;
        let wrong = |names: [&str; 2]| {
            let names = format!("{} and {}", names[0], names[1]);
            move |error: SaslError| AccountsError::at(line, format!("{names}: {error}"))
        };
        let given = Some(password).filter(|it| !it.is_empty()).map(Secret::from);
        let account = Account::new(user, given).map_err(wrong([USER, PASSWORD]))?;
        let from = Credentials::password(from_user, from_password);
        Ok(Account {
            from: Some(from.map_err(wrong([FROM_USER, FROM_PASSWORD]))?),
            ..account
        })
    }
}

/// The line at which a record begins: the reader counts from the empty ones
/// before it, which it leaves out.
fn line(csv: &[u8], position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else {
        return 0;
    };
    let from = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let empty = csv.get(from..).unwrap_or_default().iter();
    let empty = empty.take_while(|octet| matches!(octet, b'\r' | b'\n'));
    position.line() + empty.filter(|octet| **octet == b'\n').count() as u64
}

fn unreadable(csv: &[u8], error: &csv::Error) -> AccountsError {
    let line = line(csv, error.position());
    match error.kind() {
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => AccountsError::at(
            line,
            format!(
                "it has {len} columns, and the first line {expected_len}: a comma or a quote within a value needs quotes around it"
            ),
        ),
        _ => AccountsError::at(line, "it cannot be read as CSV"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn password(credentials: &Credentials) -> &str {
        match credentials {
            Credentials::Password { password, .. } => password.reveal(),
            Credentials::Bearer { .. } => panic!("no password"),
        }
    }

    fn read(csv: &str) -> Vec<[String; 4]> {
        let accounts = parse(csv.as_bytes()).unwrap();
        let parts = |account: &Account| {
            let from = account.from.as_ref().unwrap();
            let to = account.password.as_ref().map_or("", Secret::reveal);
            [&account.user, to, from.user(), password(from)].map(str::to_owned)
        };
        accounts.iter().map(parts).collect()
    }

    #[test]
    fn columns_in_any_order_and_defaults() {
        assert_eq!(
            read("user,password\nalice, a b \nbob,\"x,\"\"y\"\"\"\n"),
            [
                ["alice", " a b ", "alice", " a b "],
                ["bob", "x,\"y\"", "bob", "x,\"y\""]
            ]
        );
        assert_eq!(
            read("\u{feff}from_password,user,from_user,password\r\nold,alice,al,new\r\n,bob,,b"),
            [["alice", "new", "al", "old"], ["bob", "b", "bob", "b"]]
        );
        assert_eq!(
            read("user,password,from_user\nalice,#s,\n#x,y,z\n"),
            [["alice", "#s", "alice", "#s"], ["#x", "y", "z", "y"]]
        );
        assert_eq!(
            read("user,password,from_user,from_password\nalice,,al,old\nbob,,,x\n"),
            [["alice", "", "al", "old"], ["bob", "", "bob", "x"]]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_without_what_it_holds() {
        for (csv, says) in [
            ("", "the file is empty"),
            ("user,password\n", "the file names no account"),
            (
                "alice,s3cret\nbob,s3cret\n",
                "line 1: the first line must name the columns",
            ),
            (
                "user;password\nalice;s3cret\n",
                "line 1: the first line must",
            ),
            (
                "user,from_password\nalice,s3cret\n",
                "line 1: no column is called password",
            ),
            (
                "user,password,user\na,s3cret,b\n",
                "line 1: two columns are called user",
            ),
            (
                "user,password\na,b\nalice,s3,cret\n",
                "line 3: it has 3 columns",
            ),
            ("user,password\n\n\nalice\n", "line 4: it has 1 columns"),
            (
                "user,password\n,s3cret\n",
                "line 2: user and password: empty",
            ),
            (
                "user,password\nalice,\n",
                "line 2: from_user and from_password: empty",
            ),
            (
                "user,password\nalice,\"s3cret\nx\"\n",
                "line 2: user and password: malformed",
            ),
            (
                "user,password,from_user\nalice,s3cret,b\tc\n",
                "line 2: from_user and from_password: malformed",
            ),
            (
                "user,password\nalice,s3cret\nbob,s3cret\nalice,s3cret\n",
                "line 4: line 2 has the same user",
            ),
        ] {
            let error = parse(csv.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(says), "{csv:?}: {error}");
            assert!(!error.contains("s3"), "{error}");
        }
        let error = parse(b"user,password\nalice,s3\xff\n")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "line 2: password is not UTF-8 text");
    }

    #[test]
    fn an_account_is_printed_without_its_passwords() {
        let accounts = parse(b"user,password\nalice,s3cret\n").unwrap();
        let printed = format!("{accounts:?}");
        assert!(printed.contains("alice") && !printed.contains("s3cret"));
        assert_eq!(format!("{:?}", Secret::from("x")), "[redacted]");
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets: Vec<u8>) {
            let mut csv = b"user,password\n".to_vec();
            csv.extend(octets);
            let _ = parse(&csv);
        }
    }
}
