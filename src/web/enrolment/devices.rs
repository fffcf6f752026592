//! Somebody's devices, and the password of a new one, shown once.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};

use super::app::{App, Frame};
use super::attempts::Whose;
use super::problem::Problem;
use super::profile;
use super::request::{Form, Visitor};
use super::session::{Fresh, Notice, sha256};
use super::sign_in::page;
use super::words;
use crate::accounts::{Account, AccountsError, Credential, Home, VaultError};
use crate::secret::Secret;

/// Devices of an account.
const MOST_DEVICES: usize = 32;

/// The longest name of a device, in characters.
const LONGEST_NAME: usize = 60;

/// How often a change is tried again when somebody else was quicker.
const TRIES: usize = 5;

#[derive(Template)]
#[template(path = "devices.html")]
struct Devices<'a> {
    frame: Frame<'a>,
    address: &'a str,
    devices: Vec<Line<'a>>,
    /// Why the mailbox has to be connected again.
    trouble: Option<&'static str>,
    renewal: Option<Renewal<'a>>,
    /// Secrets open only with the password of a device.
    locked: bool,
    name: &'a str,
    wrong: Option<&'static str>,
}

/// A device in a list.
pub(super) struct Line<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) made: String,
    pub(super) used: Option<String>,
}

struct Renewal<'a> {
    name: &'a str,
    title: &'a str,
}

#[derive(Template)]
#[template(path = "password.html")]
struct Password<'a> {
    frame: Frame<'a>,
    device: &'a str,
    settings: Vec<Setting<'a>>,
    other: Option<u16>,
    file: String,
}

struct Setting<'a> {
    id: &'static str,
    label: &'static str,
    value: &'a str,
    copy: bool,
    secret: bool,
}

/// The account of whoever is signed in, as it is now.
async fn account(app: &App, visitor: &Visitor) -> Result<Account, Problem> {
    let sessions = app.sessions(visitor.area);
    let address = sessions.with(&visitor.id, |session| session.account.clone());
    let address = address.ok_or(Problem::SignedOut)?;
    match app.accounts.find(&address).await? {
        Some(account) if account.disabled => {
            sessions.close(&visitor.id);
            Err(Problem::Disabled(address))
        }
        Some(account) => Ok(account),
        None => {
            sessions.close(&visitor.id);
            Err(Problem::SignedOut)
        }
    }
}

/// What is given once is given to somebody who asked for it here: a link elsewhere
/// does not use it up, nor does a program that looks what there would be.
fn once(visitor: &Visitor) -> Result<(), Problem> {
    match visitor.unasked {
        true => Err(Problem::Forged),
        false => Ok(()),
    }
}

/// The devices of an account, and when each was last used.
pub(super) async fn lines<'a>(app: &App, account: &'a Account) -> Result<Vec<Line<'a>>, Problem> {
    let used = app.accounts.last_used(&account.address).await?;
    let now = words::now();
    let line = |device: &'a crate::accounts::Device| Line {
        id: &device.id,
        name: &device.name,
        made: words::relative(device.created, now),
        used: used.get(&device.id).map(|time| words::relative(*time, now)),
    };
    Ok(account.devices.iter().map(line).collect())
}

/// `GET /enrol/devices`
pub(super) async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
) -> Result<Response, Problem> {
    let account = match account(&app, &visitor).await {
        Err(Problem::SignedOut) => return Ok(Redirect::to("/enrol").into_response()),
        other => other?,
    };
    show(&app, &visitor, &account, "", None).await
}

async fn show(
    app: &App,
    visitor: &Visitor,
    account: &Account,
    name: &str,
    wrong: Option<&'static str>,
) -> Result<Response, Problem> {
    let home = match &account.home {
        Home::Provider(name) => app.accounts.provider(name),
        Home::Gateway | Home::Upstream(_) => None,
    };
    page(&Devices {
        frame: app.frame(visitor),
        address: &account.address,
        devices: lines(app, account).await?,
        trouble: account.trouble.as_ref().map(|_| trouble(account)),
        renewal: home.map(|provider| Renewal {
            name: &provider.name,
            title: &provider.title,
        }),
        locked: is_locked(account),
        name,
        wrong,
    })
}

/// Its secrets open only with the password of a device.
fn is_locked(account: &Account) -> bool {
    let lock = account.lock.as_ref();
    lock.is_some_and(|lock| !lock.private_keys.is_empty())
}

