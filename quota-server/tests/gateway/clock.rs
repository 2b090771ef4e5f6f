//! A clock that is set while the gateway runs: no number is sent as newer than it is, and no client waits for the old time.

use jiff::SignedDuration;
use quota::Clock;
use quota_sim::{Account, Window};

use super::support::Setup;

const PATH: &str = "/account/anthropic/main/api/oauth/usage";

fn setup(clock: &Clock) -> Setup {
    Setup::new([Account::new("main").windows([Window::five_hour().used(62.0)])]).clock(clock)
}

#[tokio::test]
async fn after_the_clock_was_set_back_the_age_is_not_negative_and_grows() {
    let clock = Clock::virtual_at(Clock::system().now());
    let gateway = setup(&clock).start().await;
    assert_eq!(gateway.get(PATH, "").await.header("quota-freshness"), Some("fresh"));

    clock.set(clock.now() - SignedDuration::from_hours(1));
    let response = gateway.get(PATH, "").await;

    // The reading seems to be from the future, so the gateway reads the provider again.
    assert_eq!(response.json()["five_hour"]["utilization"], 62.0, "{response:?}");
    assert_eq!(response.header("age"), Some("0"), "{response:?}");
    assert_eq!(gateway.simulator.ledger().calls(), 2);
    clock.set(clock.now() + SignedDuration::from_secs(200));
    let response = gateway.get(PATH, "").await;
    assert!(response.header("age").unwrap().parse::<u64>().unwrap() >= 200, "{response:?}");
}

#[tokio::test]
async fn after_the_clock_was_set_forward_the_reading_is_old() {
    let clock = Clock::virtual_at(Clock::system().now());
    let gateway = setup(&clock).start().await;
    assert_eq!(gateway.get(PATH, "").await.header("quota-freshness"), Some("fresh"));

    clock.set(clock.now() + SignedDuration::from_mins(20));
    let response = gateway.get(PATH, "").await;

    assert_eq!(response.header("quota-freshness"), Some("fresh"), "{response:?}");
    assert_eq!(gateway.simulator.ledger().calls(), 2);
}

#[tokio::test]
async fn the_list_of_accounts_follows_a_clock_that_is_set() {
    let clock = Clock::virtual_at(Clock::system().now());
    let gateway = setup(&clock).start().await;
    gateway.get(PATH, "").await;
    let now = async || gateway.get("/v1/accounts", "").await.json()["now"].as_str().unwrap().to_owned();
    let before = now().await;

    clock.set(clock.now() - SignedDuration::from_hours(1));

    assert!(now().await < before);
}
