//! Tests of the refresher over a real socket: its requests, and the result of failed calls. Parsing the responses has its own
//! tests.

use std::time::Duration;

use quota_core::Secret;
use quota_core::provider::{TokenError, TokenRefresher, Tokens};
use quota_http::{Authorization, BuildError, OAuthRefresherBuilder, anthropic, codex, openrouter};
use serde_json::{Value, json};

use super::server::{Reply, Server, head};

const TOKEN: &str = "sk-ant-ort01-n33dle";
const TOKENS: &str = r#"{"access_token":"a-2","refresh_token":"r-2","expires_in":28800}"#;

fn anthropic_at(server: &Server) -> OAuthRefresherBuilder {
    anthropic::refresher("a-client").base_url(server.url())
}

async fn exchange_by(builder: OAuthRefresherBuilder) -> Result<Tokens, TokenError> {
    builder.build().unwrap().refresh(&Secret::new(TOKEN)).await
}

async fn exchange(reply: Reply) -> Result<Tokens, TokenError> {
    exchange_by(anthropic_at(&Server::start(reply).await)).await
}

fn request_body(server: &Server) -> Value {
    serde_json::from_str(&server.bodies()[0]).unwrap()
}

#[tokio::test]
async fn anthropic_gets_the_token_and_the_client_id_as_json() {
    let server = Server::start(Reply::json(200, "", TOKENS)).await;

    let tokens = exchange_by(anthropic_at(&server)).await.unwrap();

    assert_eq!(tokens.refresh_token.unwrap().expose(), "r-2");
    assert!(server.requests()[0].starts_with("post /v1/oauth/token http/1.1\r\n"), "{:?}", server.requests());
    assert!(server.requests()[0].contains("\r\ncontent-type: application/json\r\n"));
    let form = json!({"grant_type": "refresh_token", "refresh_token": TOKEN, "client_id": "a-client"});
    assert_eq!(request_body(&server), form);
}

#[tokio::test]
async fn codex_gets_the_scope_as_well() {
    let server = Server::start(Reply::json(200, "", TOKENS)).await;

    exchange_by(codex::refresher("a-client").base_url(server.url())).await.unwrap();

    assert!(server.requests()[0].starts_with("post /oauth/token http/1.1\r\n"));
    assert_eq!(request_body(&server)["scope"], "openid profile email");
}

/// An authorization whose code is `a-code`.
fn authorized() -> (Authorization, Secret) {
    let endpoint = "https://auth.example.com/authorize".parse().unwrap();
    let login = Authorization::new(&endpoint, "a-client", "http://127.0.0.1:1/callback", &["usage"]);
    let code = login.code("a-code").unwrap();
    (login, code)
}

#[tokio::test]
async fn a_code_is_exchanged_as_json_with_its_verifier_and_its_state() {
    let server = Server::start(Reply::json(200, "", TOKENS)).await;
    let (login, code) = authorized();
    let state = login.url().query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();

    let tokens = anthropic_at(&server).build().unwrap().exchange_code(&code, &login).await.unwrap();

    assert_eq!(tokens.access_token.expose(), "a-2");
    let body = request_body(&server);
    assert_eq!(
        (&body["grant_type"], &body["code"], &body["redirect_uri"], &body["state"]),
        (
            &json!("authorization_code"),
            &json!("a-code"),
            &json!("http://127.0.0.1:1/callback"),
            &json!(state)
        )
    );
    assert_eq!(body["code_verifier"].as_str().unwrap().len(), 43);
}

