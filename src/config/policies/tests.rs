#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Purpose, resolve::resolve};
use crate::maildrop::{DeletePolicy, SeenPolicy};

const IMAP: &str = "imap+plain://127.0.0.1";
const JMAP: &str = "http://127.0.0.1:8080/jmap";

fn resolved(upstream: &str, lines: &str) -> Result<(Policies, Vec<String>), String> {
    let text = format!("upstream = \"{upstream}\"\npop3 = \"127.0.0.1:0\"\n{lines}");
    let settings = Settings::from_text(&text).map_err(|error| error.to_string())?;
    resolve(settings, Purpose::Serve)
        .map(|config| (config.server.policies, config.warnings))
        .map_err(|error| error.to_string())
}

fn policies(lines: &str) -> Policies {
    resolved(IMAP, lines).unwrap().0
}

fn days(days: u64) -> Option<Duration> {
    Some(DAY * u32::try_from(days).unwrap())
}

#[test]
fn an_account_stands_above_its_domain_above_the_gateway() {
    let state = tempfile::tempdir().unwrap();
    let policies = policies(&format!(
        r#"
        state = {:?}
        delete = "expunge"
        seen = "on-retr"
        max_age = "1y"
        login_delay = "5m"
        unique_ids = "cyrus"
        [domain."Example.COM"]
        delete = "move:Old/POP3"
        folders = ["INBOX", "Junk"]
        max_messages = 5000
        expire_after = "30d"
        [account."Support@example.com"]
        folders = "Support"
        shared = "team@example.com"
        max_age = "0d"
        login_delay = "0s"
        [account.alice]
        seen = "on-quit"
        "#,
        state.path().to_str().unwrap()
    ));
    let folders = |rules: &Rules| {
        let names = rules.policy.folders.iter();
        names.map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let bob = policies.of("bob");
    assert_eq!(bob.policy.delete, DeletePolicy::Expunge);
    assert_eq!(
        (bob.policy.seen, folders(bob)),
        (SeenPolicy::OnRetr, "INBOX".into())
    );
    assert_eq!(bob.policy.window.max_age, days(365));
    assert_eq!(bob.login_delay, Some(Duration::from_secs(300)));

    let in_domain = policies.of("carol@EXAMPLE.com");
    assert_eq!(in_domain.policy.delete.to_string(), "move:Old/POP3");
    assert_eq!(in_domain.policy.seen, SeenPolicy::OnRetr);
    assert_eq!(folders(in_domain), "INBOX Junk");
    assert_eq!(in_domain.policy.window.max_messages, Some(5000));
    assert_eq!(in_domain.policy.expire_after, days(30));
    assert_eq!(in_domain.login_delay, Some(Duration::from_secs(300)));

    let support = policies.of("support@example.com");
    assert_eq!(support.policy.delete.to_string(), "move:Old/POP3");
    assert_eq!(folders(support), "Support");
    assert_eq!(support.policy.shared.as_deref(), Some("team@example.com"));
    assert_eq!(support.policy.window.max_age, None);
    assert_eq!(support.policy.expire_after, days(30));
    assert_eq!(support.policy.unique_ids, Some("cyrus".parse().unwrap()));
    assert_eq!(support.login_delay, None);

    let alice = policies.of("Alice");
    assert_eq!(alice.policy.delete, DeletePolicy::Expunge);
    assert_eq!(alice.policy.seen, SeenPolicy::OnQuit);
}

#[test]
fn separators_and_recent() {
    assert_eq!(policies("").separator.as_deref(), Some("+"));
    assert_eq!(policies("folder_separator = \"\"").separator, None);
    let other = policies("folder_separator = \"--\"\nrecent = \"1w\"");
    assert_eq!(other.separator.as_deref(), Some("--"));
    assert_eq!(Some(other.recent), days(7));
}

#[test]
fn windows_reach_back_for_years() {
    assert_eq!(
        policies("max_age = \"10y\"").gateway.policy.window.max_age,
        days(3650)
    );
    let (_, warnings) = resolved(IMAP, "max_age = \"12h\"").unwrap();
    let warned = |warnings: &[String]| warnings.iter().any(|it| it.contains("EXPIRE 0"));
    assert!(warned(&warnings), "{warnings:?}");
    assert!(!warned(&resolved(IMAP, "max_age = \"1d\"").unwrap().1));
}

#[test]
fn what_is_refused_and_why() {
    for (upstream, lines, says) in [
        (
            IMAP,
            "delete = \"archives\"",
            "popgate.toml:3: delete: \"archives\" is no policy for deleting: expected one of: trash, expunge, archive, move:FOLDER, seen, hide, refuse",
        ),
        (
            IMAP,
            "delete = \"move:a/../b\"",
            "popgate.toml:3: delete: \"move:a/../b\" is no policy for deleting: a folder's name has no level . or ..",
        ),
        (
            IMAP,
            "seen = \"always\"",
            "popgate.toml:3: seen: \"always\" is no policy for marking as read: expected one of: never, on-retr, on-quit",
        ),
        (IMAP, "folders = []", "popgate.toml:3: folders: is empty"),
        (
            IMAP,
            "folders = [\n\"INBOX\",\n\"a*\"]",
            "popgate.toml:5: folders: \"a*\" is no folder: a folder's name holds no control characters",
        ),
        (
            IMAP,
            "folders = [\n\"INBOX\",\n\"Inbox\"]",
            "popgate.toml:5: folders: \"Inbox\" is named twice",
        ),
        (
            IMAP,
            "recent = \"0d\"",
            "popgate.toml:3: recent: must be at least 1s",
        ),
        (
            IMAP,
            "folder_separator = \"@\"",
            "popgate.toml:3: folder_separator: expected up to 16 signs of punctuation",
        ),
        (
            IMAP,
            "folder_separator = \"x\"",
            "popgate.toml:3: folder_separator: expected up to 16 signs of punctuation",
        ),
        (
            IMAP,
            "expire_after = \"30d\"",
            "popgate.toml:3: expire_after: popgate must remember when messages were retrieved: set state",
        ),
        (
            IMAP,
            "[domain.\"example.com\"]\nexpire_after = \"30d\"",
            "popgate.toml:4: domain.\"example.com\".expire_after: popgate must remember",
        ),
        (
            IMAP,
            "[domain.\"\"]",
            "popgate.toml:3: domain.\"\": is empty",
        ),
        (
            IMAP,
            "[account.\" \"]",
            "popgate.toml:3: account.\" \": is empty",
        ),
        (
            IMAP,
            "[account.\"a \"]",
            "popgate.toml:3: account.\"a \": no user name has spaces around it",
        ),
        (
            IMAP,
            "[account.\"Recent:a\"]",
            "popgate.toml:3: account.\"Recent:a\": asks for recent mail",
        ),
        (
            IMAP,
            "[domain.\"a@example.com\"]",
            "popgate.toml:3: domain.\"a@example.com\": is an account, not a domain",
        ),
        (
            IMAP,
            "[domain.\"Example.com\"]\n[domain.\"example.com\"]",
            "popgate.toml:4: domain.\"example.com\": is configured twice",
        ),
        (
            IMAP,
            "[account.\"b@x\"]\n[account.\"A@x\"]\n[account.\"B@x\"]",
            "popgate.toml:5: account.\"B@x\": is configured twice",
        ),
        (
            IMAP,
            "[domain.\"example.com\"]\nshared = \"a\"",
            "popgate.toml:4: domain.\"example.com\".shared: is for accounts",
        ),
        (
            IMAP,
            "[account.a]\nshared = \"\"",
            "popgate.toml:4: account.a.shared: is empty",
        ),
        (
            IMAP,
            "unique_ids = \"%v\"",
            "popgate.toml:3: unique_ids: the format must contain the UID",
        ),
        (
            IMAP,
            "unique_ids = \"jmap\"",
            "popgate.toml:3: unique_ids: needs blobIds, which only JMAP has",
        ),
        (
            IMAP,
            "[account.a]\nunique_ids = \"%{blobid}\"",
            "popgate.toml:4: account.a.unique_ids: needs blobIds",
        ),
        (
            JMAP,
            "unique_ids = \"dovecot\"",
            "popgate.toml:3: unique_ids: needs UIDs, which JMAP does not have",
        ),
        (
            JMAP,
            "unique_ids = \"%g\"",
            "popgate.toml:3: unique_ids: needs GUIDs, which JMAP does not have",
        ),
        (
            JMAP,
            "unique_ids = \"gmail\"",
            "popgate.toml:3: unique_ids: needs X-GM-MSGID",
        ),
    ] {
        let problem = resolved(upstream, lines).unwrap_err();
        assert!(problem.starts_with(says), "{lines}: {problem}");
    }
    assert!(resolved(JMAP, "unique_ids = \"emailid\"").is_ok());
    assert!(resolved(JMAP, "unique_ids = \"jmap\"").is_ok());
    assert!(resolved(IMAP, "unique_ids = \"emailid\"\ndelete = \"hide\"").is_ok());
}
