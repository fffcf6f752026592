//! From the choice of a provider to a mailbox that opens.

use std::sync::Arc;

use askama::Template;
use axum::extract::{OriginalUri, Path, State};
use axum::http::Method;
use axum::response::{Html, IntoResponse, Redirect, Response};
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::app::{App, Asked, Frame};
use super::attempts::Whose;
use super::flow::Flow;
use super::problem::Problem;
use super::request::{Area, Form, Visitor};
use super::session::{Notice, sha256};
use crate::accounts::{
    Account, Enrolled, EnrolmentError, Entry, Home, NewCredential, ProbeError, Provider,
};
use crate::oauth2::{Client, TokenError};
use crate::secret::Secret;
use crate::web::autoconfig;

/// The longest address, in octets (RFC 5321 §4.5.3.1.3).
const LONGEST_ADDRESS: usize = 254;

/// The longest code or state that a provider sends, in octets.
const LONGEST_PARAMETER: usize = 8 * 1024;

pub(super) const WRONG_ADDRESS: &str = "Please type the whole address, such as ada@example.com.";

/// One text, whether the address may be used here or not.
pub(super) const REFUSED: &str = "The mailbox did not open. Either the address or the password is not right, or this address cannot be used here.";

#[derive(Template)]
#[template(path = "choose.html")]
struct Choose<'a> {
    frame: Frame<'a>,
    offers: Vec<Offer>,
    /// There is one that leads to the provider without an address.
    shared: bool,
}

struct Offer {
    name: String,
    title: String,
    initial: String,
    /// One button leads to the provider.
    direct: bool,
    page: String,
}

impl Offer {
    fn of(provider: &Provider) -> Self {
        let direct = match &provider.entry {
            Entry::OAuth(client) => tells_who(client),
            _ => false,
        };
        Self {
            name: provider.name.clone(),
            title: provider.title.clone(),
            initial: provider.title.chars().take(1).collect(),
            direct,
            page: page_of(&provider.name),
        }
    }
}

#[derive(Template)]
#[template(path = "mailbox.html")]
struct Mailbox<'a> {
    frame: Frame<'a>,
    provider: Offer,
    asked: Asked,
    action: String,
    address: &'a str,
    wrong: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "leaving.html")]
struct Leaving<'a> {
    frame: Frame<'a>,
    provider: &'a str,
    url: &'a str,
}

/// A template as an answer.
pub(super) fn page(template: &impl Template) -> Result<Response, Problem> {
    match template.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            Err(Problem::Broken)
        }
    }
}

/// Whether the provider says who signed in (OpenID Connect).
fn tells_who(client: &Client) -> bool {
    let registration = client.registration();
    registration.endpoints.userinfo.is_some()
        || registration.scopes.iter().any(|scope| scope == "openid")
}

/// A segment of a path.
fn segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

fn page_of(provider: &str) -> String {
    format!("/enrol/provider/{}", segment(provider))
}

/// Where a provider sends people back: each to a place of its own, so that no
/// provider's answer is taken for another's (RFC 9700 §4.4.2.2).
fn redirect_uri(app: &App, provider: &str) -> Result<Url, Problem> {
    let path = format!("/enrol/callback/{}", segment(provider));
    app.config
        .public_url
        .join(&path)
        .map_err(|_| Problem::Broken)
}

/// An address as people type it, in the form that is compared.
fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@')?;
    let clean = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '<' | '>' | '"');
    if local.is_empty() || text.len() > LONGEST_ADDRESS || !local.chars().all(clean) {
        return None;
    }
    // As it is written, but for the case of letters: accounts go by that.
    autoconfig::domain(domain)?;
    Some(text.to_lowercase())
}

