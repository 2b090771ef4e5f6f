//! The plan of a demo: which account fails, how and when. It depends only on the arguments and the seed.

use std::time::Duration;

use fastrand::Rng;
use quota::http::Provider;
use quota::policy::{Backoff, CooldownPolicy, CooldownScope};
use quota::{AccountId, Policy, ProviderId};
use quota_sim::{Account, Answer, Phase, Script, Window};

/// The simulated duration of every demo, regardless of its real duration: ten times the max age of a reading.
const SIMULATED_DURATION: Duration = Duration::from_secs(3000);
/// The longest latency of the provider.
const MAX_LATENCY: Duration = Duration::from_millis(20);
/// The average pause of a consumer between two reads. It is longer if there are too many consumers for [`MAX_READS_PER_SECOND`].
const PAUSE: Duration = Duration::from_millis(100);
/// The limit for all consumers together.
const MAX_READS_PER_SECOND: u32 = 50_000;

/// The plan of a demo.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The providers of the accounts, in turn.
    pub(crate) providers: Vec<&'static Provider>,
    pub(crate) consumers: u32,
    pub(crate) duration: Duration,
    pub(crate) pause: Duration,
    pub(crate) policy: Policy,
    pub(crate) script: Script,
    /// The account that is rate limited, and the kind of response.
    pub(crate) throttled: PlannedFailure,
    /// The account whose login expires.
    pub(crate) expired: PlannedFailure,
}

/// A response that one account receives for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlannedFailure {
    pub(crate) account: usize,
    pub(crate) answer: Answer,
    from: u64,
    until: u64,
}

impl Plan {
    pub(crate) fn new(
        providers: &[&'static Provider],
        accounts: usize,
        consumers: u32,
        seconds: u64,
        seed: u64,
    ) -> Self {
        let mut rng = Rng::with_seed(seed);
        let duration = Duration::from_secs(seconds);
        let kinds = [Answer::ThrottleZero, Answer::ThrottleUntilEnd, Answer::ThrottleNoHeader];
        let account = rng.usize(..accounts);
        // Each failure lasts longer than the max age of a reading, so that a call happens during it.
        let from = rng.u64(600..1000);
        let throttled = PlannedFailure {
            account,
            answer: kinds[rng.usize(..kinds.len())],
            from,
            until: from + rng.u64(400..600),
        };
        // Choose a different account, if there is one.
        let account = (throttled.account + rng.usize(1..accounts.max(2))) % accounts;
        let from = rng.u64(1700..1900);
        let expired =
            PlannedFailure { account, answer: Answer::Unauthorized, from, until: from + rng.u64(400..500) };
        let scale = Scale(seconds);
        let policy = policy(scale);
        let latency = MAX_LATENCY.min(policy.max_age / u32::try_from(accounts * 4).unwrap_or(u32::MAX));
        let script = (0..accounts).map(|at| {
            let failures = [throttled, expired].into_iter().filter(|failure| failure.account == at);
            let account = account_of(at, &mut rng).provider(providers[at % providers.len()].id_str());
            account.latency(latency).answers(failures.map(PlannedFailure::phase))
        });
        let script = Script::new(script.collect::<Vec<_>>()).speed(scale.speed());
        let pause = PAUSE.max(Duration::from_secs(1) * consumers / MAX_READS_PER_SECOND);
        let providers = providers.to_vec();
        Self { seed, providers, consumers, duration, pause, policy, script, throttled, expired }
    }

    /// The accounts in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = AccountId> {
        let id = |account: &Account| {
            let provider = ProviderId::new(account.provider_name()).expect("a script's names are valid");
            AccountId::new(provider, account.name()).expect("a script's names are valid")
        };
        self.script.accounts().iter().map(id)
    }

    pub(crate) fn simulated_duration(&self) -> Duration {
        SIMULATED_DURATION
    }

    /// Describes the two failures.
    pub(crate) fn describe(&self) -> [String; 2] {
        let ids: Vec<_> = self.ids().collect();
        let scale = Scale(self.duration.as_secs());
        let describe = |failure: PlannedFailure, text: &str| {
            let [from, until] = [failure.from, failure.until].map(|at| scale.of(at).as_secs_f64());
            format!("{from:4.1} s to {until:4.1} s: {}: {text}", ids[failure.account])
        };
        let throttle = match self.throttled.answer {
            Answer::ThrottleZero => "429 with Retry-After: 0",
            Answer::ThrottleUntilEnd => "429 with a Retry-After that counts down",
            _ => "429 without Retry-After",
        };
        [describe(self.throttled, throttle), describe(self.expired, "401, login expired")]
    }
}

impl PlannedFailure {
    fn phase(self) -> Phase {
        let at = Duration::from_secs;
        Phase::new(self.answer).from(at(self.from)).until(at(self.until))
    }
}

