//! The content of the page as plain strings and numbers: a pure function of the accounts and the decision. Like `quota
//! status`, `explain`, `pace`, `events` and `budget`, it takes its texts from quota-view.

use std::collections::BTreeMap;

use askama::Template;
use jiff::Timestamp;
use quota::accounts::Decision;
use quota::accounts::routing::{Disposition, Eligibility, Evaluated};
use quota::record::HoldReason;
use quota::{AccountId, AccountUsage, Used};
use quota_journal::Journal;
use quota_view::account::{AccountView, WindowView};
use quota_view::decision::{Outcome, account_reason, outcome, verdict};
use quota_view::event;
use quota_view::format::{self, LocalTime, between};
use quota_view::pace::{self, AccountPace, WindowPace};
use quota_view::reason::Reason;
use quota_view::sanitize::sanitize;
use quota_view::window_name::window_name;
use quota_view::words::{self, Level, ResetFormat};

use super::assets;
use super::curve::{Curve, HEIGHT, WIDTH};

/// The number of events on the page.
const EVENTS: usize = 10;
/// How many accounts are listed with their reason at the top.
const MAX_REASONS: usize = 3;
/// The advice for a login that is not in the gateway's configuration.
const LOG_IN: &str = "log in again";

/// An account at the time of the page.
#[derive(Debug)]
pub(super) struct AccountState<'a> {
    pub(super) id: &'a AccountId,
    pub(super) usage: AccountUsage,
    pub(super) is_disabled: bool,
    pub(super) journal: Journal,
}

/// The whole page.
#[derive(Debug, Template)]
#[template(path = "dashboard.html")]
pub(super) struct Page {
    title: String,
    style: &'static str,
    script: &'static str,
    icon: &'static str,
    answer: Answer,
    accounts: Vec<Card>,
    events: Vec<EventRow>,
    calls: Vec<Calls>,
    zone: String,
}

/// The account to use now, or why there is none.
#[derive(Debug)]
struct Answer {
    is_use: bool,
    /// The number of the account in the page.
    card: Option<usize>,
    headline: String,
    facts: Vec<String>,
    /// Why the accounts before the chosen one are not used.
    passed_over: Vec<String>,
}

/// One account.
#[derive(Debug)]
struct Card {
    name: String,
    is_chosen: bool,
    disposition: &'static str,
    about: String,
    is_stale: bool,
    notes: Vec<Note>,
    windows: Vec<WindowRow>,
}

/// A line about an account.
#[derive(Debug)]
struct Note {
    class: &'static str,
    text: String,
}

/// One window.
#[derive(Debug)]
struct WindowRow {
    name: String,
    used: String,
    /// The used part in thousandths, at most 1000.
    filled: Option<f64>,
    /// The forecast for the reset in thousandths, if it exceeds the current usage.
    forecast_at: Option<f64>,
    elapsed_at: Option<f64>,
    percent: Option<f64>,
    reset: String,
    forecast: String,
    runs_out: bool,
    aria: String,
    curve: Option<Curve>,
    curve_aria: String,
}

/// One event.
#[derive(Debug)]
struct EventRow {
    at: String,
    time: String,
    account: String,
    text: String,
}

/// The calls of an account in the last hour.
#[derive(Debug)]
struct Calls {
    account: String,
    calls: usize,
    allowed: u32,
    left: usize,
    reserve: u32,
    callers: Vec<Caller>,
}

#[derive(Debug)]
struct Caller {
    name: String,
    calls: usize,
    last: String,
}

