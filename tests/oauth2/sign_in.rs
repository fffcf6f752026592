//! Authorisation codes with PKCE, and who signed in.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_code_becomes_tokens() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let request = client.begin(&redirect(), Some("alice@example.org")).await;
    let request = request.unwrap();
    let sent = |name| parameter(&request.url, name);
    assert_eq!(sent("response_type").as_deref(), Some("code"));
    assert_eq!(sent("client_id").as_deref(), Some(CLIENT_ID));
    assert_eq!(sent("redirect_uri").unwrap(), redirect().as_str());
    assert_eq!(sent("scope").as_deref(), Some("openid email mail"));
    assert_eq!(sent("access_type").as_deref(), Some("offline"));
    assert_eq!(sent("login_hint").as_deref(), Some("alice@example.org"));
    assert_eq!(sent("code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(sent("nonce").as_deref(), Some(request.nonce.reveal()));
    // The verifier stays here.
    assert!(!request.url.as_str().contains(request.verifier.reveal()));

    let back = server.sign_in(&request.url, "alice@example.org");
    assert_eq!(parameter(&back, "state").unwrap(), request.state.reveal());
    let iss = parameter(&back, "iss");
    assert_eq!(client.check_issuer(iss.as_deref()).await, Ok(()));
    let code = Secret::new(parameter(&back, "code").unwrap());
    let tokens = client.finish(&request, &redirect(), &code).await.unwrap();
    assert_eq!(tokens.identity.as_deref(), Some("alice@example.org"));
    assert!(tokens.refresh.is_some());
    let left = tokens.expires_at - now();
    assert!((3500..=3600).contains(&left), "{left}");
    // The id token told it; nobody else was asked.
    let endpoints: Vec<_> = server.asked().into_iter().map(|it| it.endpoint).collect();
    assert_eq!(endpoints, ["authorize", "token"]);
    // Some answer by a form where no JSON is asked for.
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.all["accept"], "application/json");
}

#[tokio::test]
async fn no_two_requests_share_anything() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let one = client.begin(&redirect(), None).await.unwrap();
    let other = client.begin(&redirect(), None).await.unwrap();
    let secrets = [
        one.state,
        one.verifier,
        one.nonce,
        other.state,
        other.verifier,
        other.nonce,
    ];
    let distinct: std::collections::BTreeSet<_> = secrets.iter().map(Secret::reveal).collect();
    assert_eq!(distinct.len(), 6);
    // 43 characters of base64url: 256 bits, as long as RFC 7636 §4.1 wants them.
    assert!(secrets.iter().all(|it| it.reveal().len() == 43));
    assert_eq!(parameter(&one.url, "login_hint"), None);
}

#[tokio::test]
async fn parameters_of_the_provider_replace_none_of_ours() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let mut registration = registration(&server);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    registration.authorization_parameters = vec![
        pair("state", "fixed"),
        pair("code_challenge_method", "plain"),
        pair("prompt", "consent"),
    ];
    let mut authorization = server.url("authorize");
    authorization.set_query(Some("tenant=a%26b"));
    registration.endpoints.authorization = Some(authorization);
    let client = Client::new(registration).unwrap();
    let request = client.begin(&redirect(), None).await.unwrap();
    let count = |name| {
        request
            .url
            .query_pairs()
            .filter(|(it, _)| it == name)
            .count()
    };
    assert_eq!(count("state"), 1);
    assert_eq!(
        parameter(&request.url, "state").unwrap(),
        request.state.reveal()
    );
    assert_eq!(count("code_challenge_method"), 1);
    assert_eq!(
        parameter(&request.url, "prompt").as_deref(),
        Some("consent")
    );
    assert_eq!(parameter(&request.url, "tenant").as_deref(), Some("a&b"));
}

#[tokio::test]
async fn a_code_is_good_once_and_with_its_verifier_only() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    // A second time: what came of the first time ends as well (RFC 6749 §4.1.2).
    let (request, good) = code(&server, &client).await;
    let tokens = client.finish(&request, &redirect(), &good).await.unwrap();
    let again = client.finish(&request, &redirect(), &good).await;
    assert!(is_not_signed_in(&again), "{again:?}");
    let refreshed = refreshed(&client, &tokens.refresh.unwrap()).await;
    assert!(is_refused(&refreshed), "{refreshed:?}");

    // The code of one browser with what was kept for another.
    let (mine, _) = code(&server, &client).await;
    let (_, theirs) = code(&server, &client).await;
    let swapped = client.finish(&mine, &redirect(), &theirs).await;
    assert!(is_not_signed_in(&swapped), "{swapped:?}");

    // Another redirect, a code that nobody gave, one that has ended.
    let (request, good) = code(&server, &client).await;
    let elsewhere = "http://127.0.0.1:1/elsewhere".parse().unwrap();
    assert!(is_not_signed_in(
        &client.finish(&request, &elsewhere, &good).await
    ));
    let guessed = client
        .finish(&request, &redirect(), &"guessed".into())
        .await;
    assert!(is_not_signed_in(&guessed));
    server.set(json!({"code_lifetime": -1}));
    let (request, late) = code(&server, &client).await;
    assert!(is_not_signed_in(
        &client.finish(&request, &redirect(), &late).await
    ));
}

#[tokio::test]
async fn the_person_refuses() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let request = client.begin(&redirect(), None).await.unwrap();
    let back = server.refuse_sign_in(&request.url);
    assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&back, "state").unwrap(), request.state.reveal());
    assert_eq!(parameter(&back, "code"), None);
}