/// Scales simulated time to a demo of this many seconds.
#[derive(Debug, Clone, Copy)]
struct Scale(u64);

impl Scale {
    fn speed(self) -> f64 {
        SIMULATED_DURATION.as_secs_f64() / self.0.max(1) as f64
    }

    fn of(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds).div_f64(self.speed())
    }
}

/// The default policy in scaled time. Timeouts that depend on this machine are not scaled.
fn policy(scale: Scale) -> Policy {
    let default = Policy::default();
    // Longer than the minute that the provider counts. Otherwise a call could be sent before the provider accepts it again.
    let first = scale.of(75) + Duration::from_millis(10);
    default
        .max_age(scale.of(300))
        .full_refresh_interval(scale.of(3600))
        .reset_grace(scale.of(15))
        .min_call_interval(scale.of(1))
        .rate_limit_backoff(Backoff::doubling(first, first.max(scale.of(900))))
        .error_backoff(Backoff::doubling(scale.of(15), scale.of(300)))
        .cooldown(CooldownPolicy::new(scale.of(60), CooldownScope::Provider))
}

/// An account with random windows. Those of the first account are the fullest, and its five-hour window resets during the demo.
fn account_of(at: usize, rng: &mut Rng) -> Account {
    let seconds = |rng: &mut Rng, range| Duration::from_secs(rng.u64(range));
    let mut percent = |from: u32, to: u32| f64::from(rng.u32(from..to));
    if at == 0 {
        let five_hour = Window::five_hour().used(percent(50, 70)).growth_per_hour(percent(50, 90));
        let seven_day = Window::seven_day().used(percent(30, 60)).growth_per_hour(percent(2, 8));
        let model = Window::model("Fable").used(percent(10, 40)).growth_per_hour(percent(5, 20));
        let (soon, days) = (seconds(rng, 2200..2700), seconds(rng, 200_000..500_000));
        return Account::new("main").windows([
            five_hour.resets_in(soon),
            seven_day.resets_in(days),
            model.resets_in(days),
        ]);
    }
    let five_hour = Window::five_hour().used(percent(0, 40)).growth_per_hour(percent(0, 60));
    let seven_day = Window::seven_day().used(percent(0, 50)).growth_per_hour(percent(0, 5));
    let (hours, days) = (seconds(rng, 5_000..17_000), seconds(rng, 100_000..500_000));
    Account::new(format!("fallback-{at}")).windows([five_hour.resets_in(hours), seven_day.resets_in(days)])
}

#[cfg(test)]
mod tests {
    use quota::http::find_provider;

    use super::*;

    fn plan(accounts: usize, consumers: u32, seconds: u64, seed: u64) -> Plan {
        Plan::new(&[find_provider("anthropic").unwrap()], accounts, consumers, seconds, seed)
    }

    #[test]
    fn the_accounts_have_the_providers_in_turn() {
        let providers = ["anthropic", "codex"].map(|name| find_provider(name).unwrap());

        let ids: Vec<_> = Plan::new(&providers, 3, 1, 10, 7).ids().map(|id| id.to_string()).collect();

        assert_eq!(ids, ["anthropic/main", "openai/fallback-1", "anthropic/fallback-2"]);
    }

    #[test]
    fn a_plan_depends_only_on_its_seed() {
        let [one, same, other] = [7, 7, 8].map(|seed| plan(5, 10, 10, seed));

        assert_eq!(
            (one.script.clone(), one.throttled, one.expired),
            (same.script, same.throttled, same.expired)
        );
        assert_ne!(one.script, other.script);
    }

    #[test]
    fn every_plan_has_a_valid_policy_and_script() {
        for seed in 0..200 {
            for (accounts, seconds) in [(1, 1), (2, 3600), (50, 10)] {
                let plan = plan(accounts, 1, seconds, seed);
                assert_eq!(plan.policy.validate(), Ok(()), "{seed}");
                assert_eq!(plan.ids().count(), accounts, "{seed}");
            }
        }
    }

    #[test]
    fn two_accounts_have_two_different_failures() {
        for seed in 0..100 {
            let plan = plan(2, 1, 1, seed);
            assert_ne!(plan.throttled.account, plan.expired.account, "{seed}");
        }
    }

    #[test]
    fn an_failure_lasts_longer_than_the_max_age() {
        for seed in 0..100 {
            let plan = plan(3, 1, 1, seed);
            for failure in [plan.throttled, plan.expired] {
                assert!(failure.until - failure.from >= 400, "{seed}");
                assert!(failure.until < SIMULATED_DURATION.as_secs(), "{seed}");
            }
        }
    }

    #[test]
    fn the_pause_grows_with_many_consumers() {
        assert_eq!(plan(1, 1_000, 1, 0).pause, PAUSE);
        assert_eq!(plan(1, 1_000_000, 1, 0).pause, Duration::from_secs(20));
    }
}
