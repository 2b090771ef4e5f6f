//! Settings for refreshes, backoff and budgets: plain data with defaults, the same for every store. The code that applies
//! them is in [`record`](crate::record).

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as span;
use serde::{Deserialize, Serialize};

/// How often to call a provider, how long to back off, and how many calls to allow.
///
/// ```
/// use std::time::Duration;
/// use quota_core::Policy;
///
/// let policy = Policy::default().max_age(Duration::from_secs(120));
/// policy.validate()?;
/// # Ok::<(), quota_core::policy::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// A reading younger than this is fresh. Default: five minutes.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "freshness")]
    pub max_age: Duration,
    /// The maximum time between complete refreshes. Headers refresh only the windows that they report. Default: one hour.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "complete_every")]
    pub full_refresh_interval: Duration,
    /// How long to wait after a window's reset before the next call. Default: 15 seconds.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub reset_grace: Duration,
    /// Also refresh after this many requests, regardless of age. 0, the default, disables this.
    pub every_n_requests: u64,
    /// The minimum time between the starts of two calls of this process to one provider. Default: one second.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "gap")]
    pub min_call_interval: Duration,
    /// The maximum number of concurrent calls of this process to one provider. Default: 1. A call that has run for two
    /// seconds no longer counts, up to four calls in all.
    #[serde(alias = "parallel")]
    pub max_concurrent_calls: usize,
    /// The timeout of one call. Default: ten seconds. If the calling process dies, another process may call two seconds after
    /// this timeout; see [`lease_ttl`](Self::lease_ttl).
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub fetch_timeout: Duration,
    /// How long [`get`](crate::Account::get) waits for a refresh. Default: 15 seconds. Then it returns the cached readings, and the
    /// refresh continues. It may wait for other accounts of the provider, or for another process. Zero never waits.
    ///
    /// An explicit [`refresh`](crate::Account::refresh) has no such limit.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub get_timeout: Duration,
    /// The backoff of an account after a 429. Default: 60 s, doubling to 15 min.
    #[serde(alias = "backoff")]
    pub rate_limit_backoff: Backoff,
    /// The backoff of an account after any other provider error. Default: 15 s, doubling to 5 min.
    #[serde(alias = "transient")]
    pub error_backoff: Backoff,
    /// The cooldown for other accounts after a 429. Default: 60 s for the whole provider.
    #[serde(alias = "quiet")]
    pub cooldown: CooldownPolicy,
    /// The number of calls that an account may make per hour.
    pub budget: Budget,
    /// How long to collect observed readings before writing them to the store. Default: three seconds.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "flush")]
    pub flush_interval: Duration,
    /// How long the store keeps the record of an unused account. Default: 40 days.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "keep")]
    pub record_ttl: Duration,
    /// The timeout of a store operation, after which the process continues without the store. Default: 225 ms, so each caller
    /// gets a result within a quarter of a second even on a busy machine.
    ///
    /// All providers share one store. Only the manager's own policy therefore sets this timeout, not the policy of a
    /// provider.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "store_patience")]
    pub store_timeout: Duration,
    /// What to do while the store is unavailable. Default: continue without it.
    #[serde(alias = "when_away")]
    pub on_store_unavailable: StoreOutagePolicy,
    /// How often to read the shared record without a notification, because the store may lose notifications. If the store
    /// confirms that notifications arrive, ten times less often. Default: one minute, with jitter of a quarter.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "recheck")]
    pub poll_interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(300),
            full_refresh_interval: Duration::from_secs(3600),
            reset_grace: Duration::from_secs(15),
            every_n_requests: 0,
            min_call_interval: Duration::from_secs(1),
            max_concurrent_calls: 1,
            fetch_timeout: Duration::from_secs(10),
            get_timeout: Duration::from_secs(15),
            rate_limit_backoff: Backoff::doubling(Duration::from_secs(60), Duration::from_secs(900)),
            error_backoff: Backoff::doubling(Duration::from_secs(15), Duration::from_secs(300)),
            cooldown: CooldownPolicy::default(),
            budget: Budget::default(),
            flush_interval: Duration::from_secs(3),
            record_ttl: Duration::from_secs(40 * 24 * 3600),
            store_timeout: Duration::from_millis(225),
            on_store_unavailable: StoreOutagePolicy::default(),
            poll_interval: Duration::from_secs(60),
        }
    }
}

macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(
            #[doc = concat!("Sets [`", stringify!($name), "`](Self#structfield.", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            }
        )*
    };
}

impl Policy {
    setters! {
        max_age: Duration,
        full_refresh_interval: Duration,
        reset_grace: Duration,
        every_n_requests: u64,
        min_call_interval: Duration,
        max_concurrent_calls: usize,
        fetch_timeout: Duration,
        get_timeout: Duration,
        rate_limit_backoff: Backoff,
        error_backoff: Backoff,
        cooldown: CooldownPolicy,
        budget: Budget,
        flush_interval: Duration,
        record_ttl: Duration,
        store_timeout: Duration,
        on_store_unavailable: StoreOutagePolicy,
        poll_interval: Duration,
    }

    /// Checks that the settings do not contradict each other.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the two settings that contradict each other, or reports a duration above ten years.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let rules = [
            (
                self.max_age.is_zero(),
                "max_age must be above zero, otherwise every read would call the provider",
            ),
            (
                self.min_call_interval >= self.max_age,
                "min_call_interval must be shorter than max_age, otherwise readings become stale while calls wait",
            ),
            (self.fetch_timeout.is_zero(), "fetch_timeout must be above zero"),
            (self.max_concurrent_calls == 0, "max_concurrent_calls must be at least 1"),
            (self.budget.per_hour == 0, "budget.per_hour must be at least 1"),
            (
                self.budget.interactive_reserve >= self.budget.per_hour,
                "budget.interactive_reserve must be below budget.per_hour",
            ),
            (
                !self.rate_limit_backoff.is_valid(),
                "rate_limit_backoff needs 0 < initial <= max and a jitter from 0 to 1",
            ),
            (
                !self.error_backoff.is_valid(),
                "error_backoff needs 0 < initial <= max and a jitter from 0 to 1",
            ),
            (self.store_timeout.is_zero(), "store_timeout must be above zero"),
            (self.poll_interval.is_zero(), "poll_interval must be above zero"),
            (
                self.record_ttl < Duration::from_secs(2 * 3600),
                "record_ttl must be at least two hours, otherwise the store would drop calls that still count",
            ),
        ];
        let durations = [
            self.max_age,
            self.full_refresh_interval,
            self.reset_grace,
            self.min_call_interval,
            self.fetch_timeout,
            self.get_timeout,
            self.rate_limit_backoff.max,
            self.error_backoff.max,
            self.cooldown.duration,
            self.flush_interval,
            self.record_ttl,
            self.store_timeout,
            self.poll_interval,
        ];
        if durations.iter().any(|duration| *duration > MAX_DURATION) {
            return Err(PolicyError { reason: "no duration may exceed ten years" });
        }
        match rules.iter().find(|(broken, _)| *broken) {
            Some((_, reason)) => Err(PolicyError { reason }),
            None => Ok(()),
        }
    }

    /// How long a lease lasts: [`fetch_timeout`](Self#structfield.fetch_timeout) plus two seconds to store the result.
    ///
    /// It is not configurable. A shorter lease would expire during a call. A longer one would block the account for no reason
    /// after its holder died.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        self.fetch_timeout.saturating_add(LEASE_MARGIN)
    }

    /// Whether request number `request` triggers a refresh; see [`every_n_requests`](Self#structfield.every_n_requests).
    #[must_use]
    pub fn refreshes_on_request(&self, request: u64) -> bool {
        request > 0 && self.every_n_requests > 0 && request.is_multiple_of(self.every_n_requests)
    }
}

