//! The operator's pages: how the accounts are, in words.

use std::sync::Arc;

use askama::Template;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::app::{App, Frame};
use super::attempts::Whose;
use super::devices::{Line, lines, revoke};
use super::problem::Problem;
use super::request::{Form, Visitor};
use super::session::{Notice, sha256};
use super::sign_in::page;
use super::words;
use crate::accounts::{Account, Credential, Home};

/// Accounts on a page.
const ON_A_PAGE: usize = 50;

#[derive(Template)]
#[template(path = "operator_sign_in.html")]
struct SignIn<'a> {
    frame: Frame<'a>,
    wrong: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "operator.html")]
struct Overview<'a> {
    frame: Frame<'a>,
    figures: Figures,
    query: &'a str,
    choices: Vec<Choice>,
    rows: Vec<Row>,
    /// Of those that were found, from 1.
    first: usize,
    last: usize,
    found: usize,
    previous: Option<String>,
    next: Option<String>,
}

struct Figures {
    accounts: usize,
    trouble: usize,
    disabled: usize,
    sessions: i64,
    upstream: i64,
}

struct Choice {
    value: &'static str,
    label: &'static str,
    chosen: bool,
}

struct Row {
    address: String,
    link: String,
    home: String,
    state: Condition,
    devices: usize,
    used: String,
}

/// How an account is.
struct Condition {
    /// The class of its colour.
    kind: &'static str,
    short: &'static str,
    /// Since when, or until when.
    since: String,
    long: String,
    /// What the operator can do.
    todo: Option<String>,
}

#[derive(Template)]
#[template(path = "operator_account.html")]
struct Details<'a> {
    frame: Frame<'a>,
    address: &'a str,
    state: Condition,
    facts: Vec<(&'static str, String)>,
    disabled: bool,
    devices: Vec<Line<'a>>,
}

/// Which accounts are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Show {
    #[default]
    All,
    Trouble,
    Disabled,
    Unused,
}

impl Show {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::All, "all", "All accounts"),
        (Self::Trouble, "trouble", "Must sign in again"),
        (Self::Disabled, "off", "Switched off"),
        (Self::Unused, "unused", "Without a device"),
    ];

    fn shows(self, account: &Account) -> bool {
        match self {
            Self::All => true,
            Self::Trouble => account.trouble.is_some(),
            Self::Disabled => account.disabled,
            Self::Unused => account.devices.is_empty(),
        }
    }

    fn name(self) -> &'static str {
        let row = Self::ALL.iter().find(|(show, ..)| *show == self);
        row.map_or("all", |(_, name, _)| name)
    }
}

/// What is looked for.
#[derive(Default)]
struct Query {
    text: String,
    show: Show,
    /// From 0.
    page: usize,
}

impl Query {
    fn parse(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "q" => asked.text = value.trim().chars().take(254).collect(),
                "show" => {
                    let row = Show::ALL.iter().find(|(_, name, _)| *name == value);
                    asked.show = row.map(|(show, ..)| *show).unwrap_or_default();
                }
                "page" => asked.page = value.parse::<usize>().unwrap_or(1).saturating_sub(1),
                _ => {}
            }
        }
        asked
    }

    /// The link to a page of what was found.
    fn link(&self, page: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("q", &self.text);
        query.append_pair("show", self.show.name());
        query.append_pair("page", &page.saturating_add(1).to_string());
        format!("/operator?{}", query.finish())
    }
}

fn link_of(address: &str) -> String {
    let address: String = form_urlencoded::byte_serialize(address.as_bytes()).collect();
    format!("/operator/account?address={address}")
}

/// Only for the operator.
fn signed_in(app: &App, visitor: &Visitor) -> Result<(), Problem> {
    let sessions = app.sessions(visitor.area);
    sessions.with(&visitor.id, |_| ()).ok_or(Problem::SignedOut)
}

/// `GET /operator`
pub(super) async fn overview(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    if signed_in(&app, &visitor).is_err() {
        return ask(&app, &visitor, None);
    }
    let query = Query::parse(uri.query().unwrap_or_default());
    let accounts = app.accounts.all().await?;
    let count = |show: Show| accounts.iter().filter(|it| show.shows(it)).count();
    let figures = Figures {
        accounts: accounts.len(),
        trouble: count(Show::Trouble),
        disabled: count(Show::Disabled),
        sessions: app.metrics.sessions_active.get(),
        upstream: app.metrics.upstream_connections.get(),
    };
    let wanted = query.text.to_lowercase();
    let found: Vec<&Account> = accounts
        .iter()
        .filter(|account| query.show.shows(account) && account.address.contains(&wanted))
        .collect();
    let last_page = found.len().saturating_sub(1) / ON_A_PAGE;
    let number = query.page.min(last_page);
    let start = number * ON_A_PAGE;
    let now = words::now();
    let mut rows = Vec::new();
    for account in found.iter().skip(start).take(ON_A_PAGE) {
        rows.push(row(&app, account, now).await?);
    }
    page(&Overview {
        frame: app.frame(&visitor),
        figures,
        query: &query.text,
        choices: Show::ALL
            .map(|(show, value, label)| Choice {
                value,
                label,
                chosen: show == query.show,
            })
            .into(),
        first: start + 1,
        last: start + rows.len(),
        found: found.len(),
        rows,
        previous: (number > 0).then(|| query.link(number - 1)),
        next: (number < last_page).then(|| query.link(number + 1)),
    })
}