#[tokio::test]
async fn a_provider_without_an_own_exchange_gets_a_form_at_the_configured_url() {
    let server = Server::start(Reply::json(200, "", TOKENS)).await;
    let url = server.url().join("oauth2/token").unwrap();
    let refresher = openrouter::PROVIDER.refresher_at(url, "a-client").build().unwrap();

    refresher.refresh(&Secret::new("r/1+2")).await.unwrap();

    assert_eq!(refresher.provider().as_str(), "openrouter");
    assert!(server.requests()[0].starts_with("post /oauth2/token http/1.1\r\n"), "{:?}", server.requests());
    assert!(server.requests()[0].contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"));
    assert_eq!(server.bodies()[0], "client_id=a-client&grant_type=refresh_token&refresh_token=r%2F1%2B2");
}

#[tokio::test]
async fn a_code_that_is_not_accepted_is_no_rejected_login() {
    let server = Server::start(Reply::json(400, "", r#"{"error":"invalid_grant"}"#)).await;
    let (login, code) = authorized();

    let error = anthropic_at(&server).build().unwrap().exchange_code(&code, &login).await.unwrap_err();

    assert!(
        matches!(&error, TokenError::InvalidGrant { reason, .. } if reason.contains("the code")),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("a-code"));
}

#[test]
fn a_token_url_that_is_not_encrypted_is_rejected() {
    let url = "http://auth.example.com/token".parse().unwrap();

    let error = openrouter::PROVIDER.refresher_at(url, "a-client").build().unwrap_err();

    assert_eq!(error, BuildError::Insecure);
}

#[tokio::test]
async fn the_refresher_sends_a_user_agent() {
    let server = Server::start(Reply::json(200, "", TOKENS)).await;

    exchange_by(anthropic_at(&server)).await.unwrap();
    exchange_by(anthropic_at(&server).user_agent("my-program/1.0")).await.unwrap();

    assert!(server.requests()[0].contains("\r\nuser-agent: quota/"));
    assert!(server.requests()[1].contains("\r\nuser-agent: my-program/1.0\r\n"));
}

#[tokio::test]
async fn only_invalid_grant_ends_the_login() {
    let dead = exchange(Reply::json(400, "", r#"{"error":"invalid_grant"}"#)).await.unwrap_err();
    let client = exchange(Reply::json(401, "", r#"{"error":"invalid_client"}"#)).await.unwrap_err();

    assert!(matches!(dead, TokenError::InvalidGrant { .. }), "{dead:?}");
    assert!(matches!(client, TokenError::InvalidClient { .. }), "{client:?}");
}

#[tokio::test]
async fn a_cloudflare_challenge_does_not_reject_the_refresh_token() {
    let page = "<html>invalid_grant</html>";
    for status in [400, 401, 403, 503] {
        let server = Server::start(Reply::json(status, "cf-mitigated: challenge\r\n", page)).await;
        for builder in [anthropic_at(&server), codex::refresher("a-client").base_url(server.url())] {
            let error = exchange_by(builder).await.unwrap_err();

            assert!(error.is_transient(), "{status} {error:?}");
            assert!(error.to_string().contains(&format!("Cloudflare blocked the request (status {status})")));
        }
    }
}

#[tokio::test]
async fn retry_after_is_part_of_the_error() {
    for status in [429, 503] {
        let error = exchange(Reply::json(status, "retry-after: 90\r\n", "{}")).await.unwrap_err();

        assert_eq!(error.retry_after(), Some(Duration::from_secs(90)), "{status} {error:?}");
    }
}

#[tokio::test]
async fn a_broken_connection_is_transient_and_sent_once() {
    for reply in [Reply::HangUp, Reply::Send(format!("{}\r\n{{", head(200, 500)))] {
        let server = Server::start(reply).await;

        let error = exchange_by(anthropic_at(&server)).await.unwrap_err();

        assert!(error.is_transient(), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_stalled_response_times_out() {
    let error = exchange(Reply::Stall(format!("{}\r\n", head(200, 500)))).await.unwrap_err();

    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn the_token_is_not_sent_to_a_redirect() {
    let elsewhere = Server::start(Reply::json(200, "", TOKENS)).await;
    let location = format!("location: {}\r\n", elsewhere.url());

    let error = exchange(Reply::json(307, &location, "")).await.unwrap_err();

    assert!(error.is_transient(), "{error:?}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn neither_token_nor_response_is_shown() {
    for (status, body) in [(400, TOKEN), (200, TOKEN), (200, r#"{"access_token":["n33dle"]}"#)] {
        let server = Server::start(Reply::json(status, "", body)).await;
        let builder = anthropic_at(&server);
        let texts = format!("{builder:?} {:?}", builder.clone().build().unwrap());

        let error = exchange_by(builder).await.unwrap_err();

        assert!(!format!("{texts} {error} {error:?}").contains("n33dle"), "{error:?}");
    }
}

#[test]
fn a_refresher_needs_a_client_id_and_tls() {
    let build = |builder: OAuthRefresherBuilder| builder.build().map(|_| ()).unwrap_err();
    let far = "http://example.com".parse().unwrap();

    assert_eq!(build(anthropic::refresher("")), BuildError::ClientId);
    assert_eq!(build(codex::refresher(" a b ")), BuildError::ClientId);
    assert_eq!(build(anthropic::refresher("a").base_url(far)), BuildError::Insecure);
}
