//! The requests of each grant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use ring::digest;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::answer::{self, Granted, Problem, now};
use super::assertion::Signer;
use super::device::{Polling, Step};
use super::discovery::{Known, discover};
use super::flight::Flight;
use super::form::Form;
use super::http::{Http, bearer, check, sensitive, temporary};
use super::identity::{Claims, Expected, same_issuer};
use super::{
    AuthorizationRequest, ClientProof, DeviceAuthorization, Grant, NotRefreshed, Registration,
    TokenError, Tokens, random,
};
use crate::secret::Secret;

/// How long a request may take. Generous: an answer that is not waited for may hold
/// the only refresh token that is still good.
const PATIENCE: Duration = Duration::from_secs(60);
/// A token for a mailbox is not used for the last of its time, in seconds; nor for
/// the second half of it, where that is shorter.
const EARLY: i64 = 600;
/// Before userinfo is asked again.
const USERINFO_PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];
/// Mailboxes whose tokens are kept.
const MOST_MAILBOXES: usize = 10_000;
/// Characters of the longest code that is read to a person.
const LONGEST_USER_CODE: usize = 64;

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Asks one provider for tokens.
pub struct Client {
    registration: Box<Registration>,
    http: Http,
    signer: Option<Box<Signer>>,
    known: Flight<Arc<Known>>,
    mailboxes: Mutex<HashMap<String, Arc<Flight<Kept>>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.registration.fmt(f)
    }
}

/// Tokens for a mailbox.
#[derive(Clone, Debug)]
struct Kept {
    tokens: Tokens,
    /// In seconds of Unix time.
    renew_at: i64,
}

impl Kept {
    fn new(tokens: Tokens) -> Self {
        let now = now();
        let lifetime = tokens.expires_at.saturating_sub(now);
        let renew_at = tokens.expires_at.saturating_sub(EARLY.min(lifetime / 2));
        Self { tokens, renew_at }
    }

    fn is_fresh(&self) -> bool {
        now() < self.renew_at
    }
}

impl Client {
    /// Nothing is asked yet; what `endpoints.issuer` tells is asked when it is
    /// first needed, and kept.
    pub fn new(registration: Registration) -> Result<Self, TokenError> {
        Self::with_patience(registration, PATIENCE)
    }

    /// The same, where no request takes longer than `patience`.
    pub fn with_patience(
        registration: Registration,
        patience: Duration,
    ) -> Result<Self, TokenError> {
        for url in registration.endpoints.all() {
            check(url)?;
        }
        let signer = match &registration.client_proof {
            ClientProof::Certificate { key, thumbprint } => {
                let signer = match registration.grant {
                    Grant::ServiceAccount => Signer::of_account(key, thumbprint),
                    Grant::User | Grant::ClientCredentials => Signer::of_client(key, thumbprint),
                };
                Some(Box::new(signer?))
            }
            ClientProof::None | ClientProof::Secret(_) => None,
        };
        if registration.grant == Grant::ServiceAccount && signer.is_none() {
            let reason = "a service account needs its private key";
            return Err(TokenError::Misconfigured(reason.to_owned()));
        }
        Ok(Self {
            http: Http::new(&registration.tls, patience)?,
            signer,
            known: Flight::new(),
            mailboxes: Mutex::default(),
            registration: Box::new(registration),
        })
    }