async fn row(app: &App, account: &Account, now: i64) -> Result<Row, Problem> {
    Ok(Row {
        link: link_of(&account.address),
        home: home(app, account),
        state: condition(app, account, now),
        devices: account.devices.len(),
        used: last_used(app, account, now).await?,
        address: account.address.clone(),
    })
}

/// When any of its devices was last used.
async fn last_used(app: &App, account: &Account, now: i64) -> Result<String, Problem> {
    let used = app.accounts.last_used(&account.address).await?;
    let last = used.values().max();
    Ok(last.map_or_else(|| "never".to_owned(), |time| words::relative(*time, now)))
}

fn home(app: &App, account: &Account) -> String {
    match &account.home {
        Home::Gateway => "the gateway’s own mail server".to_owned(),
        Home::Provider(name) => match app.accounts.provider(name) {
            Some(provider) => provider.title.clone(),
            None => format!("{name} (no longer configured)"),
        },
        Home::Upstream(url) => url.clone(),
    }
}

fn condition(app: &App, account: &Account, now: i64) -> Condition {
    let mut sign_in = app.config.public_url.clone();
    sign_in.set_path("/enrol");
    let owner = account.signs_in();
    if account.disabled {
        return Condition {
            kind: "off",
            short: "Switched off",
            since: String::new(),
            long: "Nobody can log in to this account until it is switched on again.".into(),
            todo: None,
        };
    }
    let missing: Vec<&str> = app.accounts.missing_keys_of(account).into_iter().collect();
    if !missing.is_empty() {
        return Condition {
            kind: "attention",
            short: "Key missing",
            since: String::new(),
            long: format!(
                "What opens the mailbox is sealed with a key that the gateway does not have (its id: {}).",
                missing.join(", ")
            ),
            todo: Some(format!(
                "Put that key back into the gateway’s key file. If it is lost, ask {owner} to open {sign_in} and sign in once more."
            )),
        };
    }
    if let Some(trouble) = &account.trouble {
        let todo = match account.credential {
            Credential::OAuth(_) => format!("Ask {owner} to open {sign_in} and sign in once more. The devices work on with the passwords they have."),
            Credential::Password(_) => format!("Ask {owner} to make a new app password at the provider and to enter it at {sign_in}."),
            Credential::ApiToken(_) => format!("Ask {owner} to make a new API token at the provider and to enter it at {sign_in}."),
            Credential::Provider => "The gateway’s own access to the provider is refused: look at its registration there.".to_owned(),
        };
        return Condition {
            kind: "attention",
            short: match account.credential {
                Credential::Provider => "Refused by the provider",
                _ => "Must sign in again",
            },
            since: format!("for {}", words::lasting(trouble.since, now)),
            long: format!(
                "Since {} the provider has refused this account: {}.",
                words::date(trouble.since),
                trouble.reason.trim_end_matches('.')
            ),
            todo: Some(todo),
        };
    }
    match &account.credential {
        Credential::OAuth(tokens) if tokens.refresh.is_none() && tokens.expires_at <= now => {
            Condition {
                kind: "attention",
                short: "Must sign in again",
                since: format!("for {}", words::lasting(tokens.expires_at, now)),
                long: "The provider gave access for a while only, and that is over.".into(),
                todo: Some(format!(
                    "Ask {owner} to open {sign_in} and sign in once more."
                )),
            }
        }
        Credential::OAuth(tokens) if tokens.refresh.is_none() => good(
            format!("until {}", words::date(tokens.expires_at)),
            format!(
                "Access ends on {}; the provider gives no renewal, so {owner} has to sign in again then.",
                words::date(tokens.expires_at)
            ),
        ),
        Credential::OAuth(tokens) => good(
            format!("renewed {}", words::relative(tokens.refreshed, now)),
            format!(
                "The provider lets popgate in. Access is renewed by itself when the mailbox is used; the present one is good until {}.",
                words::date(tokens.expires_at)
            ),
        ),
        Credential::Password(_) => good(
            "app password".into(),
            "An app password opens the mailbox. It is good until it is revoked at the provider."
                .into(),
        ),
        Credential::ApiToken(_) => good(
            "API token".into(),
            "An API token opens the mailbox. It is good until it is revoked at the provider."
                .into(),
        ),
        Credential::Provider => good(
            "by the gateway’s access".into(),
            "The gateway’s own access to the provider opens the mailbox.".into(),
        ),
    }
}

fn good(since: String, long: String) -> Condition {
    Condition {
        kind: "good",
        short: "Connected",
        since,
        long,
        todo: None,
    }
}

/// The account that is asked for.
fn asked(query: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "address")
        .map(|(_, address)| address.into_owned())
}