/// How much longer a lease lasts than a call.
pub(crate) const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// The maximum duration of a setting. A longer one means "never", and adding it to a timestamp could overflow.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Settings that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid policy: {reason}")]
pub struct PolicyError {
    reason: &'static str,
}

/// A delay that doubles with every failure in a row, up to a maximum.
///
/// Jitter adds up to a given fraction of the delay. Otherwise hosts that were rejected at the same time would retry at the
/// same time. (Capped exponential backoff; see Brooker, "Exponential Backoff And Jitter", AWS 2015.)
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Backoff {
    /// The delay after the first failure.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "first")]
    pub initial: Duration,
    /// The maximum delay, before jitter.
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    #[serde(alias = "cap")]
    pub max: Duration,
    /// The maximum fraction of the delay that jitter adds, 0 to 1.
    #[serde(default = "default_jitter")]
    pub jitter: f64,
}

fn default_jitter() -> f64 {
    0.1
}

impl Backoff {
    /// Creates a backoff that doubles from `initial` to `max`, with a jitter of one tenth.
    #[must_use]
    pub fn doubling(initial: Duration, max: Duration) -> Self {
        Self { initial, max, jitter: default_jitter() }
    }

    /// Sets the maximum fraction of the delay that jitter adds.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay after `failures` failures in a row. `jitter_unit`, from 0 to 1, selects how much of the jitter to add.
    #[must_use]
    pub fn delay(&self, failures: u32, jitter_unit: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let plain = self.initial.saturating_mul(1 << doublings).min(self.max);
        let share = self.jitter * jitter_unit;
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        Duration::try_from_secs_f64(plain.as_secs_f64() * (1.0 + share)).unwrap_or(Duration::MAX)
    }

    fn is_valid(&self) -> bool {
        !self.initial.is_zero() && self.initial <= self.max && (0.0..=1.0).contains(&self.jitter)
    }
}

/// The cooldown for other accounts after a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CooldownPolicy {
    /// How long it lasts. Default: 60 s.
    #[serde(alias = "span")]
    #[serde(with = "span")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub duration: Duration,
    /// The accounts that it covers.
    pub scope: CooldownScope,
}

impl CooldownPolicy {
    /// Creates a cooldown of this duration and scope.
    #[must_use]
    pub fn new(duration: Duration, scope: CooldownScope) -> Self {
        Self { duration, scope }
    }
}

impl Default for CooldownPolicy {
    fn default() -> Self {
        Self::new(Duration::from_secs(60), CooldownScope::Provider)
    }
}

/// The accounts that a 429 affects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CooldownScope {
    /// Only the account that received the 429; its own backoff covers it.
    Account,
    /// All accounts of the provider. Providers do not document whether the limit counts by account, organization or address.
    #[default]
    Provider,
}

/// What a process does while its store is unavailable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreOutagePolicy {
    /// Continue with a local copy of the record under the same rules, and merge the copy into the shared record later.
    ///
    /// Readings stay fresh. Each process makes at most as many calls as a single process would.
    #[default]
    #[serde(alias = "go_alone")]
    Standalone,
    /// Like [`Standalone`](Self::Standalone), but only [`Account::refresh`](crate::Account::refresh) and
    /// [`Account::refresh_unless_called_within`](crate::Account::refresh_unless_called_within) call the provider.
    ///
    /// For short-lived programs. Their local copy ends with them, so that otherwise each run would call the provider. With
    /// [`outage_store`](crate::manager::QuotaManagerBuilder::outage_store) this applies only if no level works.
    RefreshOnly,
    /// Make no calls, and return stale readings. For fleets whose uncoordinated calls would overload the provider.
    #[serde(alias = "refuse")]
    FailClosed,
}

