//! A client whose middleware observes the responses of the provider: for an account, and for a router.

use std::sync::Arc;
use std::time::Duration;

use quota::accounts::{
    AccountsConfig, Classification, FallbackAccountManager, Request, RequestOutcome, RetryAdvice, Route,
};
use quota::anthropic::AnthropicResponseParser;
use quota::http::observe::{ObserveMiddleware, ObservedResponse};
use quota::http::reqwest::{Client, Response};
use quota::{Used, WindowId};
use quota_sim::{Simulator, Window};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware};
use tokio::sync::mpsc;

use crate::fixture::*;

fn client(middleware: impl Middleware) -> ClientWithMiddleware {
    // The workspace builds reqwest without a provider of cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new(Client::builder().no_proxy().build().unwrap()).with(middleware).build()
}

/// Sends a message that costs 12.5 % of the five-hour window.
async fn send(
    client: &ClientWithMiddleware,
    simulator: &Simulator,
    token: &str,
    route: Option<Arc<Route>>,
) -> Response {
    let url = simulator.url().join("v1/messages").unwrap();
    let message = client.post(url).bearer_auth(token).header("content-type", "application/json");
    let message = message.body(r#"{"cost":12.5,"model":"made-up"}"#);
    let message = match route {
        Some(route) => message.with_extension(route),
        None => message,
    };
    message.send().await.unwrap()
}

#[tokio::test]
async fn an_account_merges_what_a_client_receives_without_a_call() {
    let simulator = provider([account("main")]).await;
    let quota = single_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));
    drop(main.get().await.unwrap());

    let client = client(ObserveMiddleware::for_account(main.clone()));
    let response = send(&client, &simulator, "sim-token-main", None).await;

    assert_eq!(response.status(), 200);
    assert_eq!(main.peek().used(&WindowId::five_hour()), Used::Exact(percent(42.5)));
    assert_eq!(simulator.stop().await.account("main").unwrap().calls, 1);
}

#[tokio::test]
async fn a_router_follows_the_responses_that_a_client_receives() {
    // The refresh shows some quota, which the first message exceeds. Only its response states that.
    let four_hours = Duration::from_secs(4 * 3600);
    let nearly = account("main").windows([Window::five_hour().used(95.0).resets_in(four_hours)]);
    let simulator = provider([nearly, account("b")]).await;
    let router = FallbackAccountManager::builder(AccountsConfig::new(id("main")).fallback(id("b")))
        .quota_manager(single_process(&simulator, tokens(["main", "b"]), policy()))
        .response_parser(AnthropicResponseParser)
        .build()
        .unwrap();

    // The observer must not wait, so a task reports. The request carries its route.
    let (outcomes, mut received) = mpsc::unbounded_channel::<(Arc<Route>, RequestOutcome)>();
    let client = client(ObserveMiddleware::new(move |request| {
        let route = request.extensions.get::<Arc<Route>>()?.clone();
        let outcomes = outcomes.clone();
        Some(move |response: &ObservedResponse<'_>| {
            let outcome = RequestOutcome::from_response(response.status.as_u16(), response.headers);
            let outcome = outcome.body(response.body).received_at(response.received_at);
            let _ = outcomes.send((Arc::clone(&route), outcome));
        })
    }));

    let mut advice = Vec::new();
    let mut accounts = Vec::new();
    for _ in 0..3 {
        let route = Arc::new(router.route(Request::new().with_model("made-up")).await.unwrap());
        accounts.push(route.account().clone());
        let token = route.credential().unwrap().secret.expose().to_owned();
        let response = send(&client, &simulator, &token, Some(route)).await;
        drop(response.bytes().await.unwrap());
        let (route, outcome) = within_deadline("the observer", received.recv()).await.unwrap();
        let Classification { next, .. } = router.report(&route, outcome).await.unwrap();
        advice.push(next);
    }

    assert_eq!(accounts, [id("main"), id("b"), id("b")]);
    assert_eq!(advice[1..], [RetryAdvice::Done, RetryAdvice::Done]);
}
