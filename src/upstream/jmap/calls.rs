//! Method calls (RFC 8620 §3) and what they answer.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ids::Ids;
use super::resource::{BLOB, CORE, MAIL};
use crate::upstream::{Reason, UpstreamError};

/// The calls of one request.
#[derive(Default)]
pub(super) struct Calls(Vec<(&'static str, Value)>);

impl Calls {
    /// Adds a call; its id is its place.
    pub fn push(mut self, method: &'static str, arguments: Value) -> Self {
        self.0.push((method, arguments));
        self
    }

    /// All of them are about this account.
    pub fn for_account(mut self, account: &str) -> Self {
        for (_, arguments) in &mut self.0 {
            arguments["accountId"] = json!(account);
        }
        self
    }

    /// The request as JSON.
    pub fn encode(&self) -> Vec<u8> {
        let calls: Vec<Value> = self
            .0
            .iter()
            .enumerate()
            .map(|(id, (method, arguments))| json!([method, arguments, id.to_string()]))
            .collect();
        let mut using = vec![CORE, MAIL];
        if self.0.iter().any(|(method, _)| method.starts_with("Blob/")) {
            using.push(BLOB);
        }
        json!({ "using": using, "methodCalls": calls })
            .to_string()
            .into_bytes()
    }

    fn method(&self, id: usize) -> Option<&'static str> {
        self.0.get(id).map(|(method, _)| *method)
    }

    /// Reads the response to these calls.
    pub fn decode(&self, json: Vec<u8>) -> Result<Answers, UpstreamError> {
        let no_jmap = || UpstreamError::protocol("a response that is not JMAP");
        let json = String::from_utf8(json).map_err(|_| no_jmap())?;
        let envelope: Envelope<'_> = serde_json::from_str(&json).map_err(|_| no_jmap())?;
        let session_state = envelope.session_state;
        let mut answers: Vec<Option<Answer>> = self.0.iter().map(|_| None).collect();
        for (name, arguments, id) in envelope.method_responses {
            let place = id.parse::<usize>().ok();
            let slot = place.and_then(|place| answers.get_mut(place));
            let (Some(slot), Some(method)) = (slot, place.and_then(|place| self.method(place)))
            else {
                return Err(UpstreamError::protocol("an answer to no call of ours"));
            };
            if slot.is_some() || (name != "error" && name != method) {
                return Err(UpstreamError::protocol("an answer to another call"));
            }
            // Where in `json` they are: to copy them would take as much memory
            // again.
            let start = arguments.get().as_ptr().addr() - json.as_ptr().addr();
            *slot = Some(Answer {
                failed: name == "error",
                arguments: start..start + arguments.get().len(),
            });
        }
        Ok(Answers {
            json,
            answers,
            session_state,
        })
    }
}

/// A method's name, what it answers, and the call's id (RFC 8620 §3.2).
type Response<'a> = (Cow<'a, str>, &'a RawValue, Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow, deserialize_with = "a_few")]
    method_responses: Vec<Response<'a>>,
    session_state: Option<String>,
}

/// More answers than popgate ever makes calls are not read.
const MOST_ANSWERS: usize = 16;

fn a_few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Response<'de>>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Vec<Response<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a few method responses")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut answers = Vec::new();
            while let Some(answer) = list.next_element()? {
                if answers.len() == MOST_ANSWERS {
                    return Err(A::Error::custom("too many method responses"));
                }
                answers.push(answer);
            }
            Ok(answers)
        }
    }
    deserializer.deserialize_seq(Few)
}

struct Answer {
    failed: bool,
    arguments: Range<usize>,
}

/// The answers to the calls of a request, by their places.
pub(super) struct Answers {
    json: String,
    answers: Vec<Option<Answer>>,
    /// The state that the session resource is in by now, where it was told.
    pub session_state: Option<String>,
}

/// A method failed (RFC 8620 §3.6.2).
#[derive(Debug)]
pub(super) struct MethodError {
    pub kind: String,
}

impl MethodError {
    /// Whether `ifInState` did not hold.
    pub fn is_state_mismatch(&self) -> bool {
        self.kind == "stateMismatch"
    }
}

