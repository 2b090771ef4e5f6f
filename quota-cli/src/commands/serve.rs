//! `quota serve`: the gateway for the programs on this machine. The crate quota-server handles requests; this file
//! supplies the accounts.

mod access;
mod router;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use quota::accounts::FallbackAccountManager;
use quota::credentials::TokenStore;
use quota::{AccountId, Clock, MemoryStore, QuotaManager};
use quota_server::{Gateway, Journals, LastResponses, Limits, Listener, ServedAccount, Server};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::access::TokenFile;
use self::signals::{ServerSignals, SignalEvent};
use crate::cli::{GlobalOptions, ServeArgs};
use crate::config::Config;
use crate::context;
use crate::exit::{CliError, Exit};
use crate::hook_failures;
use crate::io_cause;
use crate::journal;
use crate::runtime;
use crate::store::{self, OpenedStore};
use crate::term;

/// The default address, used without `--listen` and inherited sockets.
const DEFAULT_ADDRESS: &str = "127.0.0.1:7878";
/// The name under which calls are counted.
const NAME: &str = "quota serve";
/// How long a manager may take to finish its calls at shutdown or after a reload.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// [`CliError`] if the configuration, the store or a token file cannot be used, or an address is not available.
pub(crate) fn run(options: &ServeArgs, global: &GlobalOptions) -> Result<Exit, CliError> {
    let store = store::open(global.store.as_deref())?;
    runtime::run_on_threads(serve(options, global, &store))
}

async fn serve(options: &ServeArgs, global: &GlobalOptions, store: &OpenedStore) -> Result<Exit, CliError> {
    // Install the handlers before the first socket, so that no signal is lost.
    let (mut signals, mut impatient) = (ServerSignals::listen()?, ServerSignals::listen()?);
    let Some(config) = load(options, global).await? else { return Ok(Exit::NoAccount) };
    store.check(&config).await?;
    let token_file = TokenFile::find(options);
    let tokens = access::tokens(options, token_file.as_ref())?;
    let tls = access::tls(options)?;
    let listeners = listeners(options).await?;
    access::check_exposure(options, &listeners, !tokens.is_open(), tls.is_some())?;

    let responses = LastResponses::default();
    let logins = context::renewing_logins(&config, store)?;
    let manager = context::open_manager_for_server(&config, store, &logins, NAME, &responses)?;
    let served = accounts(&config);
    let router = router::open(&config, store, &manager).await?;
    let (configs, config) = watch::channel(Arc::new(config));
    let (problems, saving) = mpsc::unbounded_channel();
    let mut gateway = Gateway::builder(&manager, served)
        .journals(journals(store, config.clone(), problems))
        .router(router.clone())
        .hand_out_credentials(options.hand_out_credentials)
        .tokens(tokens)
        .last_responses(responses.clone())
        .max_age(options.max_age);
    if options.adopt_presented {
        let config = Arc::clone(&config.borrow());
        let manager = context::open_manager_in_memory(&config, MemoryStore::new(), NAME, &responses)?;
        gateway = gateway.adopt_presented(manager);
    }
    let gateway = gateway.build();
    let scheme = if tls.is_some() { "https" } else { "http" };
    for listener in &listeners {
        term::print(&format!("Listening on {}\n", listener.display(scheme)))?;
    }
    let mut limits = Limits::default();
    access::fit_to_open_files(&mut limits);
    let mut server = Server::new(gateway.clone(), listeners).limits(limits);
    server = server.allow_hosts(options.allow_host.iter().cloned());
    if let Some(tls) = tls {
        server = server.tls(tls);
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(save_problems(saving));
    let preparing = gateway.clone();
    tasks.spawn(async move { preparing.prepare().await });
    let mut reload =
        Reload { options, global, token_file, store, gateway, responses, manager, router, logins, configs };
    let stop = async {
        while let SignalEvent::Reload = signals.next().await {
            tasks.spawn(reload.run().await);
        }
    };
    tokio::select! {
        _ = server.run(stop) => {}
        () = impatient.stop_twice() => {}
    }
    tasks.shutdown().await;
    flush(reload.router).await;
    reload.manager.close_within(CLOSE_TIMEOUT).await;
    // An interrupted renewal may lose its login.
    reload.logins.close().await;
    Ok(Exit::Success)
}

/// Loads the configuration. If it has no account, and clients may not bring their own credentials, prints that and
/// returns `None`.
async fn load(options: &ServeArgs, global: &GlobalOptions) -> Result<Option<Config>, CliError> {
    let named = global.config.as_deref();
    match options.adopt_presented {
        true => context::configuration_or_empty(named).await.map(Some),
        false => context::configuration(named).await,
    }
}

fn accounts(config: &Config) -> Vec<ServedAccount> {
    let accounts = config.accounts.iter();
    let served = |id: &AccountId| ServedAccount::new(id.clone()).rules(journal::rules(config, id.provider()));
    accounts.map(|account| served(&account.id).disabled(account.disabled)).collect()
}

/// The inherited sockets and those of `--listen`; without either, the default address.
async fn listeners(options: &ServeArgs) -> Result<Vec<Listener>, CliError> {
    let unavailable = |error: quota_server::ListenError| {
        let cause = io_cause::plain(&error.source);
        CliError::new(Exit::Unavailable, format!("{error}: {cause}; choose another address with --listen"))
    };
    let mut listeners = Listener::inherited().map_err(unavailable)?;
    let default = [DEFAULT_ADDRESS.parse().expect("it is an address")];
    let is_default = listeners.is_empty() && options.listen.is_empty();
    for address in if is_default { &default[..] } else { &options.listen } {
        listeners.push(Listener::bind(address).await.map_err(unavailable)?);
    }
    Ok(listeners)
}

/// Saves the state of a router to its file.
async fn flush(router: Option<FallbackAccountManager>) {
    if let Some(router) = router {
        // A failed save is ignored, because the state can be rebuilt.
        let _ = Clock::system().bounded(CLOSE_TIMEOUT, router.flush()).await;
    }
}

/// The parts that a reload has replaced.
type Previous = (QuotaManager, Option<FallbackAccountManager>, TokenStore);

/// The parts that a reload replaces.
struct Reload<'a> {
    options: &'a ServeArgs,
    global: &'a GlobalOptions,
    token_file: Option<TokenFile>,
    store: &'a OpenedStore,
    gateway: Gateway,
    responses: LastResponses,
    manager: QuotaManager,
    router: Option<FallbackAccountManager>,
    logins: TokenStore,
    configs: watch::Sender<Arc<Config>>,
}