/// `GET /enrol`
pub(super) async fn choose(
    State(app): State<Arc<App>>,
    visitor: Visitor,
) -> Result<Response, Problem> {
    if app
        .sessions(visitor.area)
        .with(&visitor.id, |_| ())
        .is_some()
    {
        return Ok(Redirect::to("/enrol/devices").into_response());
    }
    let offers: Vec<_> = app.offered().map(|it| Offer::of(it)).collect();
    page(&Choose {
        frame: app.frame(&visitor),
        shared: offers.iter().any(|offer| offer.direct),
        offers,
    })
}

/// `GET /enrol/provider/{name}`
pub(super) async fn mailbox(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let provider = app.offer(&name)?;
    ask(&app, &visitor, provider, "", None)
}

/// Asks for an address, and for a secret where one is needed.
fn ask(
    app: &App,
    visitor: &Visitor,
    provider: &Provider,
    address: &str,
    wrong: Option<&'static str>,
) -> Result<Response, Problem> {
    let asked = Asked::by(provider);
    let action = match asked {
        Asked::Address => "/enrol/start".to_owned(),
        Asked::Password | Asked::ApiToken => page_of(&provider.name),
    };
    let address: String = address.chars().take(LONGEST_ADDRESS).collect();
    page(&Mailbox {
        frame: app.frame(visitor),
        provider: Offer::of(provider),
        asked,
        action,
        address: &address,
        wrong,
    })
}

/// `POST /enrol/start`: on the way to the provider.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    let provider = app.offer(form.get("provider"))?;
    let Entry::OAuth(client) = &provider.entry else {
        return Ok(Redirect::to(&page_of(&provider.name)).into_response());
    };
    let typed = form.get("address");
    let address = match address(typed) {
        Some(address) => Some(address),
        None if typed.is_empty() && tells_who(client) => None,
        None => return ask(&app, &visitor, provider, typed, Some(WRONG_ADDRESS)),
    };
    if !app.attempts.count(Whose::address(visitor.address)) {
        return Err(Problem::TooMany);
    }
    let redirect = redirect_uri(&app, &provider.name)?;
    let _question = app.question()?;
    visitor.takes_long();
    // A shared mailbox has no sign-in of its own: its delegate's is expected, and
    // `enrol` sees to it.
    let request = client.begin(&redirect, address.as_deref()).await?;
    let url = request.url.to_string();
    app.flows
        .begin(&visitor.id, &provider.name, address, request);
    page(&Leaving {
        frame: app.frame(&visitor),
        provider: &provider.title,
        url: &url,
    })
}

/// What a provider sent a browser back with (RFC 6749 §4.1.2, RFC 9207 §2).
#[derive(Default)]
struct Answer {
    state: Option<Secret>,
    code: Option<Secret>,
    error: Option<String>,
    issuer: Option<String>,
}

impl Answer {
    /// `None`: no answer that a provider gives. No parameter may be there twice
    /// (RFC 6749 §3.1).
    fn parse(query: &str) -> Option<Self> {
        let mut answer = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if value.len() > LONGEST_PARAMETER {
                return None;
            }
            let value = value.into_owned();
            let before = match &*name {
                "state" => answer.state.replace(Secret::new(value)).is_some(),
                "code" => answer.code.replace(Secret::new(value)).is_some(),
                "error" => answer.error.replace(value).is_some(),
                "iss" => answer.issuer.replace(value).is_some(),
                _ => false,
            };
            if before {
                return None;
            }
        }
        Some(answer)
    }
}

