//! The session resource (RFC 8620 §2): what the server can do, within which
//! limits, and where.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use url::Url;

use super::origin::Origins;
use super::session::is_called;
use crate::upstream::{Reason, UpstreamError};

pub(super) const CORE: &str = "urn:ietf:params:jmap:core";
pub(super) const MAIL: &str = "urn:ietf:params:jmap:mail";
pub(super) const BLOB: &str = "urn:ietf:params:jmap:blob";

/// What popgate needs of a session resource.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// The account whose mail this is.
    pub account: String,
    /// Whom the credentials are of, where the server says so.
    pub username: String,
    /// What the account is called; often its address.
    pub account_name: String,
    /// The account may not be changed.
    pub read_only: bool,
    /// `Blob/get` works in the account (RFC 9404).
    pub blob_get: bool,
    pub api: Url,
    pub limits: ServerLimits,
    /// Changes when any of this does.
    pub state: String,
    download: String,
    base: Url,
}

/// The server's own limits (RFC 8620 §2). Each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerLimits {
    /// Octets of one request.
    pub request: usize,
    pub concurrent_requests: usize,
    pub calls_in_request: usize,
    pub objects_in_get: usize,
    pub objects_in_set: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    capabilities: HashMap<String, Box<RawValue>>,
    accounts: HashMap<String, RawAccount>,
    #[serde(default)]
    primary_accounts: HashMap<String, String>,
    #[serde(default)]
    username: String,
    api_url: String,
    download_url: String,
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAccount {
    #[serde(default)]
    name: String,
    #[serde(default)]
    is_read_only: bool,
    /// Cyrus: null for a user who has no mailbox yet.
    #[serde(default)]
    account_capabilities: Option<HashMap<String, IgnoredAny>>,
}

impl Raw {
    fn with_mail(&self) -> impl Iterator<Item = (&String, &RawAccount)> {
        self.accounts
            .iter()
            .filter(|(_, account)| account.can(MAIL))
    }

    /// The user's own account: the primary one, or the only one.
    fn own(&self) -> Option<(&String, &RawAccount)> {
        let primary = self.primary_accounts.get(MAIL);
        let primary = primary.and_then(|id| self.accounts.get_key_value(id));
        let mut with_mail = self.with_mail();
        match (primary, with_mail.next(), with_mail.next()) {
            (Some(primary), ..) => Some(primary),
            (None, only, None) => only,
            _ => None,
        }
    }

    /// The account that another user shares, which goes by that user's name.
    fn shared_by(&self, owner: &str) -> Result<(&String, &RawAccount), UpstreamError> {
        let misconfigured = |what: &str| UpstreamError::Misconfigured(Reason::quoting(what, owner));
        let mut named: Vec<_> = self
            .with_mail()
            .filter(|(_, account)| is_called(owner, &account.name))
            .collect();
        if named.len() > 1 {
            let is_exact = |name: &str| name.to_lowercase() == owner.to_lowercase();
            named.retain(|(_, account)| is_exact(&account.name));
            if named.len() != 1 {
                return Err(misconfigured("several accounts have the name"));
            }
        }
        let missing = || misconfigured("no mailbox is shared with the user by");
        named.pop().ok_or_else(missing)
    }
}

