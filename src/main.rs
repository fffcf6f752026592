//! `popgate`: arguments → configuration → gateway → drain.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use popgate::account::AccountError;
use popgate::accounts::{Accounts, Home};
use popgate::cli::{
    self, AccountCommand, EXIT_CONFIG, ImportFrom, Invocation, PasswordSource, UidlImport,
};
use popgate::config::{self, ConfigError, Origin, Overrides, Purpose, Resolved, Servers};
use popgate::metrics::Metrics;
use popgate::server::policies::Source;
use popgate::server::tls::Certificates;
use popgate::server::{Gateway, UpstreamProbe};
use popgate::store::{self, Access, OpenError, Store, control};
use popgate::upstream::imap::Imap;
use popgate::upstream::jmap::Jmap;
use popgate::upstream::{Reason, Upstream, Upstreams};
use popgate::web::enrolment::Enrolment;
use popgate::web::{self, Readiness};
use popgate::{account, check, logging, state, uidl};
use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

mod process;

/// How long the last answers at the pages, and on the control socket, may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(stop) => return stop.print(),
    };
    process::harden();
    let outcome = match invocation {
        Invocation::Serve(overrides) => serve(overrides),
        Invocation::Check {
            overrides,
            user,
            password,
        } => check(overrides, user, password),
        Invocation::StateExport { overrides, to } => export(overrides, to),
        Invocation::StateImport {
            overrides,
            from,
            replace,
        } => import(overrides, from, replace),
        Invocation::Account {
            overrides,
            command,
            json,
        } => account(overrides, command, json),
        Invocation::AccountKey => account::key().map_err(Into::into),
        Invocation::UidlImport { overrides, import } => uidl_import(overrides, *import),
        Invocation::UidlExport {
            overrides,
            user,
            password,
            to,
        } => uidl_export(overrides, &user, password, to),
    };
    outcome.unwrap_or_else(|error| {
        // Where nobody reads it, the exit code has to do.
        let _ = writeln!(io::stderr(), "popgate: {}", OneLine(format!("{error:#}")));
        match error.downcast_ref::<ConfigError>() {
            Some(_) => ExitCode::from(EXIT_CONFIG),
            None => ExitCode::FAILURE,
        }
    })
}

