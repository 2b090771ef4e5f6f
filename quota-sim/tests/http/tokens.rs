//! Exchanging refresh tokens.

use quota_sim::{Account, Answer, Change, Phase, Script, Simulator};
use serde_json::json;

use super::client::{Response, get, login, receive, send};
use super::{HOUR, SECOND, start, with};

async fn exchange(simulator: &Simulator, token: &str) -> Response {
    let form = json!({"grant_type": "refresh_token", "client_id": "sim-client", "refresh_token": token});
    request_token(simulator, &form.to_string()).await
}

async fn request_token(simulator: &Simulator, body: &str) -> Response {
    receive(send(simulator, "POST", "/v1/oauth/token", "", body).await).await
}

async fn is_valid(simulator: &Simulator, token: &str) -> bool {
    get(simulator, "/api/oauth/usage", &login(token)).await.status == 200
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_exchanged_for_valid_tokens() {
    let simulator = with(Account::new("main")).await;

    let issued = exchange(&simulator, "sim-refresh-main").await.json();
    let next = exchange(&simulator, issued["refresh_token"].as_str().unwrap()).await;

    assert!(is_valid(&simulator, issued["access_token"].as_str().unwrap()).await);
    assert_eq!((&issued["expires_in"], next.status), (&json!(28800), 200));
    assert_eq!(issued["organization"]["uuid"], "sim-org-main");
    assert_eq!(simulator.stop().await.account("main").unwrap().exchanges, 2);
}

#[tokio::test(start_paused = true)]
async fn a_reused_token_revokes_its_login_and_is_counted() {
    let simulator = with(Account::new("main")).await;
    exchange(&simulator, "sim-refresh-main").await;

    let again = exchange(&simulator, "sim-refresh-main").await;
    let next = exchange(&simulator, "sim-refresh-main-2").await;

    assert_eq!((again.status, again.json()), (400, json!({"error": "invalid_grant"})));
    assert_eq!(next.status, 400);
    assert!(!is_valid(&simulator, "sim-token-main-2").await);
    let ledger = simulator.stop().await;
    let main = ledger.account("main").unwrap();
    assert_eq!((main.exchanges, main.reuses, main.exchanges_rejected), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_response_is_replayed_within_the_grace() {
    let simulator = with(Account::new("main").reuse_grace(SECOND * 60)).await;

    let one = exchange(&simulator, "sim-refresh-main").await.json();
    let again = exchange(&simulator, "sim-refresh-main").await.json();

    assert_eq!(one["refresh_token"], again["refresh_token"]);
    let ledger = simulator.stop().await;
    let main = ledger.account("main").unwrap();
    assert_eq!((main.exchanges, main.exchanges_replayed, main.reuses), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn tokens_expire_and_a_new_login_is_valid() {
    let simulator = with(Account::new("main").token_ttl(HOUR)).await;
    assert!(is_valid(&simulator, "sim-token-main").await);

    tokio::time::advance(HOUR).await;
    assert!(!is_valid(&simulator, "sim-token-main").await);

    simulator.set("main", Change::login("sim-token-b", "sim-refresh-b")).unwrap();
    assert!(is_valid(&simulator, "sim-token-b").await);
    assert_eq!(exchange(&simulator, "sim-refresh-main").await.status, 400);

    simulator.set("main", Change::expire_tokens()).unwrap();
    assert!(!is_valid(&simulator, "sim-token-b").await);
    assert_eq!(exchange(&simulator, "sim-refresh-b").await.status, 200);
}

/// The verifier and the challenge of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn authorize(simulator: &Simulator, more: &str) -> Response {
    let query = format!(
        "response_type=code&client_id=sim-client&redirect_uri=http://127.0.0.1:1/cb&state=s&code_challenge={CHALLENGE}\
         &code_challenge_method=S256{more}"
    );
    get(simulator, &format!("/oauth/authorize?{query}"), "").await
}

async fn redeem(simulator: &Simulator, code: &str, verifier: &str) -> Response {
    let form = format!(
        "grant_type=authorization_code&client_id=sim-client&code={code}&redirect_uri=http://127.0.0.1:1/cb&code_verifier={verifier}"
    );
    request_token(simulator, &form).await
}

#[tokio::test(start_paused = true)]
async fn a_first_login_redirects_with_a_code_that_works_once() {
    let simulator = start(Script::new([Account::new("main"), Account::new("work")])).await;

    let redirect = authorize(&simulator, "&login_hint=work").await;
    let issued = redeem(&simulator, "sim-code-1", VERIFIER).await;
    let again = redeem(&simulator, "sim-code-1", VERIFIER).await;

    let location = redirect.header("location");
    assert_eq!((redirect.status, location), (302, Some("http://127.0.0.1:1/cb?code=sim-code-1&state=s")));
    assert_eq!((issued.json()["organization"]["uuid"].as_str(), again.status), (Some("sim-org-work"), 400));
    assert!(is_valid(&simulator, issued.json()["access_token"].as_str().unwrap()).await);
    assert_eq!(exchange(&simulator, issued.json()["refresh_token"].as_str().unwrap()).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_code_needs_its_verifier() {
    let simulator = with(Account::new("main")).await;
    authorize(&simulator, "").await;

    let stolen = redeem(&simulator, "sim-code-1", "another-verifier").await;

    assert_eq!((stolen.status, stolen.json()), (400, json!({"error": "invalid_grant"})));
}

#[tokio::test(start_paused = true)]
async fn unknown_clients_unknown_tokens_and_invalid_bodies_are_rejected() {
    let simulator = with(Account::new("main")).await;
    let words = [
        (exchange(&simulator, "sim-refresh-unknown").await, "invalid_grant"),
        (
            request_token(&simulator, r#"{"grant_type":"refresh_token","client_id":"x"}"#).await,
            "invalid_client",
        ),
        (request_token(&simulator, r#"{"grant_type":"password"}"#).await, "unsupported_grant_type"),
        (request_token(&simulator, "n33dle").await, "invalid_request"),
    ];

    for (answer, word) in words {
        assert_eq!(answer.json(), json!({"error": word}));
    }
}

#[tokio::test(start_paused = true)]
async fn exchanges_follow_their_own_phases() {
    let unavailable = Phase::new(Answer::Unavailable).until(HOUR).on_token();
    let simulator = start(Script::new([Account::new("main").answers([unavailable])])).await;

    assert_eq!(exchange(&simulator, "sim-refresh-main").await.status, 503);
    assert!(is_valid(&simulator, "sim-token-main").await);

    tokio::time::advance(HOUR).await;
    assert_eq!(exchange(&simulator, "sim-refresh-main").await.status, 200);
}
