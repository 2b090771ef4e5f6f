//! Checks that the providers can be reached, and compares their clocks with the local clock. It requests the root page
//! of each host without a login, so that the request does not count toward a budget.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use quota::Clock;
use quota_journal::post_client;
use reqwest::header::{DATE, USER_AGENT};
use url::Url;

use super::{Area, Check};
use crate::config::Config;
use crate::format::{between, duration};

const USER_AGENT_VALUE: &str = concat!("quota/", env!("CARGO_PKG_VERSION"), " (doctor)");
/// The time limit for each host.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest harmless difference between two clocks. A `Date` header has only whole seconds.
const MAX_SKEW: Duration = Duration::from_secs(5);

/// Checks every host of the enabled accounts once.
pub(super) async fn providers(config: &Config, clock: &Clock) -> Vec<Check> {
    let mut hosts = Vec::new();
    for account in config.accounts.iter().filter(|account| !account.disabled) {
        let provider = account.id.provider();
        let set = account.base_url.as_ref().or(config.provider(provider).base_url.as_ref()).cloned();
        let default = || config.defined_providers.find(provider.as_str())?.default_base_url();
        let Some(url) = set.or_else(default) else { continue };
        // The path and the user name may be secrets.
        let Ok(root) = Url::parse(&url.origin().ascii_serialization()) else { continue };
        if !hosts.contains(&root) {
            hosts.push(root);
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
    let sent = client.head(host.clone()).header(USER_AGENT, USER_AGENT_VALUE).timeout(TIMEOUT).send().await;
    let response = match sent {
        Ok(response) => response,
        Err(error) if error.is_timeout() => {
            return failed("timed out", "check network and proxy");
        }
        Err(error) if error.is_dns() => {
            return failed("could not be resolved", "check network and DNS");
        }
        Err(error) if error.is_connect() => {
            return failed(
                "could not connect",
                "check that the host is running, and your firewall and proxy",
            );
        }
        Err(_) => return failed("the request failed", "check your proxy"),
    };
    let mut checks = vec![Check::ok(Area::Provider, &subject, "can be reached")];
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    if let Some(date) = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok()) {
        checks.push(self::clock(&subject, skew(date, before, clock.now())));
    }
    checks
}

/// The difference between a remote time and the local clock, which was read before and after the remote clock.
pub(super) fn skew(remote: Timestamp, before: Timestamp, after: Timestamp) -> Duration {
    between(after, remote).max(between(remote, before))
}

/// Checks a clock difference.
pub(super) fn clock(subject: &str, skew: Duration) -> Check {
    if skew <= MAX_SKEW {
        return Check::ok(Area::Clock, subject, "in sync with this machine");
    }
    let message = format!("differs from this machine by {}", duration(skew));
    Check::warning(Area::Clock, subject, message, "correct the clock that is wrong: timedatectl set-ntp true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_time_within_the_call_has_no_skew() {
        assert_eq!(skew(at(105), at(100), at(110)), Duration::ZERO);
    }

    #[test]
    fn skew_is_measured_from_the_nearer_end_of_the_call() {
        assert_eq!(skew(at(130), at(100), at(110)), Duration::from_secs(20));
        assert_eq!(skew(at(70), at(100), at(110)), Duration::from_secs(30));
    }

    #[test]
    fn a_clock_with_a_large_skew_is_a_warning() {
        assert_eq!(clock("x", Duration::from_secs(5)).hint, None);
        assert!(clock("x", Duration::from_secs(6)).hint.is_some());
    }
}
