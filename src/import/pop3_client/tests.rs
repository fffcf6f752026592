use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::import::Flaw;
use crate::secret::Secret;

/// What the client must say, and what it hears then. The server leaves behind
/// the last line.
type Script = &'static [(&'static str, &'static str)];

const NO_CAPA: (&str, &str) = ("CAPA\r\n", "-ERR what?\r\n");
const USER: (&str, &str) = ("USER alice\r\n", "+OK\r\n");
const LOGIN: Script = &[NO_CAPA, USER, ("PASS s3cret pw\r\n", "+OK logged in\r\n")];

fn credentials() -> Credentials {
    Credentials::password("alice", "s3cret pw").unwrap()
}

fn serve(parts: &[Script]) -> (DuplexStream, JoinHandle<()>) {
    let lines: Vec<(&str, &str)> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    let (client, mut server) = duplex(1 << 20);
    let served = tokio::spawn(async move {
        for (expected, answer) in lines {
            let mut heard = vec![0; expected.len()];
            server.read_exact(&mut heard).await.unwrap();
            assert_eq!(String::from_utf8(heard).unwrap(), expected);
            server.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (client, served)
}

async fn authenticated(client: DuplexStream) -> Result<Session<DuplexStream>, Pop3Error> {
    Session::authenticate(Wire::new(client, Timeouts::default()), &credentials()).await
}

/// Logs in, then lists.
async fn listing(script: Script) -> Result<Vec<Listed>, String> {
    let (client, served) = serve(&[LOGIN, script]);
    let mut session = authenticated(client).await.unwrap();
    let listing = session.listing().await.map_err(|error| error.to_string());
    served.await.unwrap();
    listing
}

/// Logs in and asks for headers.
async fn headers(
    login: Script,
    script: Script,
    places: &[Place],
) -> Result<HashMap<Place, HeaderHash>, String> {
    let (client, served) = serve(&[login, script]);
    let mut session = authenticated(client).await.unwrap();
    let headers = session.headers(places, &|_| {}).await;
    served.await.unwrap();
    headers.map_err(|error| error.to_string())
}

async fn refused_login(script: Script) -> String {
    let (client, served) = serve(&[script]);
    let outcome = authenticated(client).await;
    served.await.unwrap();
    match outcome {
        Ok(_) => panic!("logged in"),
        Err(error) => {
            let debug = format!("{error:?}");
            assert!(!debug.contains("s3cret"), "{debug}");
            error.to_string()
        }
    }
}

#[tokio::test]
async fn sizes_and_unique_ids_in_order() {
    let listed = listing(&[
        ("STAT\r\n", "+OK 3 600\r\n"),
        (
            "LIST\r\n",
            "+OK 3 messages\r\n1 100\r\n2 200 more\r\n3 300\r\n.\r\n",
        ),
        ("UIDL\r\n", "+OK\r\n2  a b\r\n1 one \r\n3 one\r\n.\r\n"),
    ])
    .await
    .unwrap();
    let octets: Vec<u64> = listed.iter().map(|message| message.octets).collect();
    assert_eq!(octets, [100, 200, 300]);
    assert_eq!(listed[0].unique_id.as_ref().unwrap().as_str(), "one");
    assert_eq!(listed[1].unique_id, Err(Flaw::Invalid));
    assert_eq!(listed[2].unique_id, Err(Flaw::Duplicate));
}

#[tokio::test]
async fn an_empty_maildrop_has_no_listing() {
    assert_eq!(
        listing(&[("STAT\r\n", "+OK 0 0\r\n")]).await,
        Ok(Vec::new())
    );
}

#[tokio::test]
async fn a_listing_is_whole_or_an_error() {
    const TWO: (&str, &str) = ("STAT\r\n", "+OK 2 30\r\n");
    const SIZES: (&str, &str) = ("LIST\r\n", "+OK\r\n1 10\r\n2 20\r\n.\r\n");
    let cases: &[(Script, &str)] = &[
        (&[("STAT\r\n", "+OK two\r\n")], "does not say how many"),
        (&[("STAT\r\n", "+OK +2 3\r\n")], "does not say how many"),
        (&[("STAT\r\n", "+OK 4294967295 3\r\n")], "too many"),
        (
            &[("STAT\r\n", "-ERR busy\r\n")],
            "STAT was refused (the server says: busy)",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n.\r\n")],
            "LIST has 1 messages, and STAT counts 2",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n2 20\r\n3 30\r\n.\r\n")],
            "LIST has a message that STAT does not count",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n0 10\r\n2 20\r\n.\r\n")],
            "STAT does not count",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n1 20\r\n.\r\n")],
            "LIST has a message twice",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n2x 20\r\n.\r\n")],
            "without a message number",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n2 -20\r\n.\r\n")],
            "how large a message is",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n2 20\n.\r\n")],
            "does not end in CRLF",
        ),
        (
            &[TWO, ("LIST\r\n", "+OK\r\n1 10\r\n")],
            "the connection was lost",
        ),
        (&[TWO, ("LIST\r\n", "LIST\r\n")], "neither +OK nor -ERR"),
        (
            &[TWO, SIZES, ("UIDL\r\n", "-ERR UIDL needs a number\r\n")],
            "does not list its unique ids",
        ),
        (
            &[TWO, SIZES, ("UIDL\r\n", "+OK\r\n1 a\r\n.\r\n")],
            "UIDL has 1 messages",
        ),
        (
            &[
                TWO,
                SIZES,
                ("UIDL\r\n", "+OK\r\n1 a\r\n2 b\r\n3 c\r\n.\r\n"),
            ],
            "UIDL has a message that",
        ),
        (
            &[TWO, SIZES, ("UIDL\r\n", "+OK\r\n2 a\r\n2 b\r\n.\r\n")],
            "UIDL has a message twice",
        ),
        (
            &[TWO, SIZES, ("UIDL\r\n", "+OK\r\n1 a\r\n2")],
            "the connection was lost",
        ),
        (
            &[TWO, SIZES, ("UIDL\r\n", "+OK\r\n1 a\r\n\r\n.\r\n")],
            "without a message number",
        ),
    ];
    for (script, says) in cases {
        let error = listing(script).await.unwrap_err();
        assert!(error.contains(says), "{script:?}: {error}");
    }
}

#[tokio::test]
async fn a_listing_cut_off_anywhere_is_an_error() {
    let lines = "+OK\r\n1 10\r\n2 20\r\n.\r\n";
    for end in 0..lines.len() {
        let (client, mut server) = duplex(1 << 16);
        server.write_all(&lines.as_bytes()[..end]).await.unwrap();
        server.shutdown().await.unwrap();
        let mut session = Session {
            wire: Wire::new(client, Timeouts::default()),
            capabilities: None,
            count: 2,
            has_top: false,
        };
        // The server is not read from: the command lies in the pipe.
        assert!(session.rows(&Command::List).await.is_err(), "cut at {end}");
    }
}

#[tokio::test]
async fn lines_are_bounded() {
    for opening in [
        "",
        "+OK 1 1\r\n+OK\r\n",
        "+OK 1 1\r\n+OK\r\n1 1\r\n.\r\n+OK\r\n1 ",
    ] {
        let (client, mut server) = duplex(1 << 10);
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            server.write_all(opening.as_bytes()).await?;
            loop {
                server.write_all(&[b'x'; 1000]).await?;
                sent += 1000;
                assert!(sent < 100_000, "it reads on and on");
            }
            #[allow(unreachable_code)]
            Ok::<(), std::io::Error>(())
        });
        let mut session = Session {
            wire: Wire::new(client, Timeouts::default()),
            capabilities: None,
            count: 1,
            has_top: false,
        };
        let error = session.listing().await.unwrap_err().to_string();
        assert!(
            error.contains("a line does not end") || error.contains("more than it was asked"),
            "{error}"
        );
        drop(session);
        assert!(flood.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn an_endless_top_is_left() {
    for line in [&b"X: y\r\n"[..], b"xxxxxxxx"] {
        let (client, mut server) = duplex(1 << 16);
        let flood = tokio::spawn(async move {
            server.write_all(b"+OK\r\n").await?;
            let lines = line.repeat(10_000);
            loop {
                server.write_all(&lines).await?;
            }
            #[allow(unreachable_code)]
            Ok::<(), std::io::Error>(())
        });
        let mut session = Session {
            wire: Wire::new(client, Timeouts::default()),
            capabilities: None,
            count: 1,
            has_top: false,
        };
        let error = session.headers(&[0], &|_| {}).await.unwrap_err();
        assert!(error.to_string().contains("does not end"), "{error}");
        drop(session);
        assert!(flood.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_header_too_long_to_look_at_matches_nothing() {
    let (client, mut server) = duplex(1 << 16);
    let served = tokio::spawn(async move {
        server.write_all(b"+OK\r\n").await.unwrap();
        for _ in 0..2 * LONGEST_HEADER / 1000 {
            let line = format!("X: {}\r\n", "y".repeat(1000));
            server.write_all(line.as_bytes()).await.unwrap();
        }
        server.write_all(b"\r\n.\r\n").await.unwrap();
        server
    });
    let mut session = Session {
        wire: Wire::new(client, Timeouts::default()),
        capabilities: None,
        count: 1,
        has_top: false,
    };
    assert_eq!(
        session.headers(&[0], &|_| {}).await.unwrap(),
        HashMap::new()
    );
    drop(served);
}

#[tokio::test]
async fn headers_are_unstuffed_and_end_at_the_blank_line() {
    let hashes = headers(
        LOGIN,
        &[
            ("TOP 1 0\r\n", "+OK\r\nSubject: a\r\n..b: c\r\n\r\n.\r\n"),
            (
                "TOP 3 0\r\n",
                "+OK\r\nSubject: b\r\n\r\nbody: it sends\r\n.\r\n",
            ),
            // A line end that is none: its dot is text.
            ("TOP 4 0\r\n", "+OK\r\nSubject: c\n.\r\nX: y\r\n.\r\n"),
            ("TOP 2 0\r\n", "-ERR gone\r\n"),
            ("TOP 5 0\r\n", "+OK\r\n.\r\n"),
        ],
        &[0, 2, 3, 1, 4],
    )
    .await
    .unwrap();
    let hash = |header: &str| HeaderHash::of(header.as_bytes()).unwrap();
    let expected = HashMap::from([
        (0, hash("Subject: a\n.b: c\n")),
        (2, hash("Subject: b\n")),
        (3, hash("Subject: c\n.\nX: y\n")),
    ]);
    assert_eq!(hashes, expected);
}

const LOGIN_PIPELINING: Script = &[
    ("CAPA\r\n", "+OK\r\nUSER\r\n.\r\n"),
    ("USER alice\r\n", "+OK\r\n"),
    ("PASS s3cret pw\r\n", "+OK\r\n"),
    ("CAPA\r\n", "+OK\r\nTOP\r\nUIDL\r\npipelining\r\n.\r\n"),
];

#[tokio::test]
async fn tops_are_pipelined_where_that_is_offered() {
    const SENT: &str = "TOP 1 0\r\nTOP 2 0\r\nTOP 3 0\r\nTOP 4 0\r\nTOP 5 0\r\nTOP 6 0\r\nTOP 7 0\r\nTOP 8 0\r\nTOP 9 0\r\nTOP 10 0\r\nTOP 11 0\r\nTOP 12 0\r\nTOP 13 0\r\nTOP 14 0\r\nTOP 15 0\r\nTOP 16 0\r\n";
    const ANSWER: &str = "+OK\r\nSubject: a\r\n.\r\n";
    const EIGHT: &str = "+OK\r\na: b\r\n.\r\n-ERR\r\n+OK\r\na: b\r\n.\r\n+OK\r\na: b\r\n.\r\n+OK\r\na: b\r\n.\r\n+OK\r\na: b\r\n.\r\n+OK\r\na: b\r\n.\r\n+OK\r\na: b\r\n.\r\n";
    let places: Vec<Place> = (0..18).collect();
    let progress = Mutex::new(Vec::new());
    let (client, served) = serve(&[
        LOGIN_PIPELINING,
        &[
            (SENT, EIGHT),
            ("TOP 17 0\r\nTOP 18 0\r\n", EIGHT),
            ("", ANSWER),
            ("", ANSWER),
        ],
    ]);
    let mut session = authenticated(client).await.unwrap();
    let tell = |done| progress.lock().unwrap().push(done);
    let hashes = session.headers(&places, &tell).await.unwrap();
    served.await.unwrap();
    assert_eq!(hashes.len(), 16);
    assert!(!hashes.contains_key(&1) && !hashes.contains_key(&9));
    assert_eq!(hashes[&17], HeaderHash::of(b"Subject: a").unwrap());
    assert_eq!(*progress.lock().unwrap(), (1..=18).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_top_it_says_so_and_retrieves_nothing() {
    const NO_TOP: Script = &[
        ("CAPA\r\n", "+OK\r\nUSER\r\n.\r\n"),
        ("USER alice\r\n", "+OK\r\n"),
        ("PASS s3cret pw\r\n", "+OK\r\n"),
        ("CAPA\r\n", "+OK\r\nUSER\r\nUIDL\r\n.\r\n"),
    ];
    let error = headers(NO_TOP, &[], &[0]).await.unwrap_err();
    assert!(error.contains("has no TOP"), "{error}");
    let error = headers(LOGIN, &[("TOP 1 0\r\n", "-ERR what?\r\n")], &[0]).await;
    assert!(error.unwrap_err().contains("has no TOP"));
}

#[tokio::test]
async fn a_server_that_says_more_than_it_was_asked_for_is_left() {
    let error = listing(&[("STAT\r\n", "+OK 1 1\r\n+OK\r\n1 1\r\n.\r\n")]).await;
    assert!(error.unwrap_err().contains("more than it was asked for"));
    let more = &[("TOP 1 0\r\n", "+OK\r\na: b\r\n.\r\n+OK\r\n")];
    let error = headers(LOGIN, more, &[0]).await.unwrap_err();
    assert!(error.contains("more than it was asked for"), "{error}");
}

#[tokio::test]
async fn auth_plain_where_user_is_not_offered() {
    let (client, served) = serve(&[&[
        ("CAPA\r\n", "+OK\r\nsasl LOGIN plain\r\nTOP\r\n.\r\n"),
        ("AUTH PLAIN\r\n", "+ \r\n"),
        ("AGFsaWNlAHMzY3JldCBwdw==\r\n", "+OK\r\n"),
        ("CAPA\r\n", "-ERR not now\r\n"),
        ("QUIT\r\n", "+OK\r\n"),
    ]]);
    let session = authenticated(client).await.unwrap();
    assert_eq!(session.capabilities, None);
    session.quit().await;
    served.await.unwrap();
}

#[tokio::test]
async fn refused_logins() {
    let cases: &[(Script, &str)] = &[
        (
            &[NO_CAPA, ("USER alice\r\n", "-ERR no such user\r\n")],
            "the login was refused (the server says: no such user)",
        ),
        (
            &[
                NO_CAPA,
                USER,
                ("PASS s3cret pw\r\n", "-ERR [AUTH] no\x07\r\n"),
            ],
            "the login was refused (the server says: [AUTH] no\\u{7})",
        ),
        (
            &[
                NO_CAPA,
                USER,
                ("PASS s3cret pw\r\n", "-ERR what is PASS s3cret pw?\r\n"),
            ],
            "the login was refused (the server says: [it may quote the password])",
        ),
        (
            &[NO_CAPA, USER, ("PASS s3cret pw\r\n", "-ERR\r\n")],
            "the login was refused",
        ),
        (
            &[("CAPA\r\n", "+OK\r\nSTLS\r\n.\r\n")],
            "the server offers neither USER nor SASL PLAIN on this connection; it may insist on TLS (pop3s:// or pop3+stls://)",
        ),
        (
            &[
                ("CAPA\r\n", "+OK\r\nSASL PLAIN\r\n.\r\n"),
                ("AUTH PLAIN\r\n", "+ \r\n"),
                (
                    "AGFsaWNlAHMzY3JldCBwdw==\r\n",
                    "-ERR AGFsaWNlAHMzY3JldCBwdw==\r\n",
                ),
            ],
            "the login was refused (the server says: [it may quote the password])",
        ),
        (
            &[
                ("CAPA\r\n", "+OK\r\nSASL PLAIN\r\n.\r\n"),
                ("AUTH PLAIN\r\n", "-ERR unknown\r\n"),
            ],
            "AUTH PLAIN was refused (the server says: unknown)",
        ),
        (
            &[
                ("CAPA\r\n", "+OK\r\nSASL PLAIN\r\n.\r\n"),
                ("AUTH PLAIN\r\n", "+OK\r\n"),
            ],
            "protocol error: AUTH PLAIN is not answered by a challenge",
        ),
        (
            &[NO_CAPA, USER, ("PASS s3cret pw\r\n", "")],
            "the connection was lost",
        ),
    ];
    for (script, says) in cases {
        assert_eq!(refused_login(script).await, *says);
    }
}

#[tokio::test]
async fn a_password_quoted_much_later_is_not_repeated() {
    let error = listing(&[("STAT\r\n", "-ERR s3cret pw\r\n")]).await;
    let error = error.unwrap_err();
    assert_eq!(
        error,
        "STAT was refused (the server says: [it may quote the password])"
    );
}

#[tokio::test]
async fn a_password_quoted_by_nonsense_is_not_repeated() {
    let error = refused_login(&[NO_CAPA, USER, ("PASS s3cret pw\r\n", "PASS s3cret pw\r\n")]).await;
    assert!(error.starts_with("protocol error"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silence_and_trickle_end() {
    let (client, _silent) = duplex(1 << 10);
    let error = authenticated(client).await.err().unwrap();
    assert!(matches!(error, Pop3Error::Timeout), "{error}");

    let (client, mut server) = duplex(1 << 10);
    tokio::spawn(async move {
        let mut heard = [0; 6];
        server.read_exact(&mut heard).await.unwrap();
        server.write_all(b"+OK\r\n").await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_secs(200)).await;
            if server.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let error = authenticated(client).await.err().unwrap();
    assert!(matches!(error, Pop3Error::Timeout), "{error}");
}

#[test]
fn no_command_deletes_or_retrieves() {
    let password = Secret::from("p");
    // The compiler asks for a new command to be added here.
    let name = |command: &Command<'_>| match command {
        Command::Capa
        | Command::Stls
        | Command::User(_)
        | Command::Pass(_)
        | Command::AuthPlain
        | Command::Response(_)
        | Command::Stat
        | Command::List
        | Command::Uidl
        | Command::Header(_)
        | Command::Quit => command.line().split([' ', '\r']).next().unwrap().to_owned(),
    };
    let all = [
        Command::Capa,
        Command::Stls,
        Command::User("u"),
        Command::Pass(&password),
        Command::AuthPlain,
        Command::Stat,
        Command::List,
        Command::Uidl,
        Command::Header(0),
        Command::Quit,
    ];
    assert_eq!(
        all.each_ref().map(name),
        [
            "CAPA", "STLS", "USER", "PASS", "AUTH", "STAT", "LIST", "UIDL", "TOP", "QUIT"
        ]
    );
}