    /// The registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Where to send somebody who is to sign in (RFC 6749 §4.1.1, PKCE S256).
    /// `address` is a hint.
    pub async fn begin(
        &self,
        redirect: &Url,
        address: Option<&str>,
    ) -> Result<AuthorizationRequest, TokenError> {
        let known = self.known().await?;
        let url = known.endpoints.authorization.clone();
        let mut url = url.ok_or_else(|| {
            TokenError::Misconfigured("the provider has no authorization_url".into())
        })?;
        let (state, verifier, nonce) = (random()?, random()?, random()?);
        // RFC 7636 §4.2.
        let challenge = digest::digest(&digest::SHA256, verifier.reveal().as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(challenge);
        let scope = self.scope();
        let mut own = vec![
            ("response_type", "code"),
            ("client_id", &self.registration.client_id),
            ("redirect_uri", redirect.as_str()),
            ("state", state.reveal()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        if !scope.is_empty() {
            own.push(("scope", &scope));
        }
        if self.asks_who() {
            own.push(("nonce", nonce.reveal()));
        }
        if let Some(address) = address {
            own.push(("login_hint", address));
        }
        let more = &self.registration.authorization_parameters;
        let more = more
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !own.iter().any(|(taken, _)| taken == name));
        url.query_pairs_mut()
            .extend_pairs(own.iter().copied().chain(more));
        Ok(AuthorizationRequest {
            url,
            state,
            verifier,
            nonce,
        })
    }

    /// Whether the callback's `iss` (RFC 9207 §2.4) is this provider's. Where it
    /// is not, another one's code may have been slipped in: throw it away.
    pub async fn check_issuer(&self, iss: Option<&str>) -> Result<(), TokenError> {
        let known = self.known().await?;
        let matches = match (iss, &known.endpoints.issuer) {
            (Some(iss), Some(issuer)) => same_issuer(iss, issuer.as_str()),
            (None, _) => !known.callback_names_issuer,
            (Some(_), None) => true,
        };
        if matches {
            return Ok(());
        }
        let reason = "another provider has answered";
        Err(TokenError::NotSignedIn(reason.to_owned()))
    }

    /// The code that the browser brought (RFC 6749 §4.1.3). The caller has compared
    /// the state, and seen that it is used once.
    pub async fn finish(
        &self,
        request: &AuthorizationRequest,
        redirect: &Url,
        code: &Secret,
    ) -> Result<Tokens, TokenError> {
        let form = Form::new("authorization_code")
            .with_secret("code", code)
            .with("redirect_uri", redirect.as_str())
            .with_secret("code_verifier", &request.verifier);
        let granted = self.ask(form).await.map_err(|problem| {
            // A code that is no longer good is nobody's token that died.
            match problem.meaning {
                TokenError::Refused(reason) => TokenError::NotSignedIn(reason),
                meaning => meaning,
            }
        })?;
        let nonce = self.asks_who().then_some(&request.nonce);
        self.signed_in(granted, nonce).await
    }

    /// Whether the provider has device codes.
    pub async fn has_device_codes(&self) -> Result<bool, TokenError> {
        Ok(self.known().await?.endpoints.device.is_some())
    }

    /// A device code (RFC 8628 §3.1).
    pub async fn device(&self) -> Result<DeviceAuthorization, TokenError> {
        #[derive(Deserialize)]
        struct Answer {
            device_code: String,
            user_code: String,
            // Google and Microsoft's first version have another name for it.
            #[serde(alias = "verification_url")]
            verification_uri: Url,
            verification_uri_complete: Option<Url>,
            expires_in: Option<Value>,
            interval: Option<Value>,
        }
        let known = self.known().await?;
        let url = known.endpoints.device.clone();
        let url = url.ok_or_else(|| {
            TokenError::Misconfigured("the provider has no device codes".to_owned())
        })?;
        let mut form = Form::empty();
        let scope = self.scope();
        if !scope.is_empty() {
            form = form.with("scope", &scope);
        }
        let (form, authorization) =
            self.prove(form, &self.registration.client_proof, &known, &url)?;
        let answer = self.http.post(&url, form.text.to_string(), authorization);
        let answer = answer.await?;
        if answer.status != StatusCode::OK {
            let shown: Vec<&Secret> = form.shown.iter().collect();
            return match answer::read(&answer, &shown) {
                Err(Problem {
                    meaning: TokenError::Refused(reason),
                    ..
                }) => Err(TokenError::Misconfigured(reason)),
                Err(problem) => Err(problem.meaning),
                Ok(_) => Err(temporary("tokens, where a device code was asked for")),
            };
        }
        let unreadable = || temporary("the answer holds no device code");
        let answer: Answer = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        let is_shown = |c: char| c.is_ascii_graphic() || c == ' ';
        let user_code = answer.user_code.trim();
        if user_code.is_empty()
            || user_code.len() > LONGEST_USER_CODE
            || !user_code.chars().all(is_shown)
            || answer.device_code.is_empty()
        {
            return Err(unreadable());
        }
        check(&answer.verification_uri)?;
        let complete = answer.verification_uri_complete;
        Ok(DeviceAuthorization {
            user_code: user_code.to_owned(),
            verification_uri: answer.verification_uri,
            verification_uri_complete: complete.filter(|url| check(url).is_ok()),
            expires_in: Polling::lifetime(answer.expires_in.as_ref()),
            device_code: Secret::new(answer.device_code),
            interval: Polling::interval(answer.interval.as_ref()),
        })
    }

    /// Waits until the person has signed in elsewhere (RFC 8628 §3.4), or the code
    /// has run out. Cancel-safe.
    pub async fn device_tokens(&self, device: &DeviceAuthorization) -> Result<Tokens, TokenError> {
        let end = Instant::now() + device.expires_in;
        let mut polling = Polling::new(device.interval);
        loop {
            let next = Instant::now() + polling.wait();
            if next >= end {
                return Err(Polling::run_out());
            }
            tokio::time::sleep_until(next).await;
            let form = Form::new(DEVICE_CODE).with_secret("device_code", &device.device_code);
            match self.ask(form).await {
                Ok(granted) => return self.signed_in(granted, None).await,
                Err(problem) => match polling.after(problem) {
                    Step::Again => {}
                    Step::End(error) => return Err(error),
                },
            }
        }
    }

    /// New tokens for a refresh token (RFC 6749 §6). [`Tokens::refresh`] is the one
    /// to keep from now on: the same where the provider gave none. One request; the
    /// caller sees to it that there is one at a time, and keeps what a failure brings
    /// ([`NotRefreshed::refresh`]).
    pub async fn refresh(&self, refresh: &Secret) -> Result<Tokens, NotRefreshed> {
        let form = Form::new("refresh_token").with_secret("refresh_token", refresh);
        let mut tokens = self.ask(form).await?.into_tokens(None);
        tokens.refresh.get_or_insert_with(|| refresh.clone());
        Ok(tokens)
    }

    /// A token for a mailbox, without its user ([`super::Grant::ClientCredentials`],
    /// [`super::Grant::ServiceAccount`]). It is kept until ten minutes before its
    /// end, and asked for once, however many want it.
    pub async fn for_mailbox(&self, mailbox: &str) -> Result<Tokens, TokenError> {
        let kept = self.flight(mailbox);
        let kept = kept.get(Kept::is_fresh, self.ask_for_mailbox(mailbox));
        Ok(kept.await?.tokens)
    }

    /// The token that is kept for a mailbox, and whether it is good for a while; nothing
    /// is asked for.
    pub fn kept_for_mailbox(&self, mailbox: &str) -> Option<(Tokens, bool)> {
        let kept = self.flight(mailbox).kept()?;
        let is_fresh = kept.is_fresh();
        Some((kept.tokens, is_fresh))
    }

    /// Whether somebody is asking for the token of a mailbox.
    pub fn is_asking_for_mailbox(&self, mailbox: &str) -> bool {
        self.flight(mailbox).is_asking()
    }

    /// The upstream refused the token of a mailbox: the next one is asked for.
    pub fn forget_for_mailbox(&self, mailbox: &str, refused: &Secret) {
        let kept = self.flight(mailbox);
        kept.forget(|kept| kept.tokens.access == *refused);
    }

    async fn ask_for_mailbox(&self, mailbox: &str) -> Result<Kept, TokenError> {
        let scope = self.scope();
        let form = match self.registration.grant {
            Grant::ClientCredentials => {
                let form = Form::new("client_credentials");
                if scope.is_empty() {
                    form
                } else {
                    form.with("scope", &scope)
                }
            }
            Grant::ServiceAccount => {
                let (_, token) = self.token_endpoint().await?;
                let signer = self.signer()?;
                let account = &self.registration.client_id;
                let assertion =
                    signer.for_mailbox(account, mailbox, &scope, token.as_str(), now())?;
                Form::new(JWT_BEARER).with_secret("assertion", &assertion)
            }
            Grant::User => {
                let reason = "somebody has to sign in at this provider";
                return Err(TokenError::Misconfigured(reason.to_owned()));
            }
        };
        let granted = self.ask(form).await.map_err(|problem| {
            // There is nobody who could sign in again.
            match problem.meaning {
                TokenError::Refused(reason) => TokenError::Misconfigured(reason),
                meaning => meaning,
            }
        })?;
        Ok(Kept::new(granted.into_tokens(None)))
    }

    fn flight(&self, mailbox: &str) -> Arc<Flight<Kept>> {
        let name = match self.registration.grant {
            Grant::ServiceAccount => mailbox,
            // One token opens every mailbox.
            Grant::ClientCredentials | Grant::User => "",
        };
        let mut mailboxes = self
            .mailboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = mailboxes.get(name) {
            return Arc::clone(flight);
        }
        if mailboxes.len() >= MOST_MAILBOXES {
            mailboxes.retain(|_, flight| !flight.is_idle(Kept::is_fresh));
        }
        if mailboxes.len() >= MOST_MAILBOXES {
            mailboxes.clear();
        }
        let flight = Arc::new(Flight::new());
        mailboxes.insert(name.to_owned(), Arc::clone(&flight));
        flight
    }

    /// Whom the tokens are of.
    async fn signed_in(
        &self,
        granted: Granted,
        nonce: Option<&Secret>,
    ) -> Result<Tokens, TokenError> {
        // Without `openid` there may be a userinfo endpoint of the provider's own kind.
        if !self.asks_who() && self.registration.endpoints.userinfo.is_none() {
            return Ok(granted.into_tokens(None));
        }
        let known = self.known().await?;
        let mut subject = None;
        if let Some(id_token) = granted.id_token.as_ref().filter(|_| self.asks_who()) {
            let issuer = known.endpoints.issuer.as_ref().map(Url::as_str);
            let expected = Expected {
                issuer,
                client: &self.registration.client_id,
                nonce,
            };
            let claims = Claims::of_id_token(id_token, &expected, now())?;
            if claims.speaks() {
                let identity = claims.identity();
                return Ok(granted.into_tokens(identity));
            }
            subject = claims.sub;
        }
        let identity = match &known.endpoints.userinfo {
            Some(userinfo) => {
                self.who(userinfo, &granted.access, subject.as_deref())
                    .await?
            }
            None => None,
        };
        Ok(granted.into_tokens(identity))
    }

    /// Asks again where that may help: the code is used up, and the person would have
    /// to begin anew.
    async fn who(
        &self,
        url: &Url,
        access: &Secret,
        subject: Option<&str>,
    ) -> Result<Option<String>, TokenError> {
        for pause in USERINFO_PAUSES {
            match self.userinfo(url, access, subject).await {
                Err(TokenError::Temporary { .. }) => tokio::time::sleep(pause).await,
                answer => return answer,
            }
        }
        self.userinfo(url, access, subject).await
    }

    /// OpenID Connect Core §5.3.
    async fn userinfo(
        &self,
        url: &Url,
        access: &Secret,
        subject: Option<&str>,
    ) -> Result<Option<String>, TokenError> {
        let answer = self.http.get(url, bearer(access.reveal())).await?;
        match answer.status {
            StatusCode::OK => {}
            // The token is not for this.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(None),
            status => {
                return Err(TokenError::Temporary {
                    reason: format!("userinfo: HTTP status {}", status.as_u16()),
                    retry_after: answer.retry_after,
                });
            }
        }
        let claims = Claims::of_userinfo(&answer.body)
            .ok_or_else(|| temporary("what userinfo says cannot be read"))?;
        // §5.3.2: else it is of somebody else.
        if subject.is_some() && claims.sub.as_deref() != subject {
            let reason = "userinfo tells of somebody else";
            return Err(TokenError::NotSignedIn(reason.to_owned()));
        }
        Ok(claims.identity())
    }

    /// Asks the token endpoint; once more as a public client, where Microsoft takes
    /// this client for one (device codes of a client that has a secret for the rest).
    async fn ask(&self, form: Form) -> Result<Granted, Problem> {
        let proof = &self.registration.client_proof;
        match self.ask_as(form.clone(), proof).await {
            Err(problem) if problem.wants_no_proof() => self.ask_as(form, &ClientProof::None).await,
            answer => answer,
        }
    }

    async fn ask_as(&self, form: Form, proof: &ClientProof) -> Result<Granted, Problem> {
        let (known, url) = self.token_endpoint().await?;
        let (form, authorization) = self.prove(form, proof, &known, &url)?;
        let answer = self.http.post(&url, form.text.to_string(), authorization);
        let answer = answer.await?;
        let shown: Vec<&Secret> = form.shown.iter().collect();
        answer::read(&answer, &shown)
    }

    /// Shows which client asks (RFC 6749 §2.3.1, RFC 7523 §2.2). `url` is where.
    fn prove(
        &self,
        mut form: Form,
        proof: &ClientProof,
        known: &Known,
        url: &Url,
    ) -> Result<(Form, Option<reqwest::header::HeaderValue>), TokenError> {
        let client = &self.registration.client_id;
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect();
        match proof {
            // An assertion for a mailbox names its client itself.
            ClientProof::Certificate { .. } if self.registration.grant == Grant::ServiceAccount => {
                Ok((form, None))
            }
            ClientProof::None => Ok((form.with("client_id", client), None)),
            ClientProof::Secret(secret) if known.basic => {
                let (user, password): (String, String) = (encode(client), encode(secret.reveal()));
                let pair = STANDARD.encode(format!("{user}:{password}"));
                form.shown.push(secret.clone());
                Ok((form, sensitive(&format!("Basic {pair}"))))
            }
            ClientProof::Secret(secret) => {
                let form = form.with("client_id", client);
                Ok((form.with_secret("client_secret", secret), None))
            }
            ClientProof::Certificate { .. } => {
                // The audience is the token endpoint, whichever endpoint is asked.
                let audience = known.endpoints.token.as_ref().unwrap_or(url);
                let assertion = self.signer()?.as_client(client, audience.as_str(), now())?;
                let form = form
                    .with("client_id", client)
                    .with("client_assertion_type", CLIENT_ASSERTION);
                Ok((form.with_secret("client_assertion", &assertion), None))
            }
        }
    }

    fn signer(&self) -> Result<&Signer, TokenError> {
        self.signer
            .as_deref()
            .ok_or_else(|| TokenError::Misconfigured("the provider needs a private key".into()))
    }

    async fn token_endpoint(&self) -> Result<(Arc<Known>, Url), TokenError> {
        let known = self.known().await?;
        match known.endpoints.token.clone() {
            Some(url) => Ok((known, url)),
            None => Err(TokenError::Misconfigured(
                "the provider has no token_url".into(),
            )),
        }
    }

    /// What is known of the provider: as configured, and for the rest as its issuer
    /// says.
    async fn known(&self) -> Result<Arc<Known>, TokenError> {
        let endpoints = &self.registration.endpoints;
        match &endpoints.issuer {
            Some(issuer) if endpoints.are_incomplete(&self.registration.grant) => {
                let ask = async {
                    let known = discover(&self.http, issuer, endpoints).await?;
                    Ok(Arc::new(known))
                };
                self.known.get(|_| true, ask).await
            }
            _ => Ok(Arc::new(Known::configured(endpoints))),
        }
    }

    fn scope(&self) -> String {
        self.registration.scopes.join(" ")
    }

    /// Whether the provider is asked who signs in.
    fn asks_who(&self) -> bool {
        self.registration.scopes.iter().any(|it| it == "openid")
    }
}

#[cfg(test)]
impl Client {
    /// The token that is kept for a mailbox is not good for a while any more.
    pub(crate) fn age_for_mailbox(&self, mailbox: &str) {
        self.flight(mailbox).alter(|kept| kept.renew_at = 0);
    }
}