/// `GET /enrol/callback/{provider}`: somebody comes back.
pub(super) async fn callback(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
    method: Method,
) -> Result<Response, Problem> {
    if method == Method::HEAD {
        // It would use up the state and the code, for nobody.
        return Err(Problem::Unreadable);
    }
    let provider = Arc::clone(app.offer(&name)?);
    let answer = Answer::parse(uri.query().unwrap_or_default()).ok_or(Problem::UnknownState)?;
    let state = answer.state.as_ref().ok_or(Problem::UnknownState)?;
    let flow = app
        .flows
        .take(&visitor.id, &provider.name, state.reveal())
        .ok_or(Problem::UnknownState)?;
    let Entry::OAuth(client) = &provider.entry else {
        return Err(Problem::NotFound);
    };
    match client.check_issuer(answer.issuer.as_deref()).await {
        Err(TokenError::NotSignedIn(_)) => return Err(Problem::MixedUp),
        other => other?,
    }
    if let Some(error) = &answer.error {
        return Err(said_no(&provider.name, error));
    }
    let code = answer.code.ok_or(Problem::UnknownState)?;
    visitor.takes_long();
    let enrolled = {
        let app = Arc::clone(&app);
        // A browser that goes away does not cut it short: the code is used up.
        tokio::spawn(async move { exchange(&app, &provider, &flow, &code).await })
            .await
            .map_err(|_| Problem::Broken)??
    };
    signed_in(&app, &visitor, &enrolled)
}

/// What a provider's `error` means (RFC 6749 §4.1.2.1). Its own text may be
/// anybody's: it is not shown.
fn said_no(provider: &str, error: &str) -> Problem {
    let error: String = error.chars().take(40).collect();
    match error.as_str() {
        "access_denied" | "login_required" | "consent_required" | "interaction_required" => {
            Problem::Declined
        }
        "temporarily_unavailable" | "server_error" => Problem::Away,
        _ => {
            tracing::error!(provider, ?error, "a provider refuses what is configured");
            Problem::Misconfigured
        }
    }
}

/// From the code to a mailbox that opens.
async fn exchange(
    app: &App,
    provider: &Provider,
    flow: &Flow,
    code: &Secret,
) -> Result<Enrolled, Problem> {
    let Entry::OAuth(client) = &provider.entry else {
        return Err(Problem::NotFound);
    };
    let _question = app.question()?;
    let redirect = redirect_uri(app, &provider.name)?;
    let tokens = match client.finish(&flow.request, &redirect, code).await {
        // The code was somebody else's, or has run out.
        Err(TokenError::Refused(_) | TokenError::NotSignedIn(_)) => {
            return Err(Problem::UnknownState);
        }
        other => other?,
    };
    let signed_in = tokens.identity.as_deref().and_then(address);
    let wanted = flow.address.as_deref().or(signed_in.as_deref());
    let wanted = wanted.ok_or_else(|| Problem::Nobody(provider.title.clone()))?;
    let account = admit(app, provider, wanted).await?;
    let brought = NewCredential::OAuth(tokens);
    let enrolled = app.accounts.enrol(account, brought, &*app.probe).await;
    enrolled.map_err(|error| match error {
        // Who signs in for a shared mailbox is not told to strangers.
        EnrolmentError::AnotherMailbox { signed_in, .. } => Problem::AnotherMailbox {
            signed_in,
            expected: wanted.to_owned(),
        },
        other => other.into(),
    })
}

/// The account of an address, new where it may have one. An account elsewhere is
/// not this provider's to open, whoever it says signed in.
async fn admit(app: &App, provider: &Provider, address: &str) -> Result<Account, Problem> {
    let refused = || Problem::NotHere(address.to_owned());
    let home = Home::Provider(provider.name.clone());
    match app.accounts.find(address).await? {
        Some(account) if account.home != home || account.master => Err(refused()),
        Some(account) if account.disabled => Err(Problem::Disabled(address.to_owned())),
        Some(mut account) => {
            // With the last device went what opens its secrets: new ones are not to
            // be sealed for nobody.
            account.lock.take_if(|lock| lock.private_keys.is_empty());
            Ok(account)
        }
        None => {
            let domain = address
                .rsplit_once('@')
                .and_then(|(_, it)| autoconfig::domain(it));
            if !domain.is_some_and(|domain| app.config.domains.contains(&domain)) {
                return Err(refused());
            }
            Ok(app.accounts.new_account(address, home)?)
        }
    }
}

