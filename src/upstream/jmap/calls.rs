//! Method calls (RFC 8620 §3) and what they answer.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{
    DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ids::Ids;
use super::resource::{BLOB, CORE, MAIL, MOST_OBJECTS};
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
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
    at_most::<D, Response<'de>, MOST_ANSWERS>(deserializer)
}

/// A list of no more than this.
fn at_most<'de, D, T, const MOST: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Few<T, const MOST: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of no more than {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == MOST {
                    return Err(A::Error::custom("a list that is too long"));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(Few::<T, MOST>(PhantomData))
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
#[serde(rename_all = "camelCase", bound(deserialize = "T: Deserialize<'de>"))]
pub(super) struct GetAnswer<T> {
    pub state: String,
    /// No more than can be asked for at once.
    #[serde(deserialize_with = "at_most::<_, _, MOST_OBJECTS>")]
    pub list: Vec<T>,
    #[serde(default)]
    pub not_found: Ids,
}

/// `Foo/set` (RFC 8620 §5.3).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetAnswer {
    #[serde(default)]
    pub destroyed: Ids,
    #[serde(default)]
    pub not_updated: Failures,
    #[serde(default)]
    pub not_destroyed: Failures,
}

/// What could not be changed. However much that is, it takes no memory.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// How many there are.
    pub count: usize,
    /// Why the first of them was refused that was there.
    pub refused: Option<Box<str>>,
}

impl<'de> Deserialize<'de> for Failures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct SetError<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
        }
        struct ById;
        impl<'de> Visitor<'de> for ById {
            type Value = Failures;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("errors by id")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Failures, E> {
                Ok(Failures::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Failures, A::Error> {
                let mut failures = Failures::default();
                while let Some((_, error)) = map.next_entry::<IgnoredAny, SetError<'_>>()? {
                    failures.count += 1;
                    if error.r#type != "notFound" && failures.refused.is_none() {
                        failures.refused = Some(error.r#type.into());
                    }
                }
                Ok(failures)
            }
        }
        deserializer.deserialize_any(ById)
    }
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
    fn what_could_not_be_changed() {
        let read = |json: &str| serde_json::from_str::<SetAnswer>(json);
        let answer = read(
            r#"{"notUpdated":{"a":{"type":"notFound"},"b":{"type":"forbid\u0064en","x":[1]},
            "c":{"type":"other"}},"notDestroyed":null,"destroyed":["d"]}"#,
        )
        .unwrap();
        assert_eq!(answer.not_updated.count, 3);
        assert_eq!(answer.not_updated.refused.as_deref(), Some("forbidden"));
        assert_eq!(answer.not_destroyed.count, 0);
        assert_eq!(answer.destroyed.len(), 1);
        for bad in [
            r#"{"notUpdated":[]}"#,
            r#"{"notUpdated":{"a":7}}"#,
            r#"{"notUpdated":{"a":{}}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_that_nobody_asked_for_are_not_read() {
        let list = |count: usize| {
            let list = vec!["0"; count].join(",");
            let answer = format!(r#"{{"state":"s","list":[{list}]}}"#);
            serde_json::from_str::<GetAnswer<u8>>(&answer).map(|it| it.list.len())
        };
        assert_eq!(list(MOST_OBJECTS).unwrap(), MOST_OBJECTS);
        assert!(list(MOST_OBJECTS + 1).is_err());
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