/// `popgate serve`
fn serve(overrides: Overrides) -> anyhow::Result<ExitCode> {
    let config = config::load(overrides, Purpose::Serve)?;
    log(&config);
    let runtime = runtime()?;
    runtime.block_on(run(config))?;
    // Nothing is left that is worth waiting for.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// `popgate check`
fn check(
    overrides: Overrides,
    user: Option<String>,
    password: PasswordSource,
) -> anyhow::Result<ExitCode> {
    let config = config::load(overrides, Purpose::Check)?;
    log(&config);
    let runtime = runtime()?;
    let (upstream, login) = match user {
        Some(user) => runtime.block_on(check_login(config, &user, password))?,
        None => {
            let gateway = &config.server.policies.gateway;
            if gateway.login.home == Home::Gateway && config.upstream.is_none() {
                return Err(anyhow!(NAME_SOMEBODY));
            }
            let login = check::Login {
                rules: Source::Gateway.to_string(),
                policy: Arc::clone(&gateway.policy),
                credentials: None,
                has_store: config.state.is_some(),
            };
            (upstream_at(&config, &gateway.login.home)?, login)
        }
    };
    let code = runtime.block_on(check::run(upstream, login));
    runtime.shutdown_background();
    Ok(code)
}

/// Nothing is wrong with such a configuration.
const NAME_SOMEBODY: &str = "the gateway has no upstream of its own, and needs none: accounts have their mailboxes elsewhere; look at the one of somebody: popgate check ADDRESS";

/// Where somebody's mailbox is, and what opens it, as the server would decide.
async fn check_login(
    config: Resolved,
    user: &str,
    password: PasswordSource,
) -> anyhow::Result<(config::Upstream, check::Login)> {
    let accounts = config.state.clone().map(|folder| {
        let access = Access::Brief(folder);
        Accounts::new(access, Arc::clone(&config.accounts), Arc::default())
    });
    // Where there is no store yet nobody has one, and none is made for a look.
    let is_there = config.state.as_deref().is_some_and(store::exists);
    let known = accounts.as_ref().filter(|_| is_there);
    let way = account::Way::of(&config.server, accounts.as_ref(), known, user, password);
    let way = way.await.map_err(account_error)?;
    let login = check::Login {
        rules: way.rules,
        policy: way.policy,
        credentials: Some(way.credentials),
        has_store: config.state.is_some(),
    };
    Ok((upstream_at(&config, &way.home)?, login))
}

/// `popgate state export`
fn export(overrides: Overrides, to: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (log, folder) = config::load_state(overrides, false)?;
    logging::init(&log);
    runtime()?.block_on(state::export(&folder, to))?;
    Ok(ExitCode::SUCCESS)
}

/// `popgate state import`
fn import(overrides: Overrides, from: Option<PathBuf>, replace: bool) -> anyhow::Result<ExitCode> {
    let (log, folder) = config::load_state(overrides, true)?;
    logging::init(&log);
    state::import(&folder, from, replace)?;
    Ok(ExitCode::SUCCESS)
}

/// `popgate uidl import`
fn uidl_import(overrides: Overrides, given: UidlImport) -> anyhow::Result<ExitCode> {
    let mut config = config::load(overrides, Purpose::Check)?;
    let from = match &given.from {
        ImportFrom::Server { url, ca_file } => {
            let (server, warning) = config::old_server(url, ca_file.as_ref())?;
            config.warnings.extend(warning);
            uidl::Source::Server(server)
        }
        ImportFrom::File(file) => uidl::Source::read(file.as_deref())
            .map_err(|error| ConfigError::at(Origin::Flag("--from-file"), error.to_string()))?,
    };
    log(&config);
    // Frozen ids, and what is hidden, must not stand in the way of a comparison.
    let (mailboxes, access) = mailboxes(config, |_| None)?;
    // It is known to be usable; whoever else needs it is not kept waiting.
    drop(access);
    let runtime = runtime()?;
    let accounts = uidl::accounts(&mailboxes, given.accounts, &from);
    let accounts = runtime.block_on(accounts).map_err(account_error)?;
    let import = uidl::Import {
        from,
        dry_run: given.dry_run,
        yes: given.yes,
        json: given.json,
        by_header: given.by_header,
    };
    let code = runtime.block_on(uidl::import(&mailboxes, &import, &accounts));
    runtime.shutdown_background();
    Ok(code)
}

/// `popgate uidl export`
fn uidl_export(
    overrides: Overrides,
    user: &str,
    password: PasswordSource,
    to: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let config = config::load(overrides, Purpose::Check)?;
    log(&config);
    let (mailboxes, access) = mailboxes(config, |access| match access {
        Access::Local(store) => Some(store.clone()),
        Access::Remote(_) | Access::Brief(_) => None,
    })?;
    let runtime = runtime()?;
    let password = uidl::password(&mailboxes, password, user);
    let password = runtime.block_on(password).map_err(account_error)?;
    let exported = runtime.block_on(uidl::export(
        &mailboxes,
        &access,
        user,
        password.as_ref(),
        to.as_deref(),
    ));
    runtime.shutdown_background();
    info!(messages = exported?, "unique ids exported");
    Ok(ExitCode::SUCCESS)
}

/// `popgate account`
fn account(overrides: Overrides, command: AccountCommand, json: bool) -> anyhow::Result<ExitCode> {
    let adds = matches!(command, AccountCommand::Add(_));
    let config = config::load(overrides, Purpose::Account { adds })?;
    log(&config);
    let missing = "accounts are kept in the state folder: set state (--state, POPGATE_STATE)";
    let folder = config
        .state
        .ok_or_else(|| ConfigError::at(Origin::Missing("state"), missing))?;
    // It is known to be usable; whoever else needs it is not kept waiting while somebody
    // signs in.
    Access::open(&folder).map_err(|error| anyhow!("{error}: {}", error.advice()))?;
    let access = Access::Brief(folder);
    let metrics = Arc::default();
    let runtime = runtime()?;
    let has_upstream = config.upstream.is_some();
    let upstreams = upstreams(config.upstream, config.servers, None, &metrics);
    let gateway = config.accounts.gateway_upstream.clone();
    let site = account::Site {
        accounts: Accounts::new(access, config.accounts, metrics),
        policies: config.server.policies,
        has_upstream,
        probe: UpstreamProbe::new(Arc::clone(&upstreams), gateway),
        redirects: config.redirects,
        reached: config.reached,
    };
    let done = runtime.block_on(async {
        let done = account::run(&site, command, json).await;
        upstreams.close().await;
        done
    });
    runtime.shutdown_background();
    done.map_err(account_error)
}

/// So that the exit code of a wrong setting is that of a wrong configuration.
fn account_error(error: AccountError) -> anyhow::Error {
    match error {
        AccountError::Config(error) => error.into(),
        error => error.into(),
    }
}

/// The mailboxes for a command that needs what is kept of them, and the way to
/// that.
fn mailboxes(
    config: Resolved,
    store: impl Fn(&Access) -> Option<Store>,
) -> anyhow::Result<(uidl::Mailboxes, Access)> {
    let missing = "no state folder is configured: set state (--state, POPGATE_STATE) to where unique ids are kept";
    let folder = config
        .state
        .ok_or_else(|| ConfigError::at(Origin::Missing("state"), missing))?;
    let access = Access::open(&folder).map_err(|error| anyhow!("{error}: {}", error.advice()))?;
    let (kept, metrics) = (store(&access), Arc::default());
    let way = match &kept {
        Some(_) => access.clone(),
        None => Access::Brief(folder.clone()),
    };
    let mailboxes = uidl::Mailboxes {
        upstreams: upstreams(config.upstream, config.servers, kept.as_ref(), &metrics),
        policies: config.server.policies,
        accounts: Accounts::new(way, config.accounts, metrics),
        state: folder,
    };
    Ok((mailboxes, access))
}

/// The server where these mailboxes are.
fn upstream_at(config: &Resolved, home: &Home) -> Result<config::Upstream, ConfigError> {
    let url = match home {
        Home::Gateway => return config.upstream.clone().ok_or_else(no_upstream),
        Home::Provider(name) => match config.accounts.providers.get(name) {
            Some(provider) => provider.upstream.as_str(),
            None => return Err(no_upstream()),
        },
        Home::Upstream(url) => url,
    };
    let servers = &config.servers;
    servers
        .at(url)
        .map_err(|problem| ConfigError::at(Origin::Missing("upstream"), problem))
}

fn no_upstream() -> ConfigError {
    let problem = "this looks at the gateway's own upstream, and none is configured: set upstream (--upstream, POPGATE_UPSTREAM)";
    ConfigError::at(Origin::Missing("upstream"), problem)
}

/// Starts the log with what is allowed by the configuration, but not good.
fn log(config: &Resolved) {
    logging::init(&config.log);
    for warning in &config.warnings {
        warn!("{warning}");
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

/// Binds, serves, drains.
async fn run(config: Resolved) -> anyhow::Result<()> {
    // First of all: a signal that comes early is not to be lost.
    let signals = Signals::catch()?;
    let store = match &config.state {
        Some(folder) => Some(open_store(folder)?),
        None => None,
    };
    let metrics = Arc::new(Metrics::new());
    if let Some(store) = &store {
        metrics.store_is_usable(store.is_usable());
    }
    let upstreams = upstreams(config.upstream, config.servers, store.as_ref(), &metrics);
    let gateway_upstream = config.accounts.gateway_upstream.clone();
    // Where there is no store, there is nobody but who is at the upstream.
    let accounts = store.clone().map(|store| {
        let access = Access::Local(store);
        Arc::new(Accounts::new(access, config.accounts, Arc::clone(&metrics)))
    });
    let gateway = Gateway::bind(
        config.server,
        Arc::clone(&upstreams),
        accounts.clone(),
        Arc::clone(&metrics),
    )?;
    let operator = match config.http {
        Some(address) => {
            let server = web::Server::bind(address).await?;
            let certificates = config.certificates.as_ref().filter(|_| config.http_tls);
            Some(match certificates {
                Some(certificates) => server.with_tls(&certificates.server_config()),
                None => server,
            })
        }
        None => None,
    };

    let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
    let drained = CancellationToken::new();
    if let Some(certificates) = &config.certificates {
        let watched = Arc::clone(certificates);
        metrics.watch_certificate(move || watched.expires_at());
        tokio::spawn(Arc::clone(certificates).watch(shutdown.clone()));
    }
    let watch = accounts.clone().map(|accounts| {
        let drained = drained.clone();
        tokio::spawn(async move { accounts.run(drained).await })
    });
    let pages = operator.map(|server| {
        let (readiness, drained) = (readiness.clone(), drained.clone());
        let accounts = accounts.clone();
        let probe = UpstreamProbe::new(Arc::clone(&upstreams), gateway_upstream);
        let enrolment = config
            .enrolment
            .zip(accounts)
            .map(|(config, accounts)| Enrolment {
                config: Arc::new(config),
                accounts,
                probe: Arc::new(probe),
            });
        let site = web::Site {
            metrics,
            readiness,
            autoconfig: config.autoconfig,
            enrolment,
        };
        tokio::spawn(server.run(site, drained))
    });
    let control = match (&config.state, &store, accounts) {
        (Some(folder), Some(store), Some(accounts)) => {
            serve_store(folder, store, accounts, drained.clone())
        }
        _ => None,
    };
    tokio::spawn(signals.obey(config.certificates, readiness.clone(), shutdown.clone()));

    readiness.ready();
    notify(NotifyState::Ready);
    gateway.run(shutdown).await;
    upstreams.close().await;
    drained.cancel();
    if let Some(watch) = watch {
        // Tokens on their way are stored first.
        let _ = watch.await;
    }
    // Who is signing in at the pages has used up his code, and who has a new password is
    // to see it. Whoever asks, or copies a backup, slowly is not waited for.
    let last = pages.into_iter().chain(control);
    let _ = tokio::time::timeout(FAREWELL, futures_util::future::join_all(last)).await;
    if let Some(store) = store {
        store.close().await;
    }
    info!("stopped");
    Ok(())
}

/// The store of the state folder. One that cannot be used is no reason not to
/// start: each login that needs it says so.
fn open_store(folder: &Path) -> anyhow::Result<Store> {
    match Access::open_own(folder) {
        Ok(store) => Ok(store),
        Err(error @ OpenError::InUse { .. }) => Err(anyhow!("{error}: {}", error.advice())),
        Err(error) => {
            error!("THE STORE CANNOT BE USED: {error}; {}", error.advice());
            Ok(Store::broken(error))
        }
    }
}

/// Lets commands at the store while this process has it.
fn serve_store(
    folder: &Path,
    store: &Store,
    accounts: Arc<Accounts>,
    drained: CancellationToken,
) -> Option<JoinHandle<()>> {
    if !store.is_usable() {
        return None;
    }
    match control::bind(folder) {
        Ok(control) => {
            let serving = control.serve(store.clone(), accounts, drained);
            Some(tokio::spawn(serving))
        }
        Err(error) => {
            warn!(%error, "no control socket: commands cannot use the store meanwhile");
            None
        }
    }
}

/// The gateway's own upstream, and how others are made.
fn upstreams(
    own: Option<config::Upstream>,
    servers: Servers,
    store: Option<&Store>,
    metrics: &Arc<Metrics>,
) -> Arc<Upstreams> {
    let (store, metrics) = (store.cloned(), Arc::clone(metrics));
    let kept = store.clone();
    let own = own.map(|config| upstream(config, store.clone(), Arc::clone(&metrics)));
    let make = move |url: &str| {
        let config = servers.at(url).map_err(|problem| Reason::from(&*problem))?;
        Ok(upstream(config, store.clone(), Arc::clone(&metrics)))
    };
    Arc::new(Upstreams::new(own, Box::new(make)).keeping(kept))
}

fn upstream(
    config: config::Upstream,
    store: Option<Store>,
    metrics: Arc<Metrics>,
) -> Arc<dyn Upstream> {
    match config {
        config::Upstream::Imap(config) => Arc::new(Imap::new(config, store).counting(metrics)),
        config::Upstream::Jmap(config) => Arc::new(Jmap::new(config, store).counting(metrics)),
    }
}

/// The signals popgate listens to. Once caught, a second SIGTERM does not cut
/// the drain short.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        let caught = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: caught(SignalKind::terminate())?,
            interrupt: caught(SignalKind::interrupt())?,
            hang_up: caught(SignalKind::hangup())?,
        })
    }

    async fn obey(
        mut self,
        certificates: Option<Arc<Certificates>>,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hang_up.recv() => {
                    info!("SIGHUP: reading the certificate again");
                    if let Some(certificates) = certificates.clone() {
                        tokio::task::spawn_blocking(move || certificates.reload());
                    }
                    continue;
                }
            }
            if !shutdown.is_cancelled() {
                info!("stopping: sessions are given time to end");
                readiness.draining();
                notify(NotifyState::Stopping);
                shutdown.cancel();
            }
        }
    }
}

/// Tells the service manager, where there is one.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        debug!(%error, "the service manager was not told");
    }
}

/// Control characters escaped, so that an error is one line.
struct OneLine(String);

impl Display for OneLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => write!(f, "{c}"),
        })
    }
}
