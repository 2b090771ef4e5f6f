//! A gateway with made-up accounts, their history and their events, which can be stopped and started again at the same port.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use quota::credentials::{CredentialMap, StaticCredential};
use quota::http::{Fetcher, PROVIDERS};
use quota::store::StoreKey;
use quota::{AccountId, MemoryStore, Policy, QuotaManager, QuotaStore, Secret};
use quota_server::{AccessTokens, Gateway, Journals, Listener, ServedAccount, Server};
use quota_sim::{Account, Answer, Change, Script, Simulator, Window};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The processes of the fleet, each with its number of calls.
const CALLERS: [(&str, usize); 3] =
    [("quota serve (build-1)", 5), ("quota watch (laptop)", 2), ("agent (build-2)", 1)];

/// A running gateway.
pub(crate) struct Demo {
    pub(crate) simulator: Simulator,
    pub(crate) manager: QuotaManager,
    store: Arc<dyn QuotaStore>,
    accounts: Vec<AccountId>,
    tokens: AccessTokens,
    address: String,
    running: Option<(oneshot::Sender<()>, JoinSet<bool>)>,
}

/// Three accounts: one is exhausted, one has quota left, one is rate limited.
fn accounts() -> Vec<Account> {
    let five = |used: f64, resets_in| Window::five_hour().used(used).resets_in(resets_in);
    let seven = |used: f64, resets_in| Window::seven_day().used(used).resets_in(resets_in);
    let opus = Window::model("Opus").used(81.0).resets_in(HOUR * 71);
    vec![
        Account::new("main").plan("max_20x").windows([five(100.0, MINUTE * 42), seven(71.0, HOUR * 50)]),
        Account::new("work").plan("max_5x").windows([five(31.0, MINUTE * 130), seven(38.5, HOUR * 71), opus]),
        Account::new("team").provider("openai").windows([five(64.0, MINUTE * 95), seven(22.0, HOUR * 120)]),
    ]
}

impl Demo {
    pub(crate) async fn start() -> Self {
        Self::with(accounts(), AccessTokens::default()).await
    }

    pub(crate) async fn with(accounts: Vec<Account>, tokens: AccessTokens) -> Self {
        let script = Script::new(accounts);
        let simulator = Simulator::builder(script.clone()).start().await.unwrap();
        let store: Arc<dyn QuotaStore> = Arc::new(MemoryStore::new());
        let id = |account: &Account| -> AccountId {
            format!("{}/{}", account.provider_name(), account.name()).parse().unwrap()
        };
        let sources = script.accounts().iter().fold(CredentialMap::new(), |sources, account| {
            sources.with(id(account), StaticCredential::new(Secret::new(account.token())))
        });
        let accounts: Vec<_> = script.accounts().iter().map(id).collect();
        let mut manager = None;
        for (name, calls) in CALLERS {
            let caller = open(&simulator, &store, &sources, name);
            for _ in 0..calls {
                let _ = caller.account(&accounts[0]).refresh().await;
            }
            for account in &accounts {
                let _ = caller.account(account).refresh().await;
            }
            manager = Some(caller);
        }
        let manager = manager.unwrap();
        for account in &accounts {
            write_journal(&*store, &manager, account).await;
        }
        let mut demo = Self {
            simulator,
            manager,
            store,
            accounts,
            tokens,
            address: "127.0.0.1:0".to_owned(),
            running: None,
        };
        demo.serve().await;
        demo
    }

    /// Lets the provider limit the calls of an account, so that it has a hold.
    pub(crate) async fn limit(&self, account: &str) {
        let id: AccountId = account.parse().unwrap();
        let limit = Change::answer_for(Answer::ThrottleUntilEnd, MINUTE * 9);
        self.simulator.set(id.name(), limit).unwrap();
        let _ = self.manager.account(&id).refresh().await;
    }

