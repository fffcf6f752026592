//! The methods of a [`super::ScriptedJmap`], as far as popgate needs them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::account::{Account, SHARED};
use super::{OnAnswer, OnMethod, Reply};

/// Answers a request (RFC 8620 §3.3).
pub(super) fn answer(
    request: &Value,
    account: &mut Account,
    overrides: &[(String, OnMethod)],
    changes: &[(String, OnAnswer)],
) -> Reply {
    let Some(calls) = request["methodCalls"].as_array() else {
        return problem("notRequest");
    };
    if calls.len() > account.max_calls_in_request
        || request.to_string().len() > account.max_size_request
    {
        return problem("limit");
    }
    let mut responses: Vec<Value> = Vec::new();
    for call in calls {
        let name = call[0].as_str().unwrap_or_default();
        let arguments = resolve(&call[1], &responses);
        // A question for the state alone.
        let is_empty =
            arguments["ids"].as_array().is_some_and(Vec::is_empty) && call[1].get("ids").is_some();
        let changed = overrides
            .iter()
            .filter(|(method, _)| method == name && !is_empty)
            .find_map(|(_, answer)| answer(&arguments, account));
        let (name, answer) = match changed {
            Some(answer) => answer,
            None => match method(name, &arguments, account) {
                Ok(mut answer) => {
                    let changes = changes.iter().filter(|_| !is_empty);
                    for (_, change) in changes.filter(|(method, _)| method == name) {
                        change(&arguments, &mut answer);
                    }
                    (name.to_owned(), answer)
                }
                Err("limit") => return problem("limit"),
                Err(kind) => ("error".to_owned(), json!({ "type": kind })),
            },
        };
        responses.push(json!([name, answer, call[2]]));
    }
    Reply::json(&json!({
        "methodResponses": responses, "sessionState": account.session_state,
    }))
}

fn problem(kind: &str) -> Reply {
    let problem = json!({ "type": format!("urn:ietf:params:jmap:error:{kind}"), "status": 400 });
    let mut reply = Reply::json(&problem);
    reply.status = 400;
    reply
}

/// Result references (RFC 8620 §3.7), to lists of ids.
fn resolve(arguments: &Value, responses: &[Value]) -> Value {
    let mut resolved = Map::new();
    for (name, value) in arguments.as_object().unwrap() {
        match name.strip_prefix('#') {
            Some(name) => {
                let of = responses.iter().find(|it| it[2] == value["resultOf"]);
                let of = of.filter(|it| it[0] == value["name"]);
                let path = value["path"].as_str().unwrap();
                let ids = of.and_then(|it| it[1].pointer(path).cloned());
                let ids = ids.unwrap_or_default();
                resolved.insert(name.to_owned(), ids);
            }
            None => {
                resolved.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(resolved)
}

fn method(name: &str, arguments: &Value, account: &mut Account) -> Result<Value, &'static str> {
    let account = match (arguments["accountId"].as_str(), account) {
        (Some("acc"), account) => account,
        (
            Some(SHARED),
            Account {
                shared: Some((_, shared)),
                ..
            },
        ) => shared,
        _ => return Err("accountNotFound"),
    };
    match name {
        "Mailbox/query" => Ok(mailbox_query(arguments, account)),
        "Mailbox/get" => mailbox_get(arguments, account),
        "Email/query" => Ok(email_query(arguments, account)),
        "Email/changes" => email_changes(arguments, account),
        "Email/get" => email_get(arguments, account),
        "Email/set" => email_set(arguments, account),
        "Blob/get" if account.blobs => blob_get(arguments, account),
        _ => Err("unknownMethod"),
    }
}

fn ids(arguments: &Value, most: usize) -> Result<Vec<String>, &'static str> {
    let Some(ids) = arguments["ids"].as_array() else {
        return Err("invalidResultReference");
    };
    if ids.len() > most {
        return Err("limit");
    }
    let ids = ids.iter().map(|id| id.as_str().map(str::to_owned));
    ids.collect::<Option<_>>().ok_or("invalidArguments")
}

fn mailbox_query(arguments: &Value, account: &Account) -> Value {
    let role = arguments["filter"]["role"].as_str();
    let found: Vec<&String> = account
        .mailboxes
        .iter()
        .filter(|it| role.is_none() || it.role.as_deref() == role)
        .map(|it| &it.id)
        .collect();
    let position = usize::try_from(arguments["position"].as_u64().unwrap_or(0)).unwrap();
    let limit = arguments["limit"].as_u64().unwrap_or(u64::MAX);
    let limit = account.query_limit.min(usize::try_from(limit).unwrap());
    let ids: Vec<&&String> = found.iter().skip(position).take(limit).collect();
    let mut answer = json!({
        "accountId": "acc", "queryState": "1", "position": position, "ids": ids,
    });
    if arguments["calculateTotal"] == true {
        answer["total"] = json!(found.len());
    }
    answer
}

fn mailbox_get(arguments: &Value, account: &Account) -> Result<Value, &'static str> {
    let ids = ids(arguments, account.max_objects_in_get)?;
    let asked = account.mailboxes.iter().filter(|it| ids.contains(&it.id));
    let list: Vec<Value> = asked
        .map(|it| {
            let mut mailbox = json!({
                "id": it.id, "role": it.role, "name": it.name, "parentId": it.parent,
            });
            if !it.rights.is_null() {
                mailbox["myRights"] = it.rights.clone();
            }
            let there = account.emails.iter().filter(|email| email.is_in(&it.id));
            mailbox["totalEmails"] = json!(there.count());
            mailbox
        })
        .collect();
    Ok(json!({ "accountId": "acc", "state": "1", "list": list, "notFound": [] }))
}