impl Page {
    /// Builds the page for these accounts. Shortly after a reload, the decision may lack one of them.
    pub(super) fn new(states: &[AccountState<'_>], decision: &Decision, local: &LocalTime) -> Self {
        let answer = Answer::new(states, decision, local);
        let calls: Vec<_> = states.iter().map(|state| Calls::new(state, local)).collect();
        Self {
            title: answer.headline.clone(),
            style: assets::style(),
            script: assets::script(),
            icon: assets::icon(),
            accounts: states.iter().map(|state| Card::new(state, decision, local)).collect(),
            events: events(states, local),
            calls,
            zone: zone_name(local),
            answer,
        }
    }
}

impl Answer {
    fn new(states: &[AccountState<'_>], decision: &Decision, local: &LocalTime) -> Self {
        let of = |one: &Evaluated| format!("{}: {}", one.account, account_reason(one, LOG_IN, local));
        let Some(chosen) = decision.chosen() else {
            let reasons = decision.accounts().iter().take(MAX_REASONS);
            let facts = match outcome(decision) {
                Outcome::AllDisabled => Vec::new(),
                _ => reasons.map(of).collect(),
            };
            let headline = capitalized(&verdict(decision, local));
            return Self { is_use: false, card: None, headline, facts, passed_over: Vec::new() };
        };
        let mut windows: Vec<_> =
            chosen.windows.iter().map(|usage| WindowView::of(&usage.window, usage.used)).collect();
        windows.sort_by_key(WindowView::rank);
        let fact = |window: &WindowView| {
            let used = match window.used {
                _ if window.is_unlimited => "unlimited".to_owned(),
                Used::Unknown => "unknown".to_owned(),
                _ => format!("{} used", words::used(window)),
            };
            format!("{} {used}", window_name(window))
        };
        let mut facts = vec![account_reason(chosen, LOG_IN, local)];
        facts.extend(windows.iter().take(3).map(fact));
        let before = decision.accounts().iter().take_while(|one| one.account != chosen.account);
        let is_unused = |one: &&Evaluated| one.eligibility != Eligibility::Eligible;
        Self {
            is_use: true,
            card: states.iter().position(|state| *state.id == chosen.account),
            headline: chosen.account.to_string(),
            facts,
            passed_over: before.filter(is_unused).take(MAX_REASONS).map(of).collect(),
        }
    }
}

impl Card {
    fn new(state: &AccountState<'_>, decision: &Decision, local: &LocalTime) -> Self {
        let index = decision.accounts().iter().position(|one| one.account == *state.id);
        let disposition = index.map(|index| decision.disposition(index));
        let evaluated = index.and_then(|index| decision.accounts().get(index));
        let mut view = AccountView::of(state.id, &state.usage, None);
        view.disabled = state.is_disabled;
        let (age, level) = words::freshness(&view);
        let plan = view.plan.as_deref().map(sanitize);
        let snapshot = state.usage.snapshot();
        let max_age = state.usage.max_age();
        let pace = AccountPace::of(state.id, snapshot, state.journal.history(), local.now, max_age, None);
        let pace: BTreeMap<_, _> = pace.windows.iter().map(|window| (&*window.id, window)).collect();
        let windows = view.windows.iter();
        Self {
            name: state.id.to_string(),
            is_chosen: disposition == Some(Disposition::Selected),
            disposition: disposition.map_or("", Disposition::as_str),
            about: plan.into_iter().chain([age]).collect::<Vec<_>>().join(" · "),
            is_stale: level != Level::Dim,
            notes: notes(&view, evaluated, local),
            windows: windows
                .map(|window| WindowRow::new(state.id, window, pace.get(&*window.id).copied(), local))
                .collect(),
        }
    }
}

/// The state of an account in a few lines: whether it is available, its last failure, its hold, and what to do.
fn notes(view: &AccountView, evaluated: Option<&Evaluated>, local: &LocalTime) -> Vec<Note> {
    let note = |class, text| Note { class, text };
    let state = evaluated.map(|evaluated| note("state", account_reason(evaluated, LOG_IN, local)));
    let mut notes: Vec<_> = state.into_iter().collect();
    let class = |level| if matches!(level, Level::Warn | Level::Bad) { "problem" } else { "detail" };
    notes.extend(words::failure_notes(view).into_iter().map(|(level, text)| note(class(level), text)));
    notes.extend(words::hold_note(view, local).map(|text| note("problem", text)));
    notes.extend(remedy(view).map(|text| note("remedy", text)));
    notes.extend(view.credits.as_ref().and_then(words::money).map(|text| note("detail", text)));
    // For a rate limited account, the reason and the hold have the same text.
    notes.dedup_by(|next, previous| next.text == previous.text);
    notes
}

/// The suggested fix for a problem.
fn remedy(view: &AccountView) -> Option<String> {
    let id = &view.id;
    if view.disabled {
        return Some(format!("enable it: quota accounts enable {id}"));
    }
    match (view.reason, view.hold.as_ref().map(|hold| hold.reason)) {
        (Some(Reason::LoginRejected | Reason::NotLoggedIn), _) => {
            Some("log in again; details: quota doctor".to_owned())
        }
        (_, Some(HoldReason::BudgetExhausted)) => {
            Some("wait, or raise `budget` in [policy]; list the callers: quota budget".to_owned())
        }
        (_, Some(HoldReason::ProviderRateLimited)) => Some("wait until it ends".to_owned()),
        (_, Some(_)) => Some(format!("wait, or clear the hold: quota accounts clear-hold {id}")),
        (Some(Reason::NoWindows) | None, None) => None,
        (Some(_), None) => Some("details: quota doctor".to_owned()),
    }
}

impl WindowRow {
    fn new(account: &AccountId, window: &WindowView, pace: Option<&WindowPace>, local: &LocalTime) -> Self {
        let thousandths = |percent: f64| (percent * 100.0).round().clamp(0.0, 10_000.0) / 10.0;
        let used = words::used(window);
        let known = window.used.lower_bound().filter(|_| !window.is_unlimited);
        let percent = known.map(quota::Percent::as_f64);
        let elapsed = words::elapsed(window, local.now);
        let rate = pace.and_then(WindowPace::rate);
        let name = window_name(window);
        let forecast = match pace {
            Some(pace) if !window.is_unlimited => pace::forecast(pace, local),
            _ => String::new(),
        };
        let mut aria = match window.used {
            _ if window.is_unlimited => used.clone(),
            Used::Unknown => "use unknown".to_owned(),
            _ => format!("{used} used"),
        };
        if let Some(elapsed) = elapsed {
            aria = format!("{aria}, {:.0} % elapsed", elapsed * 100.0);
        }
        if !forecast.is_empty() {
            aria = format!("{aria}; {forecast}");
        }
        Self {
            used,
            filled: percent.map(thousandths),
            forecast_at: rate.and_then(|rate| rate.at_reset_percent).map(thousandths),
            elapsed_at: elapsed.map(|elapsed| thousandths(elapsed * 100.0)),
            percent: percent.map(|percent| percent.min(100.0)),
            reset: words::reset(window, local, ResetFormat::WithTime),
            runs_out: rate.is_some_and(|rate| rate.exhausted_at.is_some()),
            aria,
            curve: pace.and_then(|pace| Curve::new(pace, local)),
            curve_aria: match pace {
                Some(pace) => {
                    format!("{name} window of {account} over its period: {}", pace::summary(pace, local))
                }
                None => String::new(),
            },
            forecast,
            name,
        }
    }
}

/// The last events of all accounts, the newest first.
fn events(states: &[AccountState<'_>], local: &LocalTime) -> Vec<EventRow> {
    let of = |state: &AccountState<'_>| {
        let newest = state.journal.events().rev().take(EVENTS);
        newest.map(|(_, event)| (event.at, state.id.clone(), event.kind.clone())).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = states.iter().flat_map(of).collect();
    all.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    all.truncate(EVENTS);
    let row = |(at, account, kind): (Timestamp, AccountId, _)| EventRow {
        at: format::rfc3339(at),
        time: local.time_of_day(at),
        account: account.to_string(),
        text: event::describe(&kind, local),
    };
    all.into_iter().map(row).collect()
}

impl Calls {
    fn new(state: &AccountState<'_>, local: &LocalTime) -> Self {
        let mut callers = BTreeMap::<&str, (usize, Timestamp)>::new();
        for call in state.usage.recent_calls() {
            let (count, last) = callers.entry(&call.by).or_insert((0, call.at));
            (*count, *last) = (*count + 1, call.at.max(*last));
        }
        let mut callers: Vec<_> = callers.into_iter().collect();
        callers.sort_by_key(|(_, (calls, last))| std::cmp::Reverse((*calls, *last)));
        let (calls, budget) = (state.usage.calls_in_last_hour(), state.usage.budget());
        let caller = |(name, (calls, last)): (&str, _)| Caller {
            name: if name.is_empty() { "unnamed".to_owned() } else { sanitize(name) },
            calls,
            last: format::ago(between(last, local.now)),
        };
        Self {
            account: state.id.to_string(),
            calls,
            allowed: budget.per_hour,
            left: (budget.per_hour as usize).saturating_sub(calls),
            reserve: budget.interactive_reserve,
            callers: callers.into_iter().map(caller).collect(),
        }
    }
}

/// The name of the time zone, or its offset.
fn zone_name(local: &LocalTime) -> String {
    match local.zone.iana_name() {
        Some(name) => name.to_owned(),
        None => format!("UTC{}", local.zone.to_offset(local.now)),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use quota::accounts::Request;
    use quota::accounts::RoutingPolicy;
    use quota::accounts::routing::{Candidate, Role, choose};
    use quota::model::Scope;
    use quota::record::Seed;
    use quota::{MemoryStore, Percent, QuotaManager, Snapshot, UsageReport, WindowId, WindowReading};

    use super::*;

    const HOSTILE: &str = "x<script>alert(1)</script>\"'&";

    /// The page of one account whose window counts this model, and whose plan has this name.
    async fn page(model: &str, plan: &str) -> String {
        let manager = QuotaManager::builder(MemoryStore::new()).build().unwrap();
        let id: AccountId = "anthropic/main".parse().unwrap();
        let account = manager.account(&id);
        let reading = WindowReading::new(WindowId::seven_day(), Percent::from_percent(40.0).unwrap());
        let reading = reading.scope(Scope::model(model));
        let mut report = UsageReport::polled([reading]);
        report.plan = Some(plan.into());
        let now = account.peek().now();
        account.seed(&Seed::new(Snapshot::of(&report, now))).unwrap();
        let state =
            AccountState { id: &id, usage: account.peek(), is_disabled: false, journal: Journal::default() };
        let candidate = Candidate::from_usage(&id, Role::Main, account.peek());
        let decision = choose([candidate], &Request::new(), now, &RoutingPolicy::default());
        let local = LocalTime { now, zone: TimeZone::UTC };
        Page::new(&[state], &decision, &local).render().unwrap()
    }

    #[tokio::test]
    async fn names_from_a_provider_are_escaped() {
        let page = page(HOSTILE, HOSTILE).await;

        assert!(!page.contains("<script>alert") && !page.contains("\"'&"), "{page}");
        assert!(page.contains("&#60;script&#62;"), "{page}");
    }
}