    /// Starts the gateway, at the port of the first time.
    pub(crate) async fn serve(&mut self) {
        let served = self.accounts.iter().map(|id| ServedAccount::new(id.clone()).on_demand());
        let gateway = Gateway::builder(&self.manager, served)
            .journals(Journals::new(Arc::clone(&self.store)))
            .tokens(self.tokens.clone())
            .build();
        gateway.prepare().await;
        let listener = Listener::bind(&self.address.parse().unwrap()).await.unwrap();
        self.address = listener.display("http")["http://".len()..].to_owned();
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(Server::new(gateway, vec![listener]).run(async { drop(stopped.await) }));
        self.running = Some((stop, task));
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, mut task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        let _ = task.join_next().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sets the use of the five-hour window, and reads it.
    pub(crate) async fn use_up(&self, account: &str, percent: f64) {
        let id: AccountId = account.parse().unwrap();
        self.simulator.set(id.name(), Change::used(Window::five_hour(), percent)).unwrap();
        let _ = self.manager.account(&id).refresh().await.unwrap();
    }
}

fn open(
    simulator: &Simulator,
    store: &Arc<dyn QuotaStore>,
    sources: &CredentialMap,
    name: &str,
) -> QuotaManager {
    let policy = Policy::default().min_call_interval(Duration::from_millis(1));
    let mut builder = QuotaManager::builder(Arc::clone(store)).policy(policy).name(name);
    for provider in PROVIDERS.iter().filter(|provider| provider.endpoint().is_some()) {
        let fetcher = Fetcher::builder(provider).base_url(simulator.url()).build().unwrap();
        builder = builder.provider(fetcher, sources.clone());
    }
    builder.build().unwrap()
}

/// Writes a journal whose curves lead to the current readings.
async fn write_journal(store: &dyn QuotaStore, manager: &QuotaManager, account: &AccountId) {
    let usage = manager.account(account).peek();
    let now = usage.now();
    let mut history = Map::new();
    for window in usage.snapshot().windows() {
        let (Some(reset), Some(length)) = (window.resets_at(), window.length()) else { continue };
        let start = reset.checked_sub(length).unwrap();
        let (from, to) = (start.as_second(), now.as_second());
        let used = f64::from(window.used().basis_points());
        let steps: i64 = 60;
        let at = |step: i64| from + (to - from) * step / steps;
        let samples = 0..=steps;
        // Use comes in bursts, and never falls.
        let share = |step: i64| {
            let x = step as f64 / steps as f64;
            (x + (x * 21.0).sin() / 24.0).clamp(0.0, 1.0)
        };
        let mut highest = 0.0_f64;
        let uses: Vec<_> = samples
            .clone()
            .map(|step| {
                highest = highest.max(share(step));
                if step == steps { used as u32 } else { (highest * used) as u32 }
            })
            .collect();
        let times = samples.clone().map(|step| if step == 0 { at(0) } else { at(step) - at(step - 1) });
        let resets = samples.map(|step| reset.as_second() - at(step));
        history.insert(
            window.id().to_string(),
            json!({ "at_s": times.collect::<Vec<_>>(), "used_bp": uses, "resets_in_s": resets.collect::<Vec<_>>() }),
        );
    }
    let before = |minutes: i64| (now - SignedDuration::from_mins(minutes)).as_millisecond();
    let events: Vec<Value> = match account.name() {
        "main" => vec![
            json!({ "at_ms": before(150), "kind": "reset", "window": "seven_day" }),
            crossed("five_hour", 7500, before(71)),
            crossed("five_hour", 9000, before(38)),
            crossed("five_hour", 10_000, before(12)),
        ],
        "work" => vec![
            json!({ "at_ms": before(170), "kind": "reset", "window": "five_hour" }),
            crossed("seven_day/opus", 7500, before(25)),
        ],
        _ => vec![crossed("five_hour", 5000, before(44)), json!({ "at_ms": before(3), "kind": "refreshed" })],
    };
    let journal = json!({ "format": 3, "next_number": events.len(), "events": events, "history": history });
    let key = StoreKey::account_extension(account, "journal");
    let body = serde_json::to_vec(&journal).unwrap().into();
    let _ = store.compare_and_swap(&key, None, body, HOUR).await.unwrap();
}

fn crossed(window: &str, threshold: u32, at: i64) -> Value {
    json!({
        "at_ms": at, "kind": "threshold", "window": window, "threshold_bp": threshold, "used_bp": threshold + 40,
        "direction": "up",
    })
}