fn email_query(arguments: &Value, account: &Account) -> Value {
    let mailbox = arguments["filter"]["inMailbox"].as_str().unwrap();
    let mut found: Vec<_> = account
        .emails
        .iter()
        .filter(|it| it.is_in(mailbox))
        .collect();
    found.sort_by(|one, other| one.received_at.cmp(&other.received_at));
    let position = usize::try_from(arguments["position"].as_u64().unwrap_or(0)).unwrap();
    let limit = arguments["limit"].as_u64().unwrap_or(u64::MAX);
    let limit = account.query_limit.min(usize::try_from(limit).unwrap());
    let ids: Vec<&String> = found
        .iter()
        .skip(position)
        .take(limit)
        .map(|it| &it.id)
        .collect();
    let mut answer = json!({
        "accountId": "acc", "queryState": format!("q{}", account.state),
        "canCalculateChanges": false, "position": position, "ids": ids,
    });
    if arguments["calculateTotal"] == true {
        answer["total"] = json!(found.len());
    }
    answer
}

/// RFC 8620 §5.2.
fn email_changes(arguments: &Value, account: &mut Account) -> Result<Value, &'static str> {
    let since = arguments["sinceState"].as_str().unwrap_or_default();
    let then = since.parse().ok().and_then(|it: u64| account.told.get(&it));
    let then = then.ok_or("cannotCalculateChanges")?;
    let now = account.held();
    let most = arguments["maxChanges"].as_u64().unwrap_or(u64::MAX);
    let most = account.most_changes.min(usize::try_from(most).unwrap());
    let (mut created, mut updated, mut destroyed) = (Vec::new(), Vec::new(), Vec::new());
    let mut after = then.clone();
    let mut has_more = false;
    let ids: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    for id in ids.into_iter().filter(|id| then.get(*id) != now.get(*id)) {
        if created.len() + updated.len() + destroyed.len() >= most {
            has_more = true;
            break;
        }
        match (then.get(id), now.get(id)) {
            (None, Some(_)) => created.push(id),
            (Some(_), Some(_)) => updated.push(id),
            (_, None) => destroyed.push(id),
        }
        match now.get(id) {
            Some(now) => after.insert(id.clone(), now.clone()),
            None => after.remove(id),
        };
    }
    let mut answer = json!({
        "accountId": "acc", "oldState": since, "hasMoreChanges": has_more,
        "created": created, "updated": updated, "destroyed": destroyed,
    });
    answer["newState"] = if has_more {
        // A state that never was, between two that were.
        let between = u64::MAX - account.told.len() as u64;
        account.told.insert(between, after);
        json!(between.to_string())
    } else {
        json!(account.tell_state())
    };
    Ok(answer)
}

