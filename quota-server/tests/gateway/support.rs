//! A gateway on a free port with a simulated provider, and a client that writes requests as text.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::{AccountConfig, AccountsConfig, FallbackAccountManager};
use quota::credentials::{CredentialMap, StaticCredential, from_fn};
use quota::http::{AnyResponseParser, Fetcher, PROVIDERS};
use quota::record::Seed;
use quota::{
    Account, AccountId, Clock, Credential, CredentialError, MemoryStore, Percent, Policy, QuotaManager,
    QuotaStore, Secret, Snapshot, UsageReport, WindowId, WindowReading,
};
use quota_server::{
    Gateway, GatewayBuilder, Journals, LastResponses, Limits, Listener, ServedAccount, Server,
};
use quota_sim::{Answer, Change, Script, Simulator};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

/// A running gateway.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) simulator: Simulator,
    pub(crate) manager: QuotaManager,
    pub(crate) gateway: Gateway,
    pub(crate) router: Option<FallbackAccountManager>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinSet<bool>,
}

type Configure = Box<dyn FnOnce(GatewayBuilder, &Simulator) -> GatewayBuilder>;

/// The settings of a test.
pub(crate) struct Setup {
    script: Script,
    limits: Limits,
    configure: Configure,
    seeds: Vec<(AccountId, UsageReport, Timestamp)>,
    refused: Option<Answer>,
    disabled: bool,
    store: Option<Arc<MemoryStore>>,
    clock: Clock,
    has_router: bool,
    gate: Option<Gate>,
}

