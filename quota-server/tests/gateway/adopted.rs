//! Credentials that no configuration has: they become accounts in memory, if the user allows that.

use quota_server::LastResponses;
use quota_sim::{Account, Window};

use super::support::{Setup, manager};

const PATH: &str = "/api/oauth/usage";

/// A gateway whose simulator knows an account that the configuration does not have.
async fn start() -> super::support::Running {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let setup = Setup::new([main]).configure(|builder, simulator| {
        let responses = LastResponses::default();
        builder.adopt_presented(manager(simulator, &responses, None)).last_responses(responses)
    });
    setup.start().await
}

#[tokio::test]
async fn an_unknown_credential_becomes_an_account() {
    let gateway = start().await;
    gateway.simulator.set("main", quota_sim::Change::token("sim-token-unknown")).unwrap();

    for _ in 0..3 {
        let response = gateway.get_with(PATH, "sim-token-unknown").await;
        assert_eq!(response.json()["five_hour"]["utilization"], 62.0, "{response:?}");
    }
    // One call for the configured account, and one for the adopted one.
    assert_eq!(gateway.simulator.ledger().calls(), 2);
}

#[tokio::test]
async fn a_rejected_credential_is_a_401_and_called_once() {
    let gateway = start().await;

    for _ in 0..5 {
        let response = gateway.get_with(PATH, "sim-token-made-up-wrong").await;
        assert_eq!(
            (response.status(), &response.json()["error"]["type"]),
            (401, &"authentication_error".into())
        );
    }
    assert_eq!(gateway.simulator.ledger().unauthenticated.answered(401), 1);
}

#[tokio::test]
async fn what_cannot_be_a_credential_is_not_adopted() {
    let gateway = start().await;

    for token in ["short", &"x".repeat(9000), "with a space in the middle"] {
        assert_eq!(gateway.get_with(PATH, token).await.status(), 401, "{token}");
    }
    assert_eq!(gateway.simulator.ledger().unauthenticated.answered(401), 0);
}

#[tokio::test]
async fn the_number_of_adopted_accounts_is_bounded() {
    let gateway = start().await;

    let requests = (0..80).map(|at| {
        let token = format!("sim-token-made-up-{at:04}");
        let gateway = &gateway;
        async move { gateway.get_with(PATH, &token).await.status() }
    });
    let statuses = futures_util::future::join_all(requests).await;

    assert!(statuses.contains(&503));
    assert!(gateway.simulator.ledger().unauthenticated.answered(401) <= 64);
    // The configured account is not affected.
    assert_eq!(gateway.get_with(PATH, "sim-token-main").await.status(), 200);
}