/// `GET /operator/account?address=…`
pub(super) async fn details(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    signed_in(&app, &visitor)?;
    let address = asked(uri.query().unwrap_or_default()).ok_or(Problem::NotFound)?;
    let account = app.accounts.find(&address).await?;
    let account = account.ok_or(Problem::NotFound)?;
    let now = words::now();
    let mut facts = vec![
        ("Mailbox at", home(&app, &account)),
        ("Last poll", last_used(&app, &account, now).await?),
        ("Made", words::date(account.created)),
    ];
    if let Credential::OAuth(tokens) = &account.credential {
        facts.push(("Signed in", words::date(tokens.signed_in)));
        facts.push(("Access renewed", words::date(tokens.refreshed)));
    }
    if let Some(mailbox) = &account.mailbox {
        facts.push(("User name there", mailbox.clone()));
    }
    if let Some(delegate) = &account.delegate {
        facts.push(("Opened by", delegate.clone()));
    }
    if account.lock.is_some() {
        let lock = "opens only with a device password, so access is renewed at logins only";
        facts.push(("Secrets", lock.into()));
    }
    if account.master {
        facts.push(("Master", "may log in as others".into()));
    }
    page(&Details {
        frame: app.frame(&visitor),
        address: &account.address,
        state: condition(&app, &account, now),
        facts,
        disabled: account.disabled,
        devices: lines(&app, &account).await?,
    })
}

fn ask(app: &App, visitor: &Visitor, wrong: Option<&'static str>) -> Result<Response, Problem> {
    page(&SignIn {
        frame: app.frame(visitor),
        wrong,
    })
}

/// `POST /operator/sign-in`
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    let from = Whose::address(visitor.address);
    if !app.attempts.count(from) {
        return Err(Problem::TooMany);
    }
    let password = form.get("password");
    if app.is_operator(password).ok_or(Problem::NotFound)? {
        tracing::info!(client = %visitor.address, "the operator signed in");
        let response = Redirect::to("/operator").into_response();
        return app.sign_in(&visitor, "", None, response);
    }
    tracing::warn!(client = %visitor.address, "a wrong operator password");
    // By address only: a flood from elsewhere does not keep the operator out.
    let delay = app.attempts.failed(&[from], sha256(password.as_bytes()));
    visitor.takes_long();
    if !app.attempts.hold_back(from, delay).await {
        return Err(Problem::TooMany);
    }
    ask(&app, &visitor, Some("That is not the operator password."))
}

/// `POST /operator/sign-out`
pub(super) async fn sign_out(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    _: Form,
) -> Result<Response, Problem> {
    app.sessions(visitor.area).close(&visitor.id);
    Ok(Redirect::to("/operator").into_response())
}

/// `POST /operator/account/disable`
pub(super) async fn disable(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    switch(&app, &visitor, &form, true).await
}

/// `POST /operator/account/enable`
pub(super) async fn enable(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    switch(&app, &visitor, &form, false).await
}

async fn switch(
    app: &App,
    visitor: &Visitor,
    form: &Form,
    disabled: bool,
) -> Result<Response, Problem> {
    signed_in(app, visitor)?;
    let change = |account: &mut Account| account.disabled = disabled;
    let (account, ()) = changed(app.accounts.change(form.get("address"), change).await)?;
    tracing::info!(user = ?account.address, disabled, "the operator switched an account");
    let notice = match disabled {
        true => Notice::SwitchedOff,
        false => Notice::SwitchedOn,
    };
    back(app, visitor, &account.address, Some(notice))
}

/// `POST /operator/account/revoke`
pub(super) async fn revoke_device(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    signed_in(&app, &visitor)?;
    let address = form.get("address");
    let revoked = match revoke(&app, address, form.get("device")).await {
        Err(Problem::SignedOut) => return Err(Problem::NotFound),
        other => other?,
    };
    let notice = revoked.then_some(Notice::DeviceRemoved);
    back(&app, &visitor, address, notice)
}

/// An account that is not there is no reason to sign in.
fn changed<T>(outcome: Result<T, crate::accounts::AccountsError>) -> Result<T, Problem> {
    outcome.map_err(|error| match error {
        crate::accounts::AccountsError::Missing(_) => Problem::NotFound,
        other => other.into(),
    })
}

fn back(
    app: &App,
    visitor: &Visitor,
    address: &str,
    notice: Option<Notice>,
) -> Result<Response, Problem> {
    let sessions = app.sessions(visitor.area);
    sessions.with(&visitor.id, |session| session.notice = notice);
    Ok(Redirect::to(&link_of(address)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_what_was_looked_for() {
        let query = Query::parse("q=a%26b%22%3E&show=trouble&page=3");
        assert_eq!((query.text.as_str(), query.page), ("a&b\">", 2));
        assert_eq!(query.link(3), "/operator?q=a%26b%22%3E&show=trouble&page=4");
        let nonsense = Query::parse("page=-1&show=nothing");
        assert_eq!((nonsense.page, nonsense.show), (0, Show::All));
        assert_eq!(
            link_of("a+b&c@example.com"),
            "/operator/account?address=a%2Bb%26c%40example.com"
        );
    }
}