/// The calls to the usage endpoint that an account may make in any trailing hour, across all hosts.
///
/// The budget limits calls in advance, so that the provider does not respond with 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Budget {
    /// The maximum number of calls, interactive callers included. Default: 28, because Anthropic's endpoint allows 28 to 30
    /// an hour. A record stores the last 1,000 calls, so a budget above that limits nothing.
    pub per_hour: u32,
    /// The number of these calls that are reserved for interactive callers. Default: 6.
    #[serde(alias = "reserve")]
    pub interactive_reserve: u32,
}

impl Budget {
    /// Allows `per_hour` calls, of which `interactive_reserve` are for interactive callers only.
    #[must_use]
    pub fn new(per_hour: u32, interactive_reserve: u32) -> Self {
        Self { per_hour, interactive_reserve }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(28, 6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Policy::default().validate(), Ok(()));
    }

    #[test]
    fn a_call_interval_as_long_as_max_age_is_rejected() {
        assert!(Policy::default().min_call_interval(SECOND * 300).validate().is_err());
    }

    #[test]
    fn a_duration_above_ten_years_is_rejected() {
        assert!(Policy::default().record_ttl(Duration::MAX).validate().is_err());
        assert!(Policy::default().poll_interval(Duration::MAX).validate().is_err());
    }

    #[test]
    fn a_lease_is_two_seconds_longer_than_a_call() {
        assert_eq!(Policy::default().lease_ttl(), SECOND * 12);
        assert_eq!(Policy::default().fetch_timeout(SECOND * 60).lease_ttl(), SECOND * 62);
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let rate_limit_backoff = Policy::default().rate_limit_backoff;
        let delays: Vec<_> =
            (1..=6).map(|failures| rate_limit_backoff.delay(failures, 0.0).as_secs()).collect();

        assert_eq!(delays, [60, 120, 240, 480, 900, 900]);
    }

    #[test]
    fn jitter_only_lengthens_a_delay() {
        let rate_limit_backoff = Backoff::doubling(SECOND * 60, SECOND * 900).jitter(0.1);

        assert_eq!(rate_limit_backoff.delay(1, 1.0), SECOND * 66);
        assert_eq!(rate_limit_backoff.delay(u32::MAX, 0.0), SECOND * 900);
    }

    #[test]
    fn the_longest_delay_does_not_overflow() {
        let longest = Backoff::doubling(Duration::MAX, Duration::MAX);

        assert_eq!(longest.delay(1, 0.0), Duration::MAX);
        assert_eq!(longest.delay(u32::MAX, 1.0), Duration::MAX);
    }

    #[test]
    fn a_nan_jitter_or_unit_adds_no_delay() {
        let rate_limit_backoff = Backoff::doubling(SECOND * 60, SECOND * 900);

        assert_eq!(rate_limit_backoff.jitter(f64::NAN).delay(1, 1.0), SECOND * 60);
        assert_eq!(rate_limit_backoff.delay(1, f64::NAN), SECOND * 60);
        assert_eq!(rate_limit_backoff.delay(1, -1.0), SECOND * 60);
        assert!(
            Policy::default().rate_limit_backoff(rate_limit_backoff.jitter(f64::NAN)).validate().is_err()
        );
    }

    #[test]
    fn every_fifth_request_triggers_a_refresh_and_the_first_does_not() {
        let policy = Policy::default().every_n_requests(5);
        let due: Vec<_> = (0..=10).filter(|request| policy.refreshes_on_request(*request)).collect();

        assert_eq!(due, [5, 10]);
    }

    #[test]
    fn by_default_the_request_count_never_triggers_a_refresh() {
        assert!((0..100).all(|request| !Policy::default().refreshes_on_request(request)));
    }

    #[test]
    fn settings_are_written_with_units() {
        let text = serde_json::to_string(&Policy::default()).unwrap();

        assert!(text.contains(r#""max_age":"5m""#), "{text}");
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), Policy::default());
    }
}