#[tokio::test]
async fn who_signed_in() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let who = |tokens: Tokens| tokens.identity;

    server.claim("Bob@Example.ORG");
    let identity = who(signed_in(&server, &client).await);
    assert_eq!(identity.as_deref(), Some("bob@example.org"));

    // Nobody has verified it: it may be anybody's.
    server.set(json!({"email_verified": false}));
    assert_eq!(who(signed_in(&server, &client).await), None);
    server.set(json!({"email_verified": true, "id_token": false}));

    // The id token is not there: userinfo says it.
    server.forget_requests();
    let identity = who(signed_in(&server, &client).await);
    assert_eq!(identity.as_deref(), Some("bob@example.org"));
    assert_eq!(server.asked().last().unwrap().endpoint, "userinfo");
    server.set(json!({"email_verified": false}));
    assert_eq!(who(signed_in(&server, &client).await), None);

    // Nobody says it.
    server.set(json!({"identity": "nobody", "id_token": true, "email_verified": true}));
    assert_eq!(who(signed_in(&server, &client).await), None);
}

#[tokio::test]
async fn userinfo_of_somebody_else() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let silent = json!({"email": null, "preferred_username": null, "sub": "another"});
    server.set(json!({"id_claims": silent}));
    let (request, code) = code(&server, &client).await;
    let finished = client.finish(&request, &redirect(), &code).await;
    assert!(is_not_signed_in(&finished), "{finished:?}");
}

#[tokio::test]
async fn userinfo_that_fails() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    server.set(json!({"id_token": false}));
    for (status, times, temporary) in [
        (503, 1, false),
        (503, 3, true),
        (401, 1, false),
        (403, 1, false),
    ] {
        server.fault(json!({"endpoint": "userinfo", "status": status, "times": times}));
        let (request, code) = code(&server, &client).await;
        let finished = client.finish(&request, &redirect(), &code).await;
        if temporary {
            assert!(is_temporary(&finished), "{finished:?}");
        } else {
            let told = (status == 503).then(|| "alice@example.org".to_owned());
            assert_eq!(finished.unwrap().identity, told);
        }
    }
}

#[tokio::test]
async fn id_tokens_of_another_sign_in() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let finish = async |claims| {
        server.set(json!({"id_claims": claims}));
        let (request, code) = code(&server, &client).await;
        client.finish(&request, &redirect(), &code).await
    };
    for nonce in [json!("another"), json!(null)] {
        let finished = finish(json!({"nonce": nonce})).await;
        assert!(is_not_signed_in(&finished), "{finished:?}");
    }
    for claims in [
        json!({"iss": "https://another.example.org"}),
        json!({"aud": "another"}),
        json!({"aud": [CLIENT_ID], "azp": "another"}),
        json!({"exp": 1_000_000_000}),
        json!({"iss": null}),
    ] {
        let finished = finish(claims.clone()).await;
        assert!(is_misconfigured(&finished), "{claims} {finished:?}");
    }
    assert!(finish(json!({"aud": ["another", CLIENT_ID]})).await.is_ok());
}

#[tokio::test]
async fn callbacks_name_their_issuer() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let client = client(&server);
    let issuer = server.issuer();
    assert_eq!(client.check_issuer(Some(&issuer)).await, Ok(()));
    let other = client
        .check_issuer(Some("https://another.example.org"))
        .await;
    assert!(is_not_signed_in(&other));
    assert!(is_not_signed_in(&client.check_issuer(Some("")).await));
    // Nobody has said that this provider names itself.
    assert_eq!(client.check_issuer(None).await, Ok(()));
    // Here it has.
    let mut registration = registration(&server);
    registration.endpoints = Endpoints {
        issuer: registration.endpoints.issuer,
        ..Endpoints::default()
    };
    let discovering = Client::new(registration).unwrap();
    assert_eq!(discovering.check_issuer(Some(&issuer)).await, Ok(()));
    assert!(is_not_signed_in(&discovering.check_issuer(None).await));
}

#[tokio::test]
async fn a_public_client() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let mut registration = registration(&server);
    registration.client_id = support::authorization_server::PUBLIC_CLIENT_ID.to_owned();
    registration.client_proof = ClientProof::None;
    let tokens = signed_in(&server, &Client::new(registration).unwrap()).await;
    assert!(tokens.refresh.is_some());
}

#[tokio::test]
async fn a_client_that_must_not_show_its_secret() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let mut registration = registration(&server);
    registration.client_id = support::authorization_server::PUBLIC_CLIENT_ID.to_owned();
    let client = Client::new(registration).unwrap();
    let tokens = signed_in(&server, &client).await;
    assert!(client.refresh(&tokens.refresh.unwrap()).await.is_ok());
}

#[tokio::test]
async fn userinfo_of_a_provider_without_openid() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let mut registration = registration(&server);
    registration.scopes = vec!["mail".to_owned()];
    let client = Client::new(registration.clone()).unwrap();
    let tokens = signed_in(&server, &client).await;
    assert_eq!(tokens.identity.as_deref(), Some("alice@example.org"));
    registration.endpoints.userinfo = None;
    let client = Client::new(registration).unwrap();
    assert_eq!(signed_in(&server, &client).await.identity, None);
}

#[tokio::test]
async fn a_client_that_is_not_known() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let right = client(&server);
    let mut registration = registration(&server);
    registration.client_proof = ClientProof::Secret("wrong".into());
    let client = Client::new(registration).unwrap();
    let (request, code) = code(&server, &right).await;
    let finished = client.finish(&request, &redirect(), &code).await;
    assert!(is_misconfigured(&finished), "{finished:?}");
    assert!(!format!("{finished:?}").contains("wrong\""));
}
