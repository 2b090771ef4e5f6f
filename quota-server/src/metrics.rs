//! The metrics of a gateway, in OpenMetrics or in the text format of Prometheus. Labels contain names of accounts and
//! windows, never a credential or text from a client.

use std::sync::atomic::AtomicU64;

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use quota::{AccountId, Event, FetchError, QuotaManager};
use tokio::task::JoinSet;

use crate::served::{Accounts, Served};

/// A format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    /// The older text format, for clients that do not accept OpenMetrics.
    Text,
}

impl Format {
    /// The format that these headers accept.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        match accepted.any(|value| value.contains("application/openmetrics-text")) {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Label names with their values.
type Labels<const N: usize> = [(&'static str, String); N];
type Gauges<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;

/// The counters of the process. Gauges are computed at each scrape.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Family<Labels<2>, Counter>,
    calls: Family<Labels<2>, Counter>,
    event_streams: Gauge,
    missed: Counter,
}

impl Metrics {
    /// Counts a request by the path of its handler, never by the path that the client sent.
    pub(crate) fn count_request(&self, route: &str, status: u16) {
        let labels = [("route", route.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a stream of events until the returned value is dropped; `None` beyond the limit.
    pub(crate) fn open_stream(&self, max: usize) -> Option<OpenStream> {
        let open = OpenStream(self.event_streams.clone());
        let before = open.0.inc();
        usize::try_from(before).is_ok_and(|before| before < max).then_some(open)
    }

    /// Counts a client that was too slow for the events.
    pub(crate) fn count_missed(&self) {
        self.missed.inc();
    }

    /// Counts the calls of a manager until the returned task is dropped.
    pub(crate) fn follow(&self, manager: &QuotaManager) -> JoinSet<()> {
        let (calls, mut events) = (self.calls.clone(), manager.events());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let count = |account: &AccountId, outcome: &str| {
                let labels = [("provider", account.provider().to_string()), ("outcome", outcome.to_owned())];
                calls.get_or_create(&labels).inc();
            };
            while let Some(event) = events.next().await {
                match event {
                    Event::Refreshed { account, .. } => count(&account, "success"),
                    Event::Failed { account, error, .. } => count(&account, outcome(&error)),
                    _ => {}
                }
            }
        });
        task
    }

    /// All metrics in this format.
    pub(crate) fn text(&self, accounts: &Accounts, format: Format) -> String {
        let mut registry = Registry::with_prefix("quota");
        for served in &accounts.all {
            for outcome in OUTCOMES {
                let provider = served.id().provider().to_string();
                drop(self.calls.get_or_create(&[("provider", provider), ("outcome", outcome.to_owned())]));
            }
        }
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the program", version);
        registry.register("http_requests", "Requests by handler and status", self.requests.clone());
        registry.register("provider_calls", "Calls of this process by outcome", self.calls.clone());
        registry.register("event_streams", "Open streams of events", self.event_streams.clone());
        let missed = self.missed.clone();
        registry.register(
            "event_streams_missed",
            "Clients that missed events, because they read slowly",
            missed,
        );
        store(&mut registry, accounts);
        let gauges = AccountGauges::new(&mut registry);
        accounts.all.iter().for_each(|served| gauges.read(served));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text accepts each write");
        match format {
            Format::OpenMetrics => text,
            Format::Text => text_format(&text),
        }
    }
}

/// An open stream of events.
#[derive(Debug)]
pub(crate) struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Converts OpenMetrics to the text format, which declares a counter with its suffix and has no type `info`.
fn text_format(open_metrics: &str) -> String {
    let mut text = String::new();
    let mut help = None;
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        if let Some(declared) = line.strip_prefix("# HELP ") {
            // The type is on the next line, and determines the name.
            help = declared.split_once(' ').map(|(_, help)| help);
            continue;
        }
        let declared = line.strip_prefix("# TYPE ").and_then(|declared| declared.split_once(' '));
        let Some((name, kind)) = declared else {
            text.extend([line, "\n"]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            kind => ("", kind),
        };
        let help = help.take().unwrap_or_default();
        text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
    }
    text
}

/// The outcomes of calls. Each counter exists from the start, because Prometheus cannot see the first increase of a new
/// one.
const OUTCOMES: [&str; 10] = [
    "success",
    "throttled",
    "unauthorized",
    "forbidden",
    "missing_scope",
    "no_credential",
    "unavailable",
    "malformed",
    "timed_out",
    "other",
];

/// The outcome of a failed call.
fn outcome(error: &FetchError) -> &'static str {
    match error {
        FetchError::Throttled { .. } => "throttled",
        FetchError::Unauthorized => "unauthorized",
        FetchError::Forbidden { .. } => "forbidden",
        FetchError::MissingScope { .. } => "missing_scope",
        FetchError::NotLoggedIn { .. } | FetchError::CredentialUnavailable { .. } => "no_credential",
        FetchError::Unavailable { .. } => "unavailable",
        FetchError::Malformed { .. } => "malformed",
        FetchError::TimedOut => "timed_out",
        _ => "other",
    }
}

fn store(registry: &mut Registry, accounts: &Accounts) {
    let stats = accounts.manager.store_stats();
    let calls = Family::<Labels<1>, Counter>::default();
    for (kind, count) in [("read", stats.reads), ("swap", stats.swaps)] {
        calls.get_or_create(&[("kind", kind.to_owned())]).inc_by(count);
    }
    registry.register("store_calls", "Calls of the store by kind", calls);
    let outages = Counter::<u64>::default();
    outages.inc_by(stats.outages + accounts.outages.count());
    registry.register("store_outages", "Outages of the store", outages);
    let failures = Family::<Labels<1>, Counter>::default();
    for (kind, count) in
        [("unavailable", stats.unavailable), ("rejected", stats.rejected), ("corrupt", stats.corrupt)]
    {
        failures.get_or_create(&[("kind", kind.to_owned())]).inc_by(count);
    }
    registry.register("store_failures", "Failed calls of the store by kind", failures);
    let is_away =
        |served: &std::sync::Arc<Served>| served.store_unavailable_since(&served.account.peek()).is_some();
    let available = Gauge::<i64>::default();
    available.set(i64::from(!accounts.all.iter().any(is_away)));
    registry.register("store_available", "Whether the store answers", available);
}

/// The gauges of the accounts.
struct AccountGauges {
    fresh: Gauges<1>,
    age: Gauges<1>,
    calls: Gauges<1>,
    calls_left: Gauges<1>,
    hold: Gauges<2>,
    cooldown: Gauges<1>,
    used: Gauges<2>,
    reset: Gauges<2>,
}

impl AccountGauges {
    fn new(registry: &mut Registry) -> Self {
        let all = Self {
            fresh: Family::default(),
            age: Family::default(),
            calls: Family::default(),
            calls_left: Family::default(),
            hold: Family::default(),
            cooldown: Family::default(),
            used: Family::default(),
            reset: Family::default(),
        };
        registry.register("account_fresh", "Whether the readings are fresh", all.fresh.clone());
        registry.register("reading_age_seconds", "Age of the oldest reading", all.age.clone());
        registry.register("budget_calls", "Calls of the last hour by all processes", all.calls.clone());
        registry.register("budget_calls_left", "Calls that the budget still allows", all.calls_left.clone());
        registry.register("hold_seconds", "Time until the hold ends, by reason", all.hold.clone());
        let help = "Time until the cooldown of a provider ends, which applies to all its accounts";
        registry.register("cooldown_seconds", help, all.cooldown.clone());
        registry.register("window_used_ratio", "Used part of a window; at least this much", all.used.clone());
        registry.register("window_reset_seconds", "Time until a window resets", all.reset.clone());
        all
    }

    fn read(&self, served: &Served) {
        let usage = served.account.peek();
        let now = usage.now();
        let account = served.id().to_string();
        let own = [("account", account.clone())];
        let with = |name, value: &str| [("account", account.clone()), (name, value.to_owned())];
        self.fresh.get_or_create(&own).set(f64::from(u8::from(!usage.is_stale())));
        if let Some(age) = usage.age() {
            self.age.get_or_create(&own).set(age.as_secs_f64());
        }
        let calls = usage.calls_in_last_hour();
        let left = (usage.budget().per_hour as usize).saturating_sub(calls);
        self.calls.get_or_create(&own).set(calls as f64);
        self.calls_left.get_or_create(&own).set(left as f64);
        if let Some(hold) = usage.hold() {
            let labels = with("reason", &hold.reason.to_string());
            self.hold.get_or_create(&labels).set(hold.until.duration_since(now).as_secs_f64());
        }
        if let Some(cooldown) = usage.cooldown() {
            let provider = [("provider", served.id().provider().to_string())];
            self.cooldown.get_or_create(&provider).set(cooldown.until.duration_since(now).as_secs_f64());
        }
        for window in usage.snapshot().windows().iter().filter(|window| !window.is_unlimited()) {
            let labels = with("window", window.id().as_str());
            // After the reset, the usage is unknown, so there is no sample.
            let Some(used) = window.used_at(now, usage.max_age()).lower_bound() else { continue };
            self.used.get_or_create(&labels).set(used.as_f64() / 100.0);
            if let Some(reset) = window.resets_at().filter(|reset| *reset > now) {
                self.reset.get_or_create(&labels).set(reset.duration_since(now).as_secs_f64());
            }
        }
    }
}
