//! The endpoints, and the order of their checks.
//! `account_sim` decides the answers, and `wire` writes them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::routing::{get, post};
use bytes::Bytes;

use crate::account_sim::{self, Decision, MessageResult};
use crate::budget::Throttle;
use crate::provider::Provider;
use crate::recorder::{Caller, Message};
use crate::script::{Account, Answer};
use crate::tokens::TokenResult;
use crate::wire::token::{AuthorizeRequest, TokenRequest};
use crate::wire::{self, DIALECTS, Dialect, Reply};

pub(crate) fn router(provider: Arc<Provider>) -> Router {
    let usage_endpoints = DIALECTS.iter().copied().fold(Router::new(), |router, dialect| {
        let usage = move |state: Shared, headers: HeaderMap| usage(dialect, state, headers);
        let route = if dialect.method == "POST" { post(usage) } else { get(usage) };
        router.route(dialect.path, route)
    });
    usage_endpoints
        .route("/", get(about))
        .route("/ledger", get(ledger))
        .route("/api/oauth/profile", get(profile))
        .route(wire::gemini::PROJECT_PATH, post(project))
        .route("/v1/messages", post(message))
        .route("/oauth/authorize", get(authorize))
        .route("/v1/oauth/token", post(token))
        .fallback(not_found)
        .with_state(provider)
}

type Shared = State<Arc<Provider>>;