/// What the owner is told; the reason in detail is the operator's.
fn trouble(account: &Account) -> &'static str {
    match account.credential {
        Credential::Password(_) => "Your provider no longer takes the app password.",
        Credential::ApiToken(_) => "Your provider no longer takes the API token.",
        Credential::OAuth(_) | Credential::Provider => {
            "Your provider no longer lets this service in, for instance because your password there was changed."
        }
    }
}

/// A name as somebody typed it, if it is one.
fn name(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let name = words.join(" ");
    let good = !name.is_empty()
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(|c| c.is_control() || is_invisible(c));
    good.then_some(name)
}

/// What could make a name look like another, or turn the text around it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFF}')
}

/// `POST /enrol/devices/add`
pub(super) async fn add(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    let mut account = account(&app, &visitor).await?;
    let Some(name) = name(form.get("name")) else {
        let typed: String = form.get("name").chars().take(LONGEST_NAME).collect();
        let wrong = "Please give it a name of up to 60 letters, all of which can be seen.";
        return show(&app, &visitor, &account, &typed, Some(wrong)).await;
    };
    let sessions = app.sessions(visitor.area);
    let is_there = |id: &str| account.devices.iter().any(|device| device.id == id);
    let is_made = |fresh: &mut Fresh| !fresh.shown && fresh.name == name && is_there(&fresh.device);
    let is_made = sessions.with(&visitor.id, |it| it.fresh().is_some_and(is_made));
    if is_made == Some(true) {
        // The button was pressed twice.
        return Ok(Redirect::to("/enrol/password").into_response());
    }
    if !app.attempts.count(Whose::address(visitor.address)) {
        return Err(Problem::TooMany);
    }
    let by = Secret::from(form.get("by").trim());
    let by = (!by.reveal().is_empty()).then_some(by);
    for _ in 0..TRIES {
        if account.devices.len() >= MOST_DEVICES {
            return Err(Problem::TooManyDevices);
        }
        let made = app
            .accounts
            .add_device(&mut account, &name, None, by.as_ref())
            .await;
        let made = match made {
            Ok(made) => made,
            Err(AccountsError::Vault(VaultError::Locked)) if is_locked(&account) => {
                return wrong_password(&app, &visitor, &account, &name, by.as_ref()).await;
            }
            Err(AccountsError::Unsuitable(_)) => {
                let wrong = "Please choose another name.";
                return show(&app, &visitor, &account, &name, Some(wrong)).await;
            }
            Err(other) => return Err(other.into()),
        };
        match app.accounts.save(&mut account).await {
            Ok(()) => {
                tracing::info!(user = ?account.address, device = %made.device, "a device has a new password");
                let fresh = Fresh::new(made.device, name, made.password);
                sessions.with(&visitor.id, |session| session.set_fresh(Some(fresh)));
                return Ok(Redirect::to("/enrol/password").into_response());
            }
            Err(AccountsError::Changed(_)) => account = self::account(&app, &visitor).await?,
            Err(other) => return Err(other.into()),
        }
    }
    Err(Problem::Busy)
}

/// The password of another device is not right.
async fn wrong_password(
    app: &App,
    visitor: &Visitor,
    account: &Account,
    name: &str,
    by: Option<&Secret>,
) -> Result<Response, Problem> {
    if let Some(by) = by {
        let from = Whose::address(visitor.address);
        let guess = sha256(format!("{}\0{}", account.address, by.reveal()).as_bytes());
        let whose = [from, Whose::account(&account.address)];
        let delay = app.attempts.failed(&whose, guess);
        visitor.takes_long();
        if !app.attempts.hold_back(from, delay).await {
            return Err(Problem::TooMany);
        }
    }
    let wrong = "That is not the password of one of your devices.";
    show(app, visitor, account, name, Some(wrong)).await
}

/// `POST /enrol/devices/remove`
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Problem> {
    let account = account(&app, &visitor).await?;
    let revoked = revoke(&app, &account.address, form.get("device")).await?;
    if revoked && is_locked(&account) && account.devices.len() == 1 {
        // What opened the secrets is gone: a new device needs a new sign-in.
        app.sessions(visitor.area).close(&visitor.id);
        return Ok(Redirect::to("/enrol").into_response());
    }
    app.sessions(visitor.area).with(&visitor.id, |session| {
        if session
            .fresh()
            .is_some_and(|fresh| fresh.device == form.get("device"))
        {
            session.set_fresh(None);
        }
        session.notice = revoked.then_some(Notice::DeviceRemoved);
    });
    Ok(Redirect::to("/enrol/devices").into_response())
}