fn email_get(arguments: &Value, account: &mut Account) -> Result<Value, &'static str> {
    let ids = ids(arguments, account.max_objects_in_get)?;
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(email) = account.emails.iter().find(|email| email.id == id) else {
            not_found.push(id);
            continue;
        };
        let mailboxes: Map<String, Value> = email
            .mailboxes
            .iter()
            .map(|id| (id.clone(), json!(true)))
            .collect();
        let keywords: Map<String, Value> = email
            .keywords
            .iter()
            .map(|keyword| (keyword.clone(), json!(true)))
            .collect();
        let all = json!({
            "id": email.id, "blobId": email.blob, "size": email.octets.len(),
            "receivedAt": email.received_at, "mailboxIds": mailboxes,
            "keywords": keywords,
        });
        let mut asked = json!({ "id": email.id });
        for property in arguments["properties"].as_array().unwrap() {
            let property = property.as_str().unwrap();
            asked[property] = all[property].clone();
        }
        list.push(asked);
    }
    // In no order (RFC 8620 §5.1).
    list.reverse();
    Ok(json!({
        "accountId": "acc", "state": account.tell_state(),
        "list": list, "notFound": not_found,
    }))
}

fn email_set(arguments: &Value, account: &mut Account) -> Result<Value, &'static str> {
    let old = account.state.to_string();
    if arguments["ifInState"].as_str().is_some_and(|it| it != old) {
        return Err("stateMismatch");
    }
    let update = arguments["update"].as_object().cloned().unwrap_or_default();
    let destroy = arguments["destroy"].as_array().cloned().unwrap_or_default();
    if update.len() + destroy.len() > account.max_objects_in_set {
        return Err("limit");
    }
    let (mut updated, mut not_updated) = (Map::new(), Map::new());
    for (id, patch) in update {
        let Some(email) = account.emails.iter_mut().find(|email| email.id == id) else {
            not_updated.insert(id, json!({ "type": "notFound" }));
            continue;
        };
        for (pointer, value) in patch.as_object().unwrap() {
            let (property, name) = pointer.split_once('/').unwrap();
            let set = match property {
                "mailboxIds" => &mut email.mailboxes,
                "keywords" => &mut email.keywords,
                other => panic!("{other} is no set"),
            };
            if value.is_null() {
                set.remove(name);
            } else {
                set.insert(name.to_owned());
            }
        }
        updated.insert(id, Value::Null);
    }
    let (mut destroyed, mut not_destroyed) = (Vec::new(), Map::new());
    for id in destroy {
        let id = id.as_str().unwrap();
        if account.emails.iter().any(|email| email.id == id) {
            account.emails.retain(|email| email.id != id);
            destroyed.push(id.to_owned());
        } else {
            not_destroyed.insert(id.to_owned(), json!({ "type": "notFound" }));
        }
    }
    account.state += 1;
    Ok(json!({
        "accountId": "acc", "oldState": old, "newState": account.state.to_string(),
        "updated": updated, "destroyed": destroyed,
        "notUpdated": not_updated, "notDestroyed": not_destroyed,
    }))
}

/// RFC 9404 §4.2.
fn blob_get(arguments: &Value, account: &Account) -> Result<Value, &'static str> {
    let ids = ids(arguments, account.max_objects_in_get)?;
    let number = |name: &str| {
        arguments[name]
            .as_u64()
            .map(|it| usize::try_from(it).unwrap())
    };
    let (mut list, mut not_found) = (Vec::new(), Vec::new());
    for id in ids {
        let Some(email) = account.emails.iter().find(|email| email.blob == id) else {
            not_found.push(id);
            continue;
        };
        let start = number("offset").unwrap_or(0).min(email.octets.len());
        let wanted = start + number("length").unwrap_or(usize::MAX / 2);
        let end = wanted.min(email.octets.len());
        list.push(json!({
            "id": id, "data:asBase64": STANDARD.encode(&email.octets[start..end]),
            "isTruncated": wanted > end,
        }));
    }
    Ok(json!({ "accountId": "acc", "list": list, "notFound": not_found }))
}