impl Reload<'_> {
    /// Reloads the configuration and the tokens. If either cannot be used, both stay as they are. Returns a future that
    /// closes the previous manager.
    async fn run(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let loaded = self.replace().await;
        let text = match &loaded {
            Ok(Some(_)) => "Reloaded the configuration\n".to_owned(),
            Ok(None) => "quota: the configuration has no account any more; it was not reloaded\n".to_owned(),
            Err(error) => format!("quota: could not reload the configuration, so it stays: {error}\n"),
        };
        term::eprint(&text);
        let previous = loaded.ok().flatten();
        async move {
            if let Some((manager, router, logins)) = previous {
                flush(router).await;
                manager.close_within(CLOSE_TIMEOUT).await;
                logins.close().await;
            }
        }
    }

    /// Returns the previous manager, its router and its logins; `None` without an account.
    async fn replace(&mut self) -> Result<Option<Previous>, CliError> {
        let tokens = access::tokens(self.options, self.token_file.as_ref())?;
        let Some(config) = load(self.options, self.global).await? else { return Ok(None) };
        let logins = context::renewing_logins(&config, self.store)?;
        let manager = context::open_manager_for_server(&config, self.store, &logins, NAME, &self.responses)?;
        // The next router reads the saved state of this one.
        flush(self.router.clone()).await;
        let router = router::open(&config, self.store, &manager).await?;
        self.gateway.replace_accounts(&manager, accounts(&config)).await;
        self.gateway.replace_router(router.clone());
        self.gateway.replace_tokens(tokens);
        self.configs.send_replace(Arc::new(config));
        let manager = std::mem::replace(&mut self.manager, manager);
        let router = std::mem::replace(&mut self.router, router);
        Ok(Some((manager, router, std::mem::replace(&mut self.logins, logins))))
    }
}

/// The journals of the accounts. Their updates start the hooks of the current configuration, and send problems to the
/// task that saves them.
fn journals(
    store: &OpenedStore,
    configs: watch::Receiver<Arc<Config>>,
    problems: mpsc::UnboundedSender<String>,
) -> Journals {
    Journals::new(Arc::clone(&store.store)).on_update(move |account, update| {
        let config = Arc::clone(&configs.borrow());
        for problem in journal::start_hooks_of(&config, account, update) {
            // The receiver lives as long as the gateway.
            let _ = problems.send(problem);
        }
    })
}

/// Saves problems until this is dropped, so that the next command reports them.
async fn save_problems(mut problems: mpsc::UnboundedReceiver<String>) {
    while let Some(problem) = problems.recv().await {
        let _ = hook_failures::save(problem).await;
    }
}