impl RawAccount {
    fn can(&self, capability: &str) -> bool {
        let capabilities = self.account_capabilities.as_ref();
        capabilities.is_some_and(|it| it.contains_key(capability))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCore {
    max_size_request: Option<u64>,
    max_concurrent_requests: u64,
    max_calls_in_request: u64,
    max_objects_in_get: u64,
    max_objects_in_set: u64,
}

/// More than this at a time brings nothing.
const MOST_CONCURRENT: u64 = 4;
/// More objects than this in one answer are only memory.
pub(super) const MOST_OBJECTS: usize = 4096;
/// Octets of a request that popgate cannot do without: some ids and the words
/// around them.
const SMALLEST_REQUEST: u64 = 4096;
/// Larger requests than this are not made.
const LARGEST_REQUEST: u64 = 4 * 1024 * 1024;

impl Resource {
    /// Reads the resource that was found at `base`. Its URLs may be relative;
    /// where they lead to an origin that is not allowed, it is refused. The
    /// account is the user's own, or the one that `owner` shares.
    pub fn parse(
        json: &[u8],
        base: &Url,
        origins: &Origins,
        owner: Option<&str>,
    ) -> Result<Self, UpstreamError> {
        let raw: Raw = serde_json::from_slice(json)
            .map_err(|_| UpstreamError::protocol("this is no JMAP session resource"))?;
        let missing = |what: &str| UpstreamError::Misconfigured(what.into());
        let core = raw.capabilities.get(CORE);
        let core = core.ok_or_else(|| missing("the server does not offer JMAP (core)"))?;
        if !raw.capabilities.contains_key(MAIL) {
            return Err(missing("the server does not offer JMAP mail"));
        }
        let core: RawCore = serde_json::from_str(core.get())
            .map_err(|_| UpstreamError::protocol("the server's limits cannot be read"))?;
        let at_most = |limit: u64, most: u64| usize::try_from(limit.clamp(1, most)).unwrap_or(1);
        let request = core.max_size_request.unwrap_or(LARGEST_REQUEST);
        if request < SMALLEST_REQUEST || core.max_calls_in_request < 2 {
            return Err(missing(
                "the server takes too little in a request (maxSizeRequest, maxCallsInRequest)",
            ));
        }
        let limits = ServerLimits {
            request: at_most(request, LARGEST_REQUEST),
            concurrent_requests: at_most(core.max_concurrent_requests, MOST_CONCURRENT),
            calls_in_request: at_most(core.max_calls_in_request, 1000),
            objects_in_get: at_most(core.max_objects_in_get, MOST_OBJECTS as u64),
            objects_in_set: at_most(core.max_objects_in_set, MOST_OBJECTS as u64),
        };
        let (id, account) = match owner {
            None => raw
                .own()
                .ok_or_else(|| missing("the user has no mail account there"))?,
            Some(owner) => raw.shared_by(owner)?,
        };
        let resolve = |what: &str, text: &str| {
            let url = base.join(text).map_err(|_| {
                UpstreamError::Protocol(Reason::quoting("not a URL in the session resource", what))
            })?;
            if origins.allow(&url) {
                return Ok(url);
            }
            let reason = format!("the server's {what} is on a host that is not in trusted_hosts");
            let host = url.host_str().unwrap_or_default();
            Err(UpstreamError::Misconfigured(Reason::quoting(&reason, host)))
        };
        let resource = Self {
            account: id.clone(),
            username: raw.username.clone(),
            account_name: account.name.clone(),
            read_only: account.is_read_only,
            blob_get: raw.capabilities.contains_key(BLOB) && account.can(BLOB),
            api: resolve("apiUrl", &raw.api_url)?,
            limits,
            state: raw.state.clone(),
            download: raw.download_url.clone(),
            base: base.clone(),
        };
        // Without it, every message would be the same one.
        if !resource.download.contains("{blobId}") {
            return Err(UpstreamError::protocol("downloadUrl names no blob"));
        }
        resolve("downloadUrl", &resource.expand("blob")?)?;
        Ok(resource)
    }

    /// Whether requests go where those of `other` go.
    pub fn leads_as(&self, other: &Self) -> bool {
        self.api == other.api && self.download == other.download && self.base == other.base
    }

    /// Where the blob can be downloaded.
    pub fn download_url(&self, blob: &str) -> Result<Url, UpstreamError> {
        let text = self.expand(blob)?;
        self.base
            .join(&text)
            .map_err(|_| UpstreamError::protocol("downloadUrl makes no URL"))
    }

    /// Expands the URI template of downloads (RFC 6570 level 1, RFC 8620 §6.2).
    fn expand(&self, blob: &str) -> Result<String, UpstreamError> {
        let malformed = || UpstreamError::protocol("downloadUrl is no URI template of level 1");
        let mut text = String::with_capacity(self.download.len() + blob.len());
        let mut rest = self.download.as_str();
        while let Some(open) = rest.find('{') {
            text.push_str(&rest[..open]);
            let (name, after) = rest[open + 1..].split_once('}').ok_or_else(malformed)?;
            let value = match name {
                "accountId" => self.account.as_str(),
                "blobId" => blob,
                "type" => "application/octet-stream",
                "name" => "message.eml",
                other
                    if other
                        .bytes()
                        .all(|it| it.is_ascii_alphanumeric() || it == b'_') =>
                {
                    ""
                }
                _ => return Err(malformed()),
            };
            percent_encode(value, &mut text);
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }
}

/// All but the unreserved characters (RFC 3986 §2.3).
fn percent_encode(value: &str, text: &mut String) {
    for octet in value.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(octet));
            }
            _ => text.push_str(&format!("%{octet:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(api: &str, download: &str) -> String {
        serde_json::json!({
            "capabilities": {
                CORE: {
                    "maxSizeUpload": 1, "maxConcurrentUpload": 1, "maxSizeRequest": 5000,
                    "maxConcurrentRequests": 9, "maxCallsInRequest": 16,
                    "maxObjectsInGet": 500, "maxObjectsInSet": 0, "collationAlgorithms": []
                },
                MAIL: {}
            },
            "accounts": { "a/1": { "name": "x", "isPersonal": true, "isReadOnly": false,
                "accountCapabilities": { MAIL: {} } } },
            "primaryAccounts": { MAIL: "a/1" },
            "username": "x", "apiUrl": api, "downloadUrl": download,
            "uploadUrl": "", "eventSourceUrl": "", "state": "s1"
        })
        .to_string()
    }

    fn parse(json: &str) -> Result<Resource, UpstreamError> {
        let base = Url::parse("https://mail.example.com/jmap/session").unwrap();
        let origins = Origins::new(&base, &[]).unwrap();
        Resource::parse(json.as_bytes(), &base, &origins, None)
    }

    #[test]
    fn urls_may_be_relative_and_templates_are_expanded() {
        let download = "/dl/{accountId}/{blobId}/{name}?accept={type}&x={other}";
        let resource = parse(&json("../api/", download)).unwrap();
        assert_eq!(resource.api.as_str(), "https://mail.example.com/api/");
        let url = resource.download_url("b/ä?").unwrap();
        let expected = "https://mail.example.com/dl/a%2F1/b%2F%C3%A4%3F/message.eml\
                        ?accept=application%2Foctet-stream&x=";
        assert_eq!(url.as_str(), expected);
        assert_eq!(resource.limits.concurrent_requests, 4);
        assert_eq!(resource.limits.objects_in_set, 1);
        assert_eq!(resource.limits.request, 5000);
        assert!(!resource.blob_get);
    }

    #[test]
    fn limits_that_leave_no_room_are_refused() {
        let whole = json("/api", "/dl/{blobId}");
        for (from, to) in [
            ("\"maxCallsInRequest\":16", "\"maxCallsInRequest\":1"),
            ("\"maxSizeRequest\":5000", "\"maxSizeRequest\":0"),
        ] {
            let changed = whole.replace(from, to);
            assert_ne!(changed, whole);
            let refused = parse(&changed);
            assert!(matches!(refused, Err(UpstreamError::Misconfigured(_))));
        }
    }

    #[test]
    fn the_account_is_the_primary_one_or_the_only_one() {
        let whole = json("/api", "/dl/{blobId}");
        let primary = format!("\"primaryAccounts\":{{\"{MAIL}\":\"a/1\"}}");
        assert!(whole.contains(&primary));
        let without = whole.replace(&primary, "\"primaryAccounts\":{}");
        assert_eq!(parse(&without).unwrap().account, "a/1");
        let elsewhere = whole.replace(&primary, &primary.replace("a/1", "b"));
        assert_eq!(parse(&elsewhere).unwrap().account, "a/1");
        let start = whole.find("\"accounts\":{").unwrap() + "\"accounts\":{".len();
        let other = format!("\"b\":{{\"accountCapabilities\":{{\"{MAIL}\":{{}}}}}},");
        let mut two = without;
        two.insert_str(start, &other);
        assert!(matches!(parse(&two), Err(UpstreamError::Misconfigured(_))));
    }

    #[test]
    fn the_account_that_another_user_shares() {
        let whole = json("/api", "/dl/{blobId}");
        let start = whole.find("\"accounts\":{").unwrap() + "\"accounts\":{".len();
        let base = Url::parse("https://mail.example.com/jmap/session").unwrap();
        let origins = Origins::new(&base, &[]).unwrap();
        let shared = |names: &[&str], owner: &str| {
            let mut json = whole.clone();
            for (id, name) in names.iter().enumerate() {
                let account =
                    serde_json::json!({ "name": name, "accountCapabilities": { MAIL: {} } });
                json.insert_str(start, &format!("\"s{id}\":{account},"));
            }
            // One without mail is none.
            json.insert_str(
                start,
                "\"c\":{\"name\":\"carol\",\"accountCapabilities\":{}},",
            );
            Resource::parse(json.as_bytes(), &base, &origins, Some(owner)).map(|it| it.account)
        };
        for (names, owner, id) in [
            (&["bob"][..], "bob", "s0"),
            (&["dave", "Bob@example.org"], "bob", "s1"),
            (&["bob"], "BOB@example.org", "s0"),
            (
                &["bob@example.com", "bob@example.org"],
                "bob@example.org",
                "s1",
            ),
            (&["bob@example.com", "bob"], "bob", "s1"),
        ] {
            assert_eq!(shared(names, owner).unwrap(), id, "{names:?} {owner}");
        }
        for (names, owner) in [
            (&["bob@example.com"][..], "bob@example.org"),
            (&["bob@example.com", "bob@example.org"], "bob"),
            (&["bob", "bob"], "bob@example.org"),
            (&["bob", "bob"], "bob"),
            (&[""], "bob"),
            (&[], "carol"),
        ] {
            let refused = shared(names, owner);
            assert!(
                matches!(refused, Err(UpstreamError::Misconfigured(_))),
                "{names:?} {owner}: {refused:?}"
            );
        }
    }

    #[test]
    fn urls_on_other_hosts_are_refused() {
        for (api, download) in [
            ("https://evil.example/api", "/dl/{blobId}"),
            ("//evil.example/api", "/dl/{blobId}"),
            ("http://mail.example.com/api", "/dl/{blobId}"),
            ("/api", "https://evil.example/{blobId}"),
            ("/api", "https://{blobId}.evil.example/"),
        ] {
            let error = parse(&json(api, download)).unwrap_err();
            assert!(
                matches!(error, UpstreamError::Misconfigured(_)),
                "{api} {download} {error:?}"
            );
        }
    }

    #[test]
    fn what_is_no_session_resource() {
        let whole = json("/api", "/dl/{blobId}");
        assert!(parse(&whole).is_ok());
        assert!(matches!(parse("{}"), Err(UpstreamError::Protocol(_))));
        assert!(matches!(
            parse(&whole[..100]),
            Err(UpstreamError::Protocol(_))
        ));
        let deep = format!("{{\"capabilities\":{}", "[".repeat(5000));
        assert!(matches!(parse(&deep), Err(UpstreamError::Protocol(_))));
        let no_mail = whole.replace(MAIL, "urn:other");
        assert!(matches!(
            parse(&no_mail),
            Err(UpstreamError::Misconfigured(_))
        ));
        for download in ["/dl/{+blobId}", "/dl/{blobId", "/dl/{accountId}/"] {
            let refused = parse(&json("/api", download));
            assert!(matches!(refused, Err(UpstreamError::Protocol(_))));
        }
    }
}