impl From<MethodError> for UpstreamError {
    fn from(error: MethodError) -> Self {
        let reason = Reason::quoting("JMAP error", &error.kind);
        match error.kind.as_str() {
            "forbidden"
            | "accountNotFound"
            | "accountNotSupportedByMethod"
            | "accountReadOnly"
            | "unknownMethod"
            | "unknownCapability" => Self::Misconfigured(reason),
            "invalidArguments"
            | "invalidResultReference"
            | "unsupportedSort"
            | "unsupportedFilter" => Self::Protocol(reason),
            // serverUnavailable, serverFail, serverPartialFail, requestTooLarge,
            // stateMismatch, rateLimit and what is yet unheard of.
            _ => Self::temporary(reason),
        }
    }
}

impl Answers {
    /// The arguments of the answer to the call at `place`.
    pub fn get<T: DeserializeOwned>(&self, place: usize) -> Result<T, UpstreamError> {
        self.try_get(place)?.map_err(UpstreamError::from)
    }

    /// The same, with the method's own failure apart.
    pub fn try_get<T: DeserializeOwned>(
        &self,
        place: usize,
    ) -> Result<Result<T, MethodError>, UpstreamError> {
        #[derive(Deserialize)]
        struct Failed {
            r#type: String,
        }
        let unreadable = |_| UpstreamError::protocol("an answer of the wrong form");
        let answer = self.answers.get(place).and_then(Option::as_ref);
        let answer = answer.ok_or_else(|| UpstreamError::protocol("a call without an answer"))?;
        let arguments = self.json.get(answer.arguments.clone()).unwrap_or_default();
        if answer.failed {
            let failed: Failed = serde_json::from_str(arguments).map_err(unreadable)?;
            return Ok(Err(MethodError {
                kind: failed.r#type,
            }));
        }
        Ok(Ok(serde_json::from_str(arguments).map_err(unreadable)?))
    }
}

/// `Foo/query` (RFC 8620 §5.5).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueryAnswer {
    pub query_state: String,
    pub position: Option<u64>,
    pub ids: Ids,
    pub total: Option<u64>,
}

/// `Foo/get` (RFC 8620 §5.1).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GetAnswer<T> {
    pub state: String,
    pub list: Vec<T>,
    #[serde(default)]
    pub not_found: Ids,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls() -> Calls {
        Calls::default()
            .push("Email/query", json!({}))
            .push("Email/get", json!({}))
    }

    fn decode(json: &str) -> Result<Answers, UpstreamError> {
        calls().decode(json.into())
    }

    #[test]
    fn answers_belong_to_calls() {
        let good = r#"{"sessionState":"s","methodResponses":[
            ["Email/query",{"queryState":"q","ids":["a"]},"0"],["error",{"type":"forbidden"},"1"]]}"#;
        let answers = decode(good).unwrap();
        let queried: QueryAnswer = answers.get(0).unwrap();
        assert_eq!(queried.ids.iter().collect::<Vec<_>>(), ["a"]);
        let error = answers.get::<GetAnswer<Value>>(1).unwrap_err();
        assert!(matches!(error, UpstreamError::Misconfigured(_)));
    }

    #[test]
    fn what_a_request_uses_is_named() {
        let text = |calls: Calls| String::from_utf8(calls.encode()).unwrap();
        assert!(!text(calls()).contains(BLOB));
        assert!(text(calls().push("Blob/get", json!({}))).contains(BLOB));
    }

    #[test]
    fn answers_that_belong_to_none_are_errors() {
        for bad in [
            r#"{"methodResponses":[["Email/get",{},"0"]]}"#,
            r#"{"methodResponses":[["Email/query",{},"7"]]}"#,
            r#"{"methodResponses":[["Email/query",{},"0"],["Email/query",{},"0"]]}"#,
            r#"{"methodResponses":[["Email/query",{}]]}"#,
            r#"{"methodResponses":"#,
            r#"{"methodResponses":{}}"#,
            r#"{"methodResponses":[],"sessionState":7}"#,
            "[]",
        ] {
            assert!(
                matches!(decode(bad), Err(UpstreamError::Protocol(_))),
                "{bad}"
            );
        }
        let deep = format!("{{\"x\":{}", "[".repeat(5000));
        let many = format!(
            "{{\"methodResponses\":[{}]}}",
            "[\"\",0,\"\"],".repeat(5000)
        );
        for bad in [deep, many] {
            assert!(matches!(decode(&bad), Err(UpstreamError::Protocol(_))));
        }
        let nothing = decode(r#"{"methodResponses":[]}"#).unwrap();
        assert!(matches!(
            nothing.get::<QueryAnswer>(0),
            Err(UpstreamError::Protocol(_))
        ));
    }
}
