//! The endpoints, and the order of their checks.
//! `account_sim` decides the answers, and `wire` writes them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::routing::{get, post};
use bytes::Bytes;

use crate::account_sim::{self, Decision, MessageResult};
use crate::budget::Throttle;
use crate::provider::Provider;
use crate::recorder::{Caller, Message};
use crate::script::Answer;
use crate::tokens::TokenResult;
use crate::wire::{self, Reply};

pub(crate) fn router(provider: Arc<Provider>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/ledger", get(ledger))
        .route("/api/oauth/usage", get(usage))
        .route("/api/oauth/profile", get(profile))
        .route("/v1/messages", post(message))
        .route("/v1/oauth/token", post(token))
        .fallback(not_found)
        .with_state(provider)
}

type Shared = State<Arc<Provider>>;

async fn usage(State(provider): Shared, headers: HeaderMap) -> Reply {
    let account = bearer(&headers).and_then(|token| provider.account_of_token(token));
    let user_agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let call = provider
        .begin(account.map_or(Caller::Unauthenticated, Caller::Account), &user_agent.unwrap_or_default());
    let Some(account) = account else {
        call.answered(401, None);
        return with_common_headers(wire::invalid_token(), &provider);
    };
    if !has_oauth_beta(&headers) {
        call.answered(400, None);
        let message = "OAuth needs the header anthropic-beta: oauth-2025-04-20";
        return for_account(account, Reply::error(400, "invalid_request_error", message), &provider);
    }
    let decision = provider.decide(account).await;
    delay(account, &provider).await;
    let throttle = match &decision {
        Decision::Throttled(throttle) => Some(*throttle),
        _ => None,
    };
    // Write the response after the delay, so that a countdown is correct when it is sent.
    let reply = wire::usage(&decision, &provider.clock);
    call.answered(reply.status(), throttle);
    for_account(account, reply, &provider)
}

async fn profile(State(provider): Shared, headers: HeaderMap) -> Reply {
    let Some(account) = bearer(&headers).and_then(|token| provider.account_of_token(token)) else {
        return with_common_headers(wire::invalid_token(), &provider);
    };
    delay(account, &provider).await;
    let reply = provider.with_account(account, |sim, now| {
        if sim.is_expired(now) { wire::expired() } else { wire::profile(sim.account()) }
    });
    for_account(account, reply, &provider)
}

async fn message(State(provider): Shared, headers: HeaderMap, body: Bytes) -> Reply {
    let Some(account) = bearer(&headers).and_then(|token| provider.account_of_token(token)) else {
        provider.message_answered(Message::new(Caller::Unauthenticated, provider.clock.now(), 401));
        return with_common_headers(wire::invalid_token(), &provider);
    };
    let mut message = Message::new(Caller::Account(account), provider.clock.now(), 200);
    let outcome =
        wire::MessageRequest::parse(&body).map(|request| (provider.message(account, &request), request));
    delay(account, &provider).await;
    let reply = match &outcome {
        Some((MessageResult::Done(usage), request)) => wire::done(request, usage, &provider.clock),
        Some((MessageResult::Rejected { usage, was_reported }, request)) => {
            message.is_futile = *was_reported;
            wire::rejected(request, usage, &provider.clock)
        }
        Some((MessageResult::Throttled(throttle), _)) => {
            if let Throttle::Until(until) = throttle {
                message.hold_until = Some(*until);
            }
            wire::throttled(*throttle, &provider.clock)
        }
        Some((MessageResult::Fault(fault), _)) => wire::faulty(*fault),
        None => Reply::error(
            400,
            "invalid_request_error",
            "the body must be a JSON object with a cost of 0 or more",
        ),
    };
    message.status = reply.status();
    provider.message_answered(message);
    for_account(account, reply, &provider)
}

async fn token(State(provider): Shared, body: Bytes) -> Reply {
    let _in_flight = provider.begin_exchange();
    let token = match wire::token::parse_request(&body) {
        Ok(token) => token,
        Err(refused) => return with_common_headers(refused, &provider),
    };
    let Some(account) = provider.account_of_refresh_token(&token) else {
        return with_common_headers(wire::token::invalid_grant(), &provider);
    };
    let (answer, until) = provider.with_account(account, |sim, now| sim.token_answer(now));
    if let Some(throttle) = account_sim::as_throttle(answer, until) {
        delay(account, &provider).await;
        return for_account(account, wire::throttled(throttle, &provider.clock), &provider);
    }
    if let Some(fault) = account_sim::as_fault(answer) {
        delay(account, &provider).await;
        return for_account(account, wire::faulty(fault), &provider);
    }
    // Exchange the token before the response is sent, so that a client that disconnects loses the response.
    let exchange = provider.exchange(account, &token);
    delay(account, &provider).await;
    if answer == Answer::Hang {
        match until {
            Some(until) => provider.clock.sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
    let reply = match exchange {
        TokenResult::Issued(issued) | TokenResult::Replayed(issued) => provider
            .with_account(account, |sim, _| wire::token::issued(sim.account(), &issued, &provider.clock)),
        TokenResult::ReuseDetected | TokenResult::Revoked => wire::token::invalid_grant(),
    };
    for_account(account, reply, &provider)
}

async fn ledger(State(provider): Shared) -> Reply {
    let ledger = serde_json::to_value(provider.ledger()).expect("a ledger contains only texts and numbers");
    with_common_headers(Reply::json(&ledger), &provider)
}

async fn about(State(provider): Shared) -> Reply {
    let mut text = "\
A simulated provider. Its accounts, numbers and errors are simulated.

GET  /api/oauth/usage    the use of an account
GET  /api/oauth/profile  the owner of an account
POST /v1/messages        uses quota: {\"cost\": 0.5, \"model\": \"...\"}
POST /v1/oauth/token     exchanges a refresh token, once
GET  /ledger             the calls received, by account and status

Accounts:
"
    .to_owned();
    for name in provider.names() {
        let _ = writeln!(text, "  {name}");
    }
    with_common_headers(Reply::text("text/plain; charset=utf-8", text), &provider)
}

async fn not_found(State(provider): Shared) -> Reply {
    with_common_headers(Reply::error(404, "not_found_error", "Not Found"), &provider)
}

async fn delay(account: usize, provider: &Provider) {
    let latency = provider.with_account(account, |sim, _| sim.latency());
    // Set no timer for a zero latency: a paused clock would advance to it while bytes are in transit.
    if !latency.is_zero() {
        provider.clock.sleep(latency).await;
    }
}

/// Adds the headers that every response to an account has.
fn for_account(account: usize, reply: Reply, provider: &Provider) -> Reply {
    let organization = provider.with_account(account, |sim, _| sim.account().organization().into_owned());
    with_common_headers(reply.header("anthropic-organization-id", organization), provider)
}

/// Adds the headers that every response has.
fn with_common_headers(reply: Reply, provider: &Provider) -> Reply {
    let wall = provider.clock.wall(provider.clock.now());
    reply.date(wall).header("request-id", provider.request_id())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn has_oauth_beta(headers: &HeaderMap) -> bool {
    headers
        .get_all("anthropic-beta")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|beta| beta.trim() == "oauth-2025-04-20")
}
