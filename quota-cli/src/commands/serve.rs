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
use tokio::sync::{Notify, mpsc, watch};
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
/// How long a router may take to write its state, and a manager to finish its calls, at shutdown or after a reload.
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
    let opened = Opened::new(&config, store, &responses)?;
    opened.load().await;
    let served = accounts(&config);
    let (configs, config) = watch::channel(Arc::new(config));
    let (problems, saving) = mpsc::unbounded_channel();
    let mut gateway = Gateway::builder(&opened.manager, served)
        .journals(journals(store, config.clone(), problems))
        .router(opened.router.clone())
        .hand_out_credentials(options.hand_out_credentials)
        .tokens(tokens)
        .last_responses(responses.clone())
        .max_age(options.max_age);
    if let Some(outages) = store.outages() {
        gateway = gateway.outages(Arc::clone(outages));
    }
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
    let mut reload = Reload {
        options,
        global,
        token_file,
        store,
        gateway,
        responses,
        configs,
        opened,
        next: None,
        closing: JoinSet::new(),
    };
    let requested = Notify::new();
    let stop = async {
        while let SignalEvent::Reload = signals.next().await {
            requested.notify_one();
        }
    };
    // A reload that is running does not delay the end.
    tokio::select! {
        _ = server.run(stop) => {}
        () = impatient.stop_twice() => {}
        () = reload.run(&requested) => {}
    }
    tasks.shutdown().await;
    reload.end().await;
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

/// The resources that one configuration has opened.
struct Opened {
    manager: QuotaManager,
    router: Option<FallbackAccountManager>,
    logins: TokenStore,
}

impl Opened {
    fn new(config: &Config, store: &OpenedStore, responses: &LastResponses) -> Result<Self, CliError> {
        let logins = context::renewing_logins(config, store)?;
        let manager = context::open_manager_for_server(config, store, &logins, NAME, responses)?;
        let router = router::build(config, store, &manager)?;
        Ok(Self { manager, router, logins })
    }

    /// Reads what earlier routers have learned.
    async fn load(&self) {
        if let Some(router) = &self.router {
            router::load(router).await;
        }
    }

    /// Finishes or ends its calls. Each step has a time limit.
    async fn close(self) {
        flush(self.router).await;
        self.manager.close_within(CLOSE_TIMEOUT).await;
        // An interrupted renewal may lose its login.
        self.logins.close().await;
    }
}

/// The parts that a reload replaces.
struct Reload<'a> {
    options: &'a ServeArgs,
    global: &'a GlobalOptions,
    token_file: Option<TokenFile>,
    store: &'a OpenedStore,
    gateway: Gateway,
    responses: LastResponses,
    configs: watch::Sender<Arc<Config>>,
    opened: Opened,
    /// The resources that a reload in progress has opened.
    next: Option<Opened>,
    /// Close what reloads have replaced.
    closing: JoinSet<()>,
}

impl Reload<'_> {
    /// Reloads for each request, until this is dropped. Requests during a reload cause one more.
    async fn run(&mut self, requested: &Notify) {
        loop {
            requested.notified().await;
            let loaded = self.replace().await;
            let text = match &loaded {
                Ok(true) => "Reloaded the configuration\n".to_owned(),
                Ok(false) => {
                    "quota: the configuration has no account any more; it was not reloaded\n".to_owned()
                }
                Err(error) => format!("quota: could not reload the configuration, so it stays: {error}\n"),
            };
            term::eprint(&text);
        }
    }

    /// Reloads the configuration and the tokens. If either cannot be used, both stay as they are. Returns whether it
    /// has an account. If the future is dropped, [`end`](Self::end) closes the opened resources.
    async fn replace(&mut self) -> Result<bool, CliError> {
        let tokens = access::tokens(self.options, self.token_file.as_ref())?;
        let Some(config) = load(self.options, self.global).await? else { return Ok(false) };
        let next = self.next.insert(Opened::new(&config, self.store, &self.responses)?);
        // Replace the tokens first, because a removed token must not be accepted while the accounts are read.
        self.gateway.replace_tokens(tokens);
        self.gateway.replace_accounts(&next.manager, accounts(&config)).await;
        // The next router reads what this one has learned, and takes over what it learns until it is replaced.
        flush(self.opened.router.clone()).await;
        next.load().await;
        self.gateway.replace_router(next.router.clone());
        self.configs.send_replace(Arc::new(config));
        if let Some(next) = self.next.take() {
            while self.closing.try_join_next().is_some() {}
            self.closing.spawn(std::mem::replace(&mut self.opened, next).close());
        }
        Ok(true)
    }

    /// Closes everything that was opened.
    async fn end(mut self) {
        for opened in [self.opened].into_iter().chain(self.next) {
            self.closing.spawn(opened.close());
        }
        while self.closing.join_next().await.is_some() {}
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