/// `POST /enrol/provider/{name}`: an app password or an API token.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    form: Form,
) -> Result<Response, Problem> {
    let provider = Arc::clone(app.offer(&name)?);
    let typed = form.get("address");
    let Some(address) = address(typed) else {
        return ask(&app, &visitor, &provider, typed, Some(WRONG_ADDRESS));
    };
    // People paste app passwords in groups, as they are shown.
    let secret = Secret::new(form.get("secret").trim().to_owned());
    if secret.reveal().is_empty() || secret.reveal().chars().any(char::is_control) {
        return ask(
            &app,
            &visitor,
            &provider,
            &address,
            Some("Please type the password, too."),
        );
    }
    let brought = match provider.entry {
        Entry::Password => NewCredential::Password(secret.clone()),
        Entry::ApiToken => NewCredential::ApiToken(secret.clone()),
        Entry::OAuth(_) | Entry::Master { .. } => return Err(Problem::NotFound),
    };
    let from = Whose::address(visitor.address);
    if !app.attempts.count(from) {
        return Err(Problem::TooMany);
    }
    visitor.takes_long();
    let asked = Instant::now();
    let outcome = {
        let (app, provider, address) = (Arc::clone(&app), Arc::clone(&provider), address.clone());
        tokio::spawn(async move {
            let _question = app.question()?;
            let account = admit(&app, &provider, &address).await?;
            match app.accounts.enrol(account, brought, &*app.probe).await {
                Err(EnrolmentError::Mailbox(ProbeError::Refused)) => Err(Problem::NotHere(address)),
                other => other.map_err(Problem::from),
            }
        })
        .await
        .map_err(|_| Problem::Broken)?
    };
    match outcome {
        Ok(enrolled) => signed_in(&app, &visitor, &enrolled),
        // Who has an account here is nobody's business.
        Err(Problem::NotHere(_) | Problem::Disabled(_) | Problem::Unsuitable) => {
            let guess = sha256(format!("{address}\0{}", secret.reveal()).as_bytes());
            let whose = [from, Whose::account(&address)];
            let delay = app.attempts.failed(&whose, guess);
            // As late with a question to the mail server as without one.
            let delay = delay.saturating_sub(asked.elapsed());
            if !app.attempts.hold_back(from, delay).await {
                return Err(Problem::TooMany);
            }
            ask(&app, &visitor, &provider, &address, Some(REFUSED))
        }
        Err(other) => Err(other),
    }
}

/// Somebody's mailbox opened: it is he.
fn signed_in(app: &App, visitor: &Visitor, enrolled: &Enrolled) -> Result<Response, Problem> {
    let account = &enrolled.account;
    tracing::info!(user = ?account.address, renewed = enrolled.renewed, "signed in at the enrolment page");
    let notice = (enrolled.renewed && !account.devices.is_empty()).then_some(Notice::Renewed);
    let response = Redirect::to("/enrol/devices").into_response();
    app.sign_in(visitor, &account.address, notice, response)
}

/// `POST /enrol/sign-out`
pub(super) async fn sign_out(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    _: Form,
) -> Result<Response, Problem> {
    app.sessions(Area::Enrolment).close(&visitor.id);
    Ok(Redirect::to("/enrol").into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_one_form() {
        assert_eq!(address(" Ada@Example.COM "), Some("ada@example.com".into()));
        for wrong in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a b@example.com",
            "a@b\r\nc",
            "<a@b.c>",
        ] {
            assert_eq!(address(wrong), None, "{wrong:?}");
        }
        assert_eq!(address(&format!("{}@example.com", "a".repeat(250))), None);
    }

    #[test]
    fn no_parameter_is_there_twice() {
        assert!(Answer::parse("state=a&code=b").is_some());
        assert!(Answer::parse("state=a&code=b&state=c").is_none());
        assert!(Answer::parse("code=a&code=a").is_none());
    }
}