async fn usage(dialect: &Dialect, State(provider): Shared, headers: HeaderMap) -> Reply {
    let account = bearer(&headers).and_then(|token| provider.account_of_token(token));
    let settings = |account| provider.with_account(account, |sim, _| sim.account().clone());
    let account = account.filter(|account| settings(*account).provider_name() == dialect.provider);
    let user_agent = headers.get(USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let call = provider
        .begin(account.map_or(Caller::Unauthenticated, Caller::Account), &user_agent.unwrap_or_default());
    let Some(account) = account else {
        call.answered(401, None);
        return with_common_headers(wire::invalid_token(dialect.failure), &provider);
    };
    if let Err(rejected) = (dialect.check)(&headers, &settings(account)) {
        call.answered(rejected.status(), None);
        return for_account(account, rejected, &provider);
    }
    let decision = provider.decide(account).await;
    delay(account, &provider).await;
    let throttle = match &decision {
        Decision::Throttled(throttle) => Some(*throttle),
        _ => None,
    };
    // Write the response after the delay, so that a countdown is correct when it is sent.
    let reply = wire::usage(&decision, &settings(account), &provider.clock);
    call.answered(reply.status(), throttle);
    for_account(account, reply, &provider)
}

async fn profile(state: Shared, headers: HeaderMap) -> Reply {
    describe(&wire::ANTHROPIC, state, &headers, wire::profile).await
}

async fn project(state: Shared, headers: HeaderMap) -> Reply {
    describe(&wire::gemini::DIALECT, state, &headers, wire::gemini::project).await
}

/// Answers a request about an account of this provider that is not a call to its usage endpoint.
async fn describe(
    dialect: &Dialect,
    State(provider): Shared,
    headers: &HeaderMap,
    write: impl FnOnce(&Account) -> Reply,
) -> Reply {
    let account = bearer(headers).and_then(|token| provider.account_of_token(token));
    let is_own = |account: &usize| {
        provider.with_account(*account, |sim, _| sim.account().provider_name() == dialect.provider)
    };
    let Some(account) = account.filter(is_own) else {
        return with_common_headers(wire::invalid_token(dialect.failure), &provider);
    };
    delay(account, &provider).await;
    let reply = provider.with_account(account, |sim, now| {
        if sim.is_expired(now) { wire::expired(dialect.failure) } else { write(sim.account()) }
    });
    for_account(account, reply, &provider)
}

async fn message(State(provider): Shared, headers: HeaderMap, body: Bytes) -> Reply {
    let Some(account) = bearer(&headers).and_then(|token| provider.account_of_token(token)) else {
        provider.message_answered(Message::new(Caller::Unauthenticated, provider.clock.now(), 401));
        return with_common_headers(wire::invalid_token(Reply::error), &provider);
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
            wire::throttled(*throttle, &provider.clock, Reply::error)
        }
        Some((MessageResult::Fault(fault), _)) => wire::faulty(*fault, Reply::error),
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

async fn authorize(State(provider): Shared, RawQuery(query): RawQuery) -> Reply {
    let reply = match AuthorizeRequest::parse(&query.unwrap_or_default()) {
        Ok(AuthorizeRequest { login_hint, redirect_uri, challenge, state }) => {
            match provider.authorize(login_hint.as_deref(), redirect_uri.to_string(), challenge) {
                Some(code) => wire::token::authorized(redirect_uri, &code, &state),
                None => wire::token::invalid_grant(),
            }
        }
        Err(refused) => refused,
    };
    with_common_headers(reply, &provider)
}

async fn token(State(provider): Shared, body: Bytes) -> Reply {
    let _in_flight = provider.begin_exchange();
    let token = match wire::token::parse_request(&body) {
        Ok(TokenRequest::Refresh(token)) => token,
        Ok(TokenRequest::Code { code, redirect_uri, verifier }) => {
            return first_login(&provider, &code, &redirect_uri, &verifier).await;
        }
        Err(refused) => return with_common_headers(refused, &provider),
    };
    let Some(account) = provider.account_of_refresh_token(&token) else {
        return with_common_headers(wire::token::invalid_grant(), &provider);
    };
    let (answer, until) = provider.with_account(account, |sim, now| sim.token_answer(now));
    if let Some(throttle) = account_sim::as_throttle(answer, until) {
        delay(account, &provider).await;
        return for_account(account, wire::throttled(throttle, &provider.clock, Reply::error), &provider);
    }
    if let Some(fault) = account_sim::as_fault(answer) {
        delay(account, &provider).await;
        return for_account(account, wire::faulty(fault, Reply::error), &provider);
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

/// Exchanges a code. The phases of the token endpoint may delay the response, or lose it.
async fn first_login(provider: &Provider, code: &str, redirect_uri: &str, verifier: &str) -> Reply {
    let Ok((account, issued)) = provider.redeem(code, redirect_uri, verifier) else {
        return with_common_headers(wire::token::invalid_grant(), provider);
    };
    let (answer, until) = provider.with_account(account, |sim, now| sim.token_answer(now));
    delay(account, provider).await;
    if answer == Answer::Hang {
        match until {
            Some(until) => provider.clock.sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
    let reply =
        provider.with_account(account, |sim, _| wire::token::issued(sim.account(), &issued, &provider.clock));
    for_account(account, reply, provider)
}

async fn ledger(State(provider): Shared) -> Reply {
    let ledger = serde_json::to_value(provider.ledger()).expect("a ledger contains only texts and numbers");
    with_common_headers(Reply::json(&ledger), &provider)
}

async fn about(State(provider): Shared) -> Reply {
    let mut text = "\
A simulated provider. Its accounts, numbers and errors are simulated.

GET  /api/oauth/profile  the owner of an account
POST /v1/messages        uses quota: {\"cost\": 0.5, \"model\": \"...\"}
GET  /oauth/authorize    logs in, and redirects with a code
POST /v1/oauth/token     exchanges a code or a refresh token, once
GET  /ledger             the calls received, by account and status

The use of an account, by its provider:
"
    .to_owned();
    for Dialect { provider, method, path, .. } in DIALECTS {
        let _ = writeln!(text, "  {provider:<12} {method:<4} {path}");
    }
    text.push_str("\nAccounts:\n");
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
    let owner = provider.with_account(account, |sim, _| {
        let header = wire::dialect(sim.account()).owner_header;
        header.map(|header| (header, sim.account().organization().into_owned()))
    });
    let reply = match owner {
        Some((header, owner)) => reply.header(header, owner),
        None => reply,
    };
    with_common_headers(reply, provider)
}

/// Adds the headers that every response has.
fn with_common_headers(reply: Reply, provider: &Provider) -> Reply {
    let wall = provider.clock.wall(provider.clock.now());
    reply.date(wall).header("request-id", provider.request_id())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    // GitHub calls the scheme `token`.
    ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known)).then(|| token.trim())
}
