//! The endpoints: who asks, what for, and in which order it is checked.
//! What comes of it is decided in `running` and written in `wire`.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::routing::{get, post};
use bytes::Bytes;

use crate::book::{Caller, Message};
use crate::budget::Throttle;
use crate::grants::Exchange;
use crate::provider::Provider;
use crate::running::{self, Decision, Outcome};
use crate::script::Answer;
use crate::wire::{self, Reply};

pub(crate) fn router(provider: Arc<Provider>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/ledger", get(ledger))
        .route("/api/oauth/usage", get(usage))
        .route("/api/oauth/profile", get(profile))
        .route("/v1/messages", post(message))
        .route("/v1/oauth/token", post(token))
        .fallback(nothing)
        .with_state(provider)
}

type Shared = State<Arc<Provider>>;

async fn usage(State(provider): Shared, headers: HeaderMap) -> Reply {
    let account = bearer(&headers).and_then(|token| provider.opened_by(token));
    let user_agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let call = provider
        .begin(account.map_or(Caller::Unauthenticated, Caller::Account), &user_agent.unwrap_or_default());
    let Some(account) = account else {
        call.answered(401, None);
        return stamped(wire::stranger(), &provider);
    };
    if !has_oauth_beta(&headers) {
        call.answered(400, None);
        let message = "OAuth needs the header anthropic-beta: oauth-2025-04-20";
        return of(account, Reply::error(400, "invalid_request_error", message), &provider);
    }
    let decision = provider.decide(account).await;
    delay(account, &provider).await;
    let throttle = match &decision {
        Decision::Throttled(throttle) => Some(*throttle),
        _ => None,
    };
    // Written after the delay, not before: a countdown is told as of the moment it leaves.
    let reply = wire::usage(&decision, &provider.clock);
    call.answered(reply.status(), throttle);
    of(account, reply, &provider)
}

async fn profile(State(provider): Shared, headers: HeaderMap) -> Reply {
    let Some(account) = bearer(&headers).and_then(|token| provider.opened_by(token)) else {
        return stamped(wire::stranger(), &provider);
    };
    delay(account, &provider).await;
    let reply = provider.look_at(account, |running, now| {
        if running.is_expired(now) { wire::expired() } else { wire::profile(running.account()) }
    });
    of(account, reply, &provider)
}

async fn message(State(provider): Shared, headers: HeaderMap, body: Bytes) -> Reply {
    let Some(account) = bearer(&headers).and_then(|token| provider.opened_by(token)) else {
        provider.traffic(Message::new(Caller::Unauthenticated, provider.clock.now(), 401));
        return stamped(wire::stranger(), &provider);
    };
    let mut message = Message::new(Caller::Account(account), provider.clock.now(), 200);
    let outcome = wire::Ask::read(&body).map(|ask| (provider.spend(account, &ask), ask));
    delay(account, &provider).await;
    let reply = match &outcome {
        Some((Outcome::Done(statement), ask)) => wire::done(ask, statement, &provider.clock),
        Some((Outcome::Rejected { statement, is_known }, ask)) => {
            message.is_in_vain = *is_known;
            wire::rejected(ask, statement, &provider.clock)
        }
        Some((Outcome::Throttled(throttle), _)) => {
            if let Throttle::Until(until) = throttle {
                message.away_until = Some(*until);
            }
            wire::throttled(*throttle, &provider.clock)
        }
        Some((Outcome::Fault(fault), _)) => wire::faulty(*fault),
        None => Reply::error(400, "invalid_request_error", "the body is a JSON object; cost is 0 or more"),
    };
    message.status = reply.status();
    provider.traffic(message);
    of(account, reply, &provider)
}

async fn token(State(provider): Shared, body: Bytes) -> Reply {
    let _under_way = provider.begin_exchange();
    let asked = match wire::token::asked(&body) {
        Ok(asked) => asked,
        Err(refused) => return stamped(refused, &provider),
    };
    let Some(account) = provider.refreshed_by(&asked) else {
        return stamped(wire::token::dead(), &provider);
    };
    let (answer, until) = provider.look_at(account, |running, now| running.token_answer(now));
    if let Some(throttle) = running::throttle(answer, until) {
        delay(account, &provider).await;
        return of(account, wire::throttled(throttle, &provider.clock), &provider);
    }
    if let Some(fault) = running::fault(answer) {
        delay(account, &provider).await;
        return of(account, wire::faulty(fault), &provider);
    }
    // Exchanged before the answer leaves: a client that is gone by then has lost it.
    let exchange = provider.exchange(account, &asked);
    delay(account, &provider).await;
    if answer == Answer::Hang {
        match until {
            Some(until) => provider.clock.sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
    let reply = match exchange {
        Exchange::Given(grant) | Exchange::GivenAgain(grant) => provider
            .look_at(account, |running, _| wire::token::given(running.account(), &grant, &provider.clock)),
        Exchange::Reused | Exchange::Revoked => wire::token::dead(),
    };
    of(account, reply, &provider)
}

async fn ledger(State(provider): Shared) -> Reply {
    let ledger = serde_json::to_value(provider.ledger()).expect("a ledger is made of texts and numbers");
    stamped(Reply::json(&ledger), &provider)
}

async fn about(State(provider): Shared) -> Reply {
    let mut text = "\
A simulated provider. Its accounts, numbers and errors are made up.

GET  /api/oauth/usage    how much an account has used
GET  /api/oauth/profile  whose account it is
POST /v1/messages        uses some of it: {\"cost\": 0.5, \"model\": \"...\"}
POST /v1/oauth/token     exchanges a refresh token, once
GET  /ledger             who called, how often, and what they were told

Accounts:
"
    .to_owned();
    for name in provider.names() {
        let _ = writeln!(text, "  {name}");
    }
    stamped(Reply::text("text/plain; charset=utf-8", text), &provider)
}

async fn nothing(State(provider): Shared) -> Reply {
    stamped(Reply::error(404, "not_found_error", "Not Found"), &provider)
}

async fn delay(account: usize, provider: &Provider) {
    let latency = provider.look_at(account, |running, _| running.latency());
    // Not even a timer for nothing: a paused clock would leap to it over whatever else is in the air.
    if !latency.is_zero() {
        provider.clock.sleep(latency).await;
    }
}

/// Adds what is on every answer to an account.
fn of(account: usize, reply: Reply, provider: &Provider) -> Reply {
    let organization = provider.look_at(account, |running, _| running.account().organization().into_owned());
    stamped(reply.header("anthropic-organization-id", organization), provider)
}

/// Adds what is on every answer.
fn stamped(reply: Reply, provider: &Provider) -> Reply {
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
