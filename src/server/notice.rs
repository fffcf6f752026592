//! What an account's owner finds in front of the maildrop when the provider no
//! longer lets popgate in: one message that says so, and where to sign in again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use url::{Host, Url};

use crate::accounts::{Account, Credential};
use crate::maildrop::UniqueId;
use crate::upstream::Notice;

/// What the unique ids begin with. JMAP has no `!` in its ids (RFC 8620 §1.2), nor
/// has IMAP in its numbers.
const MARK: &str = "popgate!notice!";

/// The notice about an account.
pub(super) fn compose(account: &Account, provider: &str, sign_in: Option<&Url>) -> Notice {
    let since = account.trouble.as_ref().map(|trouble| trouble.since);
    let id = death(account, since);
    let at = since
        .and_then(|since| u64::try_from(since).ok())
        .map_or_else(SystemTime::now, |since| {
            UNIX_EPOCH + Duration::from_secs(since)
        });
    // The zone as numbers (RFC 5322 §3.3).
    let date = httpdate::fmt_http_date(at).replace("GMT", "+0000");
    let (mailbox, provider) = (plain(account.mailbox()), plain(provider));
    let host = sender(sign_in);
    let how = match sign_in {
        Some(url) => format!("To get your mail again, sign in here:\r\n\r\n    {url}\r\n"),
        None => "To get your mail again, ask the operator of this mail service how to\r\n\
                 sign in.\r\n"
            .to_owned(),
    };
    let text = format!(
        "Date: {date}\r\n\
         From: popgate <noreply@{host}>\r\n\
         To: {to}\r\n\
         Subject: Please sign in again: your mail cannot be fetched\r\n\
         Message-ID: <{id}@{host}>\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\n\
         \r\n\
         Hello,\r\n\
         \r\n\
         {provider} no longer lets this mail service into the mailbox\r\n\
         \r\n\
         \u{20}   {mailbox}\r\n\
         \r\n\
         Until you sign in again, no new mail can be fetched. It happens when a\r\n\
         password was changed, when the permission was withdrawn, or when it was\r\n\
         not used for a long time. Your mail is safe where it is.\r\n\
         \r\n\
         {how}\
         \r\n\
         The messages behind this one are still listed, so that your mail program\r\n\
         does not take them for gone; they can neither be read nor deleted now.\r\n\
         This message goes away by itself. You may delete it: nothing else is.\r\n\
         \r\n\
         -- \r\n\
         popgate\r\n",
        to = plain(&account.address),
    );
    Notice {
        unique_id: UniqueId::of(format!("{MARK}{id}")),
        text: text.into(),
    }
}

/// Names what has died: what somebody signed in for dies once. What needs nobody's
/// sign-in may die again another time.
fn death(account: &Account, since: Option<i64>) -> String {
    let what = match &account.credential {
        Credential::OAuth(tokens) => format!("signed in {}", tokens.signed_in),
        Credential::Provider => format!("provider {since:?}"),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    let whole = format!("{}\n{}\n{what}", account.address, account.created);
    let sum = digest(&SHA256, whole.as_bytes());
    sum.as_ref()
        .iter()
        .take(16)
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// Text without control characters, in one line of moderate length.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|it| !it.is_control())
        .take(320)
        .collect()
}

/// The host that the notice comes from, for its header.
fn sender(sign_in: Option<&Url>) -> String {
    match sign_in.and_then(Url::host) {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => format!("[{address}]"),
        Some(Host::Ipv6(address)) => format!("[IPv6:{address}]"),
        None => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(address: &str) -> Account {
        let stored = r#"{"created": 1, "home": "gateway", "credential": "provider"}"#;
        Account {
            address: address.to_owned(),
            ..serde_json::from_str(stored).unwrap()
        }
    }

    #[test]
    fn nothing_in_it_can_be_taken_for_more_of_it() {
        let hostile = account("a@b.example\r\nBcc: everybody@example.org\r\n\r\n.\u{1b}[2J");
        let link = "http://127.0.0.1:8080/enrol".parse().unwrap();
        let notice = compose(&hostile, "Evil\r\n.\r\nProvider", Some(&link));
        let text = String::from_utf8(notice.text.to_vec()).unwrap();
        let header = text.split_once("\r\n\r\n").unwrap().0;
        assert_eq!(header.lines().count(), 9, "{header}");
        assert!(!text.replace("\r\n", "").contains(char::is_control));
        assert!(header.contains("From: popgate <noreply@[127.0.0.1]>"));
        assert!(text.contains("\r\n    http://127.0.0.1:8080/enrol\r\n"));
        assert!(text.lines().all(|line| line.len() <= 998 && line != "."));
    }

    #[test]
    fn its_unique_id_tells_deaths_apart() {
        let id = |account: &Account| compose(account, "x", None).unique_id;
        let alice = account("alice@example.org");
        assert_eq!(id(&alice), id(&alice));
        assert!(id(&alice).as_str().starts_with(MARK));
        assert_ne!(id(&alice), id(&account("bob@example.org")));
        let mut later = alice.clone();
        later.created = 2;
        assert_ne!(id(&alice), id(&later));
    }
}