impl Setup {
    pub(crate) fn new(accounts: impl IntoIterator<Item = quota_sim::Account>) -> Self {
        Self {
            script: Script::new(accounts),
            limits: Limits::default(),
            configure: Box::new(|builder, _| builder),
            seeds: Vec::new(),
            refused: None,
            disabled: false,
            store: None,
            clock: Clock::system(),
            has_router: false,
            gate: None,
        }
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub(crate) fn configure(
        mut self,
        configure: impl FnOnce(GatewayBuilder, &Simulator) -> GatewayBuilder + 'static,
    ) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Stores a reading of the main account's five-hour window, and makes the provider answer like this.
    pub(crate) fn read_before(mut self, percent: f64, age: i64, reset: i64, answer: Answer) -> Self {
        let now = Clock::system().now();
        let after = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let used = Percent::from_percent(percent).unwrap();
        let window = WindowReading::new(WindowId::five_hour(), used).resets_at(after(reset));
        self.seeds.push((main(), UsageReport::polled([window]), after(-age)));
        self.refused = Some(answer);
        self
    }

    pub(crate) fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// Uses this store, which may be that of another gateway, and updates the journals in it.
    pub(crate) fn store(mut self, store: &Arc<MemoryStore>) -> Self {
        self.store = Some(Arc::clone(store));
        self
    }

    /// Uses this clock for the readings.
    pub(crate) fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Adds a router of all accounts, which prefers the first one.
    pub(crate) fn router(mut self) -> Self {
        self.has_router = true;
        self
    }

    /// Makes the sources of the credentials wait while this gate is closed.
    pub(crate) fn gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    pub(crate) async fn start(self) -> Running {
        let simulator = Simulator::builder(self.script.clone()).start().await.unwrap();
        if let Some(answer) = self.refused {
            for account in self.script.accounts() {
                simulator.set(account.name(), Change::answer_for(answer, Duration::from_secs(1000))).unwrap();
            }
        }
        let responses = LastResponses::default();
        let mut sources = CredentialMap::new();
        let mut served = Vec::new();
        for account in self.script.accounts() {
            let id = id_of(account);
            let token = Secret::new(account.token());
            sources = match self.gate.clone() {
                None => sources.with(id.clone(), StaticCredential::new(token)),
                Some(gate) => sources.with(id.clone(), from_fn(move |_| gate.clone().pass(token.clone()))),
            };
            served.push(ServedAccount::new(id).disabled(self.disabled));
        }
        let store = self.store.clone();
        let store = store.unwrap_or_else(|| Arc::new(MemoryStore::with_clock(self.clock.clone())));
        let store_of_router: Arc<dyn QuotaStore> = Arc::clone(&store) as _;
        let manager = manager_of(&store, &self.clock, &simulator, &responses, Some(sources));
        for (account, report, at) in self.seeds {
            manager.account(&account).seed(&Seed::new(Snapshot::of(&report, at))).unwrap();
        }
        let mut builder = Gateway::builder(&manager, served).last_responses(responses);
        if let Some(store) = self.store {
            builder = builder.journals(Journals::new(store));
        }
        let accounts = self.script.accounts().iter().map(id_of);
        let router = self.has_router.then(|| router_of(accounts, &manager, store_of_router));
        builder = builder.router(router.clone());
        let gateway = (self.configure)(builder, &simulator).build();
        gateway.prepare().await;
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.display("http")["http://".len()..].parse().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::new(gateway.clone(), vec![listener]).limits(self.limits);
        let mut task = JoinSet::new();
        task.spawn(server.run(async { drop(stopped.await) }));
        Running { address, simulator, manager, gateway, router, stop: Some(stop), task }
    }
}

/// A manager of the simulated provider, without a pause between calls.
pub(crate) fn manager(
    simulator: &Simulator,
    responses: &LastResponses,
    sources: Option<CredentialMap>,
) -> QuotaManager {
    manager_of(&Arc::default(), &Clock::system(), simulator, responses, sources)
}

fn manager_of(
    store: &Arc<MemoryStore>,
    clock: &Clock,
    simulator: &Simulator,
    responses: &LastResponses,
    sources: Option<CredentialMap>,
) -> QuotaManager {
    let policy = Policy::default().min_call_interval(Duration::from_millis(1));
    let mut builder = QuotaManager::builder(Arc::clone(store)).clock(clock.clone()).policy(policy);
    for provider in PROVIDERS.iter().filter(|provider| provider.endpoint().is_some()) {
        let fetcher = Fetcher::builder(provider).base_url(simulator.url()).on_response(responses.recorder());
        let fetcher = fetcher.build().unwrap();
        builder = match &sources {
            Some(sources) => builder.provider(fetcher, sources.clone()),
            None => builder.fetcher(fetcher),
        };
    }
    builder.build().unwrap()
}

/// A router of these accounts, which prefers the first one.
pub(crate) fn router_of(
    accounts: impl IntoIterator<Item = AccountId>,
    manager: &QuotaManager,
    store: Arc<dyn QuotaStore>,
) -> FallbackAccountManager {
    let config: AccountsConfig = accounts.into_iter().map(AccountConfig::new).collect();
    let mut router =
        FallbackAccountManager::builder(config).quota_manager(manager.clone()).reservations(store);
    for provider in PROVIDERS.iter().filter(|provider| provider.endpoint().is_some()) {
        router = router.response_parser(AnyResponseParser::new(provider.id()));
    }
    router.build().unwrap()
}

/// Stops the readers of credentials while it is closed.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    is_open: watch::Sender<bool>,
    waiting: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn open() -> Self {
        Self { is_open: watch::Sender::new(true), waiting: Arc::new(Semaphore::new(0)) }
    }

    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// Waits until a reader waits.
    pub(crate) async fn is_reached(&self) {
        self.waiting.acquire().await.unwrap().forget();
    }

    async fn pass(self, token: Secret) -> Result<Credential, CredentialError> {
        if !*self.is_open.borrow() {
            self.waiting.add_permits(1);
        }
        self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
        Ok(Credential::new(token))
    }
}

pub(crate) fn main() -> AccountId {
    "anthropic/main".parse().unwrap()
}

fn id_of(account: &quota_sim::Account) -> AccountId {
    format!("{}/{}", account.provider_name(), account.name()).parse().unwrap()
}

impl Running {
    pub(crate) fn main(&self) -> Account {
        self.manager.account(&main())
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a `GET` with these headers, one per line.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
            .await
    }

    /// Sends a `GET` that presents a token.
    pub(crate) async fn get_with(&self, path: &str, token: &str) -> Response {
        self.get(path, &format!("Authorization: Bearer {token}\r\n")).await
    }

    /// Sends this text, and reads until the gateway closes the connection.
    pub(crate) async fn send(&self, text: &str) -> Response {
        let mut stream = self.connect().await;
        // The gateway may close the connection before it has read everything.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        Response(String::from_utf8(bytes).unwrap())
    }

    /// Stops the gateway, and returns whether all responses ended in time.
    pub(crate) async fn stop(&mut self) -> bool {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.join_next().await.unwrap().unwrap()
    }
}

/// A response as text.
#[derive(Debug)]
pub(crate) struct Response(pub(crate) String);

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next()?;
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} twice");
        Some(value.trim())
    }

    pub(crate) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {}", self.0))
    }
}