/// Takes a device's password away. `false`: there is no such device.
pub(super) async fn revoke(app: &App, address: &str, device: &str) -> Result<bool, Problem> {
    let change = |account: &mut Account| app.accounts.revoke_device(account, device);
    let (account, revoked) = app.accounts.change(address, change).await?;
    if revoked {
        tracing::info!(user = ?account.address, ?device, "a device password was revoked");
    }
    Ok(revoked)
}

/// `GET /enrol/password`: the new password, once.
pub(super) async fn password(
    State(app): State<Arc<App>>,
    visitor: Visitor,
) -> Result<Response, Problem> {
    once(&visitor)?;
    let account = account(&app, &visitor).await?;
    let given = app.sessions(visitor.area).with(&visitor.id, |session| {
        let fresh = session.fresh().and_then(|fresh| {
            let first = !std::mem::replace(&mut fresh.shown, true);
            first.then(|| fresh.clone())
        });
        if fresh.is_none() {
            session.notice = Some(Notice::ShownOnce);
        }
        fresh
    });
    let Some(fresh) = given.flatten() else {
        return Ok(Redirect::to("/enrol/devices").into_response());
    };
    let ways: Vec<_> = app.config.ways().collect();
    let port = ways.first().map(|way| way.port.to_string());
    let mut settings = vec![text("server", "Server", &app.config.pop3.host)];
    if let Some((way, port)) = ways.first().zip(port.as_deref()) {
        settings.push(text("port", "Port", port));
        let encryption = match way.implicit_tls {
            true => "SSL/TLS",
            false => "STARTTLS",
        };
        let encryption = text("encryption", "Encryption", encryption);
        settings.push(Setting {
            copy: false,
            ..encryption
        });
    }
    settings.push(text("user", "User name", &account.address));
    let password = text("password", "Password", fresh.password.reveal());
    settings.push(Setting {
        secret: true,
        ..password
    });
    page(&Password {
        frame: app.frame(&visitor),
        device: &fresh.name,
        settings,
        other: ways.get(1).map(|way| way.port),
        file: file_name(&account.address),
    })
}

fn text<'a>(id: &'static str, label: &'static str, value: &'a str) -> Setting<'a> {
    Setting {
        id,
        label,
        value,
        copy: true,
        secret: false,
    }
}

/// The name of a file, out of an address.
fn file_name(address: &str) -> String {
    let clean = |c: char| match c {
        'a'..='z' | '0'..='9' | '-' | '.' => c,
        _ => '-',
    };
    address.chars().map(clean).collect()
}

/// `GET /enrol/profile/apple`: with the password in it, once.
pub(super) async fn apple(
    State(app): State<Arc<App>>,
    visitor: Visitor,
) -> Result<Response, Problem> {
    once(&visitor)?;
    let account = account(&app, &visitor).await?;
    let given = app.sessions(visitor.area).with(&visitor.id, |session| {
        let fresh = session.fresh().cloned();
        session.set_fresh(None);
        if fresh.is_none() {
            session.notice = Some(Notice::DownloadedOnce);
        }
        fresh
    });
    let Some(fresh) = given.flatten() else {
        return Ok(Redirect::to("/enrol/devices").into_response());
    };
    let profile = profile::apple(
        &app.config,
        app.submission.as_ref(),
        &account.address,
        &fresh.device,
        &fresh.password,
    );
    let profile = profile.ok_or(Problem::Misconfigured)?;
    let name = format!("{}.mobileconfig", file_name(&account.address));
    let body = profile.reveal().to_owned();
    Ok(download("application/x-apple-aspen-config", &name, body))
}

/// `GET /enrol/profile/thunderbird`
pub(super) async fn thunderbird(
    State(app): State<Arc<App>>,
    visitor: Visitor,
) -> Result<Response, Problem> {
    let account = account(&app, &visitor).await?;
    let xml = profile::thunderbird(&app.config, app.submission.as_ref(), &account.address);
    let xml = xml.ok_or(Problem::Misconfigured)?;
    let name = format!("{}.xml", file_name(&account.address));
    Ok(download("text/xml; charset=utf-8", &name, xml))
}

fn download(content_type: &'static str, name: &str, content: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::try_from(disposition) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tidied_and_cannot_deceive() {
        assert_eq!(name("  My \t phone "), Some("My phone".into()));
        assert_eq!(name("📠 Büro"), Some("📠 Büro".into()));
        assert_eq!(name("<b>"), Some("<b>".into()));
        for wrong in ["", "  ", "a\0b", "a\u{202E}b", "a\u{200B}", &"x".repeat(61)] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn file_names_hold_nothing_but_letters() {
        assert_eq!(
            file_name("o'neil\"/../x@example.com"),
            "o-neil--..-x-example.com"
        );
    }
}
