//! Tokens of the gateway, and requests of web pages.

use quota_server::AccessTokens;
use quota_sim::{Account, Window};

use super::support::Setup;

const BY_NAME: &str = "/account/anthropic/main/api/oauth/usage";
const TOKEN: &str = "gateway-token-0123456789";

fn with_tokens() -> Setup {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let tokens = AccessTokens::parse(&format!("read {TOKEN}\n")).unwrap();
    Setup::new([main]).configure(|builder, _| builder.tokens(tokens))
}

#[tokio::test]
async fn a_token_of_the_gateway_reads_a_named_account() {
    let gateway = with_tokens().start().await;

    assert_eq!(gateway.get_with(BY_NAME, TOKEN).await.status(), 200);
}

#[tokio::test]
async fn the_credential_of_an_account_reads_that_account() {
    let gateway = with_tokens().start().await;

    assert_eq!(gateway.get_with(BY_NAME, "sim-token-main").await.status(), 200);
    assert_eq!(gateway.get_with("/api/oauth/usage", "sim-token-main").await.status(), 200);
}

#[tokio::test]
async fn without_a_valid_token_no_account_is_revealed() {
    let gateway = with_tokens().start().await;

    let known = gateway.get_with(BY_NAME, "gateway-token-wrong-one").await;
    let unknown =
        gateway.get_with("/account/anthropic/other/api/oauth/usage", "gateway-token-wrong-one").await;

    assert_eq!((known.status(), known.body()), (401, unknown.body()));
    assert_eq!(gateway.get(BY_NAME, "").await.status(), 401);
    assert_eq!(gateway.get_with("/api/oauth/usage", TOKEN).await.status(), 401);
}

#[tokio::test]
async fn replaced_tokens_count_at_once() {
    let gateway = with_tokens().start().await;

    gateway.gateway.replace_tokens(AccessTokens::parse("read another-token-0123456789").unwrap());

    assert_eq!(gateway.get_with(BY_NAME, TOKEN).await.status(), 401);
    assert_eq!(gateway.get_with(BY_NAME, "another-token-0123456789").await.status(), 200);
}

#[tokio::test]
async fn a_rebound_name_or_another_origin_is_rejected() {
    let main = Account::new("main").windows([Window::five_hour().used(62.0)]);
    let gateway = Setup::new([main]).start().await;

    let rebound = format!("GET {BY_NAME} HTTP/1.1\r\nHost: attacker.example\r\nConnection: close\r\n\r\n");
    let response = gateway.send(&rebound).await;
    assert_eq!((response.status(), response.header("content-type")), (421, Some("application/problem+json")));
    let response = gateway.get(BY_NAME, "Origin: https://attacker.example\r\n").await;
    assert_eq!(response.status(), 403);
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert!(!response.body().contains("attacker"));
}
