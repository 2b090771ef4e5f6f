//! Checks that the providers can be reached, and compares their clocks with ours.
//! It requests the front page of a host without a login, so no budget counts it.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use quota::Clock;
use quota::anthropic::Anthropic;
use quota_journal::post_client;
use reqwest::header::{DATE, USER_AGENT};
use url::Url;

use super::{Area, Check};
use crate::config::Config;
use crate::format::{between, duration};

const USER_AGENT_VALUE: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (doctor)");
/// How long a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far two clocks may differ. A `Date` has whole seconds, and a few of them do no harm.
const MAX_SKEW: Duration = Duration::from_secs(5);

/// Every host of the configuration, once.
pub(super) async fn providers(config: &Config, clock: &Clock) -> Vec<Check> {
    let usual = || Url::parse(Anthropic::BASE_URL).expect("it is a URL");
    let general = config.anthropic.base_url.clone().unwrap_or_else(usual);
    let mut hosts = Vec::new();
    for account in &config.accounts {
        let url = account.base_url.as_ref().unwrap_or(&general);
        // Path and user may be secrets.
        let Ok(front) = Url::parse(&url.origin().ascii_serialization()) else { continue };
        if !hosts.contains(&front) {
            hosts.push(front);
        }
    }
    let mut checks = Vec::new();
    for host in &hosts {
        checks.extend(provider(host, clock).await);
    }
    checks
}

async fn provider(host: &Url, clock: &Clock) -> Vec<Check> {
    let subject = host.origin().ascii_serialization();
    let failed = |message: &str, hint: &str| vec![Check::problem(Area::Provider, &subject, message, hint)];
    let Ok(client) = post_client(host) else {
        return failed("could not set up TLS", "check that this machine has root certificates");
    };
    let before = clock.now();
    let asked = client.head(host.clone()).header(USER_AGENT, USER_AGENT_VALUE).timeout(PATIENCE).send().await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => {
            return failed("does not answer", "check network and proxy");
        }
        Err(error) if error.is_dns() => {
            return failed("could not be resolved", "check network and DNS");
        }
        Err(error) if error.is_connect() => {
            return failed("could not connect", "check that it runs, and your firewall and proxy");
        }
        Err(_) => return failed("the request failed", "check your proxy"),
    };
    let mut checks = vec![Check::ok(Area::Provider, &subject, "can be reached")];
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    if let Some(date) = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok()) {
        checks.push(self::clock(&subject, skew(date, before, clock.now())));
    }
    checks
}

/// How far a clock, read between two times of ours, is from ours.
pub(super) fn skew(theirs: Timestamp, before: Timestamp, after: Timestamp) -> Duration {
    between(after, theirs).max(between(theirs, before))
}

/// The check of a clock.
pub(super) fn clock(whose: &str, skew: Duration) -> Check {
    if skew <= MAX_SKEW {
        return Check::ok(Area::Clock, whose, "in sync with this machine");
    }
    let message = format!("differs from the clock of this machine by {}", duration(skew));
    Check::warning(Area::Clock, whose, message, "set the clock that is wrong: timedatectl set-ntp true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_clock_that_was_read_within_the_call_agrees() {
        assert_eq!(skew(at(105), at(100), at(110)), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_is_ahead_or_behind_is_measured_from_the_nearer_end_of_the_call() {
        assert_eq!(skew(at(130), at(100), at(110)), Duration::from_secs(20));
        assert_eq!(skew(at(70), at(100), at(110)), Duration::from_secs(30));
    }

    #[test]
    fn a_clock_that_is_far_off_is_a_finding() {
        assert_eq!(clock("x", Duration::from_secs(5)).hint, None);
        assert!(clock("x", Duration::from_secs(6)).hint.is_some());
    }
}
