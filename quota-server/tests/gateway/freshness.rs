//! The age of an answer: what is stale says so, and what is too old or has ended is not sent.

use quota_sim::{Account, Answer, Window};

use super::support::{Response, Setup};

const PATH: &str = "/account/anthropic/main/api/oauth/usage";

fn throttled(percent: f64, age: i64, reset: i64) -> Setup {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    Setup::new([main]).read_before(percent, age, reset, Answer::ThrottleUntilEnd)
}

fn seconds(response: &Response, header: &str) -> u64 {
    response.header(header).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{response:?}"))
}

#[tokio::test]
async fn a_stale_reading_says_its_age_and_why() {
    let gateway = throttled(40.0, 600, 3600).start().await;

    let response = gateway.get(PATH, "").await;

    assert_eq!(response.json()["five_hour"]["utilization"], 40.0, "{response:?}");
    assert_eq!(response.header("quota-freshness"), Some("stale; reason=on_hold"));
    assert_eq!(response.header("cache-control"), Some("private, no-cache"));
    assert!((600..660).contains(&seconds(&response, "age")));
}

#[tokio::test]
async fn a_reading_that_is_too_old_is_a_429_with_the_end_of_the_hold() {
    let gateway = throttled(40.0, 901, 3600).start().await;

    let response = gateway.get(PATH, "").await;

    assert_eq!((response.status(), &response.json()["error"]["type"]), (429, &"rate_limit_error".into()));
    // The provider asked for a thousand seconds.
    assert!((900..=1001).contains(&seconds(&response, "retry-after")), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(!response.body().contains("40"), "{response:?}");
}

#[tokio::test]
async fn a_window_that_has_ended_is_null() {
    let gateway = throttled(97.0, 600, -1).start().await;

    let response = gateway.get(PATH, "").await;

    // Nothing else is known.
    assert_eq!(response.status(), 429);
    assert!(!response.body().contains("97"), "{response:?}");
}

#[tokio::test]
async fn without_a_reading_a_broken_provider_is_a_503() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).read_before(40.0, 2000, 3600, Answer::Unavailable).start().await;

    let response = gateway.get(PATH, "").await;

    assert_eq!((response.status(), &response.json()["error"]["type"]), (503, &"api_error".into()));
    assert!((1..=60).contains(&seconds(&response, "retry-after")), "{response:?}");
}

#[tokio::test]
async fn a_fresh_answer_may_be_cached_until_it_is_stale() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).start().await;

    let response = gateway.get(PATH, "").await;

    let control = response.header("cache-control").unwrap();
    let lifetime: u64 = control.strip_prefix("private, max-age=").unwrap().parse().unwrap();
    assert!((1..=300).contains(&lifetime), "{control}");
    assert!(seconds(&response, "age") < 60);
    assert!(response.header("date").is_some());
}

#[tokio::test]
async fn a_disabled_account_is_shown_but_never_refreshed() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let setup = Setup::new([main]).read_before(40.0, 600, 3600, Answer::Ok);

    let gateway = setup.disabled().start().await;
    let response = gateway.get(PATH, "").await;

    assert_eq!(response.json()["five_hour"]["utilization"], 40.0, "{response:?}");
    assert!(response.header("quota-freshness").unwrap().starts_with("stale"));
    assert_eq!(gateway.simulator.ledger().calls(), 0);
}

#[tokio::test]
async fn a_new_reading_is_in_the_next_answer() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).start().await;
    let first = gateway.get(PATH, "").await;

    let used = quota::Percent::from_percent(93.0).unwrap();
    let window = quota::WindowReading::new(quota::WindowId::five_hour(), used);
    gateway.main().observe(&quota::UsageReport::from_headers([window])).unwrap();
    let second = gateway.get(PATH, "").await;

    assert_eq!(second.json()["five_hour"]["utilization"], 93.0, "{second:?}");
    assert_ne!(first.header("etag"), second.header("etag"));
}
