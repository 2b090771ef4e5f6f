//! The counts of calls in the ledger.

use quota_sim::{Account, Answer, Change, Ledger, Phase, Script};
use tokio::time::advance;

use super::client::{get, login, receive, send_usage, usage};
use super::{SECOND, START, answering, start, with};

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_status() {
    let simulator = with(Account::new("main").budget(2)).await;

    for _ in 0..3 {
        usage(&simulator, "main").await;
    }
    get(&simulator, "/api/oauth/usage", "authorization: Bearer sim-token-main\r\n").await;

    let ledger = simulator.ledger();
    let main = ledger.account("main").unwrap();
    assert_eq!((main.calls, main.answered(200), main.answered(429), main.answered(400)), (4, 2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn sequential_calls_are_never_concurrent() {
    let simulator = with(Account::new("main")).await;

    for _ in 0..20 {
        usage(&simulator, "main").await;
    }

    assert_eq!(simulator.ledger().max_concurrent, 1);
}

#[tokio::test(start_paused = true)]
async fn simultaneous_calls_are_concurrent() {
    let simulator = start(Script::default()).await;
    for account in ["main", "fallback-1"] {
        simulator.set(account, Change::answer(Answer::Hang)).unwrap();
    }

    let _first = send_usage(&simulator, "main").await;
    let _second = send_usage(&simulator, "main").await;
    let _third = send_usage(&simulator, "fallback-1").await;
    let ledger = simulator.until(|ledger| ledger.calls() == 3).await;

    assert_eq!(ledger.max_concurrent, 3);
    assert_eq!(ledger.account("main").unwrap().max_concurrent, 2);
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_client_is_no_longer_in_flight() {
    let simulator = answering(Answer::Hang).await;
    let stream = send_usage(&simulator, "main").await;
    simulator.until(|ledger| ledger.account("main").unwrap().in_flight == 1).await;

    drop(stream);
    let ledger = simulator.until(|ledger| ledger.account("main").unwrap().in_flight == 0).await;

    let main = ledger.account("main").unwrap();
    assert_eq!((main.calls, main.abandoned, main.answers.len()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_can_be_released() {
    let simulator = answering(Answer::Hang).await;
    let stream = send_usage(&simulator, "main").await;
    simulator.until(|ledger| ledger.calls() == 1).await;

    simulator.set("main", Change::answer(Answer::Ok)).unwrap();

    assert_eq!(receive(stream).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn calls_during_a_hold_are_counted() {
    let phase = Phase::new(Answer::ThrottleZero).until(SECOND * 10);
    let simulator = with(Account::new("main").answers([phase])).await;

    usage(&simulator, "main").await;
    advance(SECOND * 59).await;
    // The phase is over and this call succeeds, but it arrives within the hold. So does the next one.
    let early = usage(&simulator, "main").await;
    usage(&simulator, "main").await;
    advance(SECOND).await;
    usage(&simulator, "main").await;

    assert_eq!(early.status, 200);
    assert_eq!(simulator.ledger().account("main").unwrap().calls_during_hold, 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_at_the_deadline_is_not_during_the_hold() {
    let phase = Phase::new(Answer::ThrottleUntilEnd).until(SECOND * 10);
    let simulator = with(Account::new("main").answers([phase])).await;

    let retry_after = usage(&simulator, "main").await.header("retry-after").unwrap().parse::<u32>().unwrap();
    advance(SECOND * retry_after).await;
    usage(&simulator, "main").await;

    assert_eq!(simulator.ledger().calls_during_hold(), 0);
}

#[tokio::test(start_paused = true)]
async fn arrivals_and_user_agents_are_recorded() {
    let simulator = with(Account::new("main")).await;

    usage(&simulator, "main").await;
    advance(SECOND * 5).await;
    usage(&simulator, "main").await;

    let ledger = simulator.ledger();
    assert_eq!(ledger.arrivals(), [START, START + SECOND * 5]);
    assert_eq!(ledger.account("main").unwrap().user_agents, ["test/1".to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn unauthenticated_calls_are_counted_separately() {
    let simulator = with(Account::new("main")).await;

    get(&simulator, "/api/oauth/usage", &login("sim-token-unknown")).await;

    let ledger = simulator.ledger();
    assert_eq!((ledger.unauthenticated.answered(401), ledger.account("main").unwrap().calls), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_rotation_only_the_new_token_is_valid() {
    let simulator = with(Account::new("main")).await;

    simulator.set("main", Change::token("sim-token-rotated")).unwrap();

    assert_eq!(usage(&simulator, "main").await.status, 401);
    assert_eq!(usage(&simulator, "rotated").await.status, 200);
    assert_eq!(simulator.ledger().account("main").unwrap().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_endpoint_has_no_token() {
    let simulator = with(Account::new("main")).await;
    usage(&simulator, "main").await;

    let response = get(&simulator, "/ledger", "").await;

    assert_eq!(serde_json::from_slice::<Ledger>(&response.body).unwrap(), simulator.ledger());
    assert!(!response.text().contains("sim-token"));
}
