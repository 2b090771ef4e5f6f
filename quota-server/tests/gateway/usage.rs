//! The providers' own paths: the readings in the provider's shape, for the account of the presented credential.

use quota::Clock;
use quota::http::find_provider;
use quota_sim::{Account, Window};

use super::support::{Response, Setup};

const ANTHROPIC: &str = "/api/oauth/usage";
const CODEX: &str = "/backend-api/wham/usage";

fn main() -> Account {
    Account::new("main").windows([Window::five_hour().used(62.0), Window::seven_day().used(41.0)])
}

fn codex() -> Account {
    Account::new("work")
        .provider("openai")
        .windows([Window::five_hour().used(12.0), Window::seven_day().used(7.0)])
}

fn percentages(response: &Response) -> (Option<f64>, Option<f64>) {
    let body = response.json();
    (body["five_hour"]["utilization"].as_f64(), body["seven_day"]["utilization"].as_f64())
}

#[tokio::test]
async fn a_client_of_anthropic_gets_its_account() {
    let gateway = Setup::new([main()]).start().await;

    let response = gateway.get_with(ANTHROPIC, "sim-token-main").await;

    assert_eq!(response.status(), 200, "{response:?}");
    assert_eq!(percentages(&response), (Some(62.0), Some(41.0)));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("quota-freshness"), Some("fresh"));
    assert_eq!(response.header("vary"), Some("authorization"));
}

#[tokio::test]
async fn a_client_of_codex_gets_its_account() {
    let gateway = Setup::new([main(), codex()]).start().await;

    let response = gateway.get_with(CODEX, "sim-token-work").await;

    let limit = &response.json()["rate_limit"];
    assert_eq!(limit["primary_window"]["used_percent"], 12.0, "{response:?}");
    assert_eq!(limit["secondary_window"]["limit_window_seconds"], 604_800);
}

#[tokio::test]
async fn a_client_of_each_other_provider_gets_what_its_parser_reads() {
    for (provider, path) in [
        ("copilot", "/copilot_internal/user"),
        ("zai", "/api/monitor/usage/quota/limit"),
        ("kimi", "/coding/v1/usages"),
        ("deepseek", "/user/balance"),
        ("openrouter", "/api/v1/key"),
        ("litellm", "/key/info"),
        ("minimax", "/v1/token_plan/remains"),
        ("xai", "/v1/billing?format=credits"),
    ] {
        let account = Account::new("one").provider(provider).windows([Window::five_hour().used(12.0)]);
        let gateway = Setup::new([main(), account]).start().await;

        let response = gateway.get_with(path, "sim-token-one").await;

        assert_eq!(response.status(), 200, "{provider} {response:?}");
        let parsed =
            find_provider(provider).unwrap().parse(response.body().as_bytes(), Clock::system().now());
        let usage = parsed.unwrap().usage;
        let is_read = usage.windows.iter().any(|window| window.used.as_f64() == 12.0);
        assert!(is_read || usage.credits.is_some_and(|credits| credits.balance.is_some()), "{provider}");
        assert_eq!(gateway.get_with(path, "sk-made-up-unknown").await.status(), 401);
    }
}

#[tokio::test]
async fn a_query_that_asks_for_something_else_is_refused() {
    let account = |provider: &str| Account::new(provider).provider(provider);
    let gateway = Setup::new([main(), account("litellm"), account("xai")]).start().await;

    for (name, path) in [("litellm", "/key/info?key=sk-another"), ("xai", "/v1/billing")] {
        for path in [path.to_owned(), format!("/account/{name}/{name}{path}")] {
            let response = gateway.get_with(&path, &format!("sim-token-{name}")).await;

            assert_eq!(response.status(), 404, "{path} {response:?}");
            assert!(response.0.contains("the query") || response.0.contains("without a query"));
            assert!(!response.0.contains("sk-another"));
        }
    }
}

#[tokio::test]
async fn the_answer_is_the_one_of_the_provider() {
    let gateway = Setup::new([main(), codex()]).start().await;
    let text = format!(
        "GET {ANTHROPIC} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nanthropic-beta: oauth-2025-04-20\r\nAuthorization: Bearer sim-token-main\r\n\r\n"
    );
    let port = gateway.simulator.url().port().unwrap();
    let mut provider = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut provider, text.as_bytes()).await.unwrap();
    let mut bytes = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut provider, &mut bytes).await.unwrap();

    let written = gateway.get_with(ANTHROPIC, "sim-token-main").await.json();

    for (name, value) in Response(bytes).json().as_object().unwrap() {
        // The simulator computes the resets for each response.
        if name != "limits" && value.get("resets_at").is_none() {
            assert_eq!(written.get(name), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn many_clients_cause_one_call() {
    let gateway = Setup::new([main()]).start().await;

    let requests = (0..64).map(|_| gateway.get_with(ANTHROPIC, "sim-token-main"));
    let responses = futures_util::future::join_all(requests).await;

    assert!(responses.iter().all(|response| response.status() == 200));
    assert_eq!(gateway.simulator.ledger().calls(), 1);
}

#[tokio::test]
async fn each_credential_gets_its_own_account() {
    let other = Account::new("other").windows([Window::five_hour().used(5.0), Window::seven_day().used(6.0)]);
    let gateway = Setup::new([main(), other]).start().await;

    let response = gateway.get_with(ANTHROPIC, "sim-token-other").await;

    assert_eq!(percentages(&response), (Some(5.0), Some(6.0)));
}

#[tokio::test]
async fn a_credential_of_another_provider_is_unknown() {
    let gateway = Setup::new([main(), codex()]).start().await;

    assert_eq!(gateway.get_with(CODEX, "sim-token-main").await.status(), 401);
    assert_eq!(gateway.get_with(ANTHROPIC, "sim-token-work").await.status(), 401);
}

#[tokio::test]
async fn an_unknown_credential_is_refused_in_the_shape_of_the_provider() {
    let gateway = Setup::new([main(), codex()]).start().await;

    let anthropic = gateway.get_with(ANTHROPIC, "sk-ant-oat01-unknown").await;
    assert_eq!((anthropic.status(), anthropic.header("www-authenticate")), (401, Some("Bearer")));
    let body = anthropic.json();
    assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &"authentication_error".into()));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("quota accounts add anthropic/NAME") && message.contains("--adopt-presented"));
    let codex = gateway.get_with(CODEX, "sk-made-up-unknown").await;
    assert_eq!((codex.status(), &codex.json()["error"]["code"]), (401, &"invalid_credentials".into()));
    let none = gateway.get(ANTHROPIC, "").await;
    assert!(
        none.status() == 401 && none.body().contains("/account/anthropic/NAME/api/oauth/usage"),
        "{none:?}"
    );
    // The provider was asked for the configured accounts only.
    assert_eq!(gateway.simulator.ledger().unauthenticated.answered(401), 0);
}

#[tokio::test]
async fn a_named_account_needs_no_credential() {
    let gateway = Setup::new([main(), codex()]).start().await;

    let response = gateway.get("/account/anthropic/main/api/oauth/usage", "").await;
    assert_eq!(percentages(&response), (Some(62.0), Some(41.0)));
    // The other name of the provider works too.
    assert_eq!(gateway.get("/account/codex/work/backend-api/wham/usage", "").await.status(), 200);
    assert_eq!(gateway.get("/account/claude/main/api/oauth/usage?x=1", "").await.status(), 200);
}

#[tokio::test]
async fn an_unknown_name_is_not_found_and_not_repeated() {
    let gateway = Setup::new([main()]).start().await;

    for path in [
        "/account/anthropic/sk-ant-oat01-secret/api/oauth/usage",
        "/account/openai/main/api/oauth/usage",
        "/account/nothing/main/api/oauth/usage",
        "/account/anthropic/%2e%2e%2fmain/api/oauth/usage",
        "/account/anthropic/ma%0d%0ain/api/oauth/usage",
        "/account/anthropic/%ff/api/oauth/usage",
    ] {
        let response = gateway.get(path, "").await;

        assert_eq!(response.status(), 404, "{path} {response:?}");
        assert!(!response.0.contains("secret"), "{response:?}");
        assert_eq!(response.json()["type"], "error");
    }
}

#[tokio::test]
async fn only_the_owner_sees_who_the_user_is() {
    let gateway = Setup::new([codex()]).start().await;
    let by_name = "/account/openai/work/backend-api/wham/usage";
    // The simulator may name no user, so the test states one.
    let last = gateway.get_with(CODEX, "sim-token-work").await.json();
    let personal = ["email", "user_id", "account_id"];
    let has_any = |body: &serde_json::Value| personal.iter().any(|name| body.get(name).is_some());

    let anonymous = gateway.get(by_name, "").await.json();

    assert!(!has_any(&anonymous), "{anonymous}");
    assert_eq!(has_any(&gateway.get_with(by_name, "sim-token-work").await.json()), has_any(&last));
}

#[tokio::test]
async fn the_same_validator_means_not_modified() {
    let gateway = Setup::new([main()]).start().await;
    let first = gateway.get_with(ANTHROPIC, "sim-token-main").await;
    let etag = first.header("etag").unwrap();

    let headers = format!("Authorization: Bearer sim-token-main\r\nIf-None-Match: {etag}\r\n");
    let second = gateway.get(ANTHROPIC, &headers).await;

    assert_eq!((second.status(), second.body(), second.header("etag")), (304, "", Some(etag)));
    assert!(second.header("age").is_some() && second.header("cache-control").is_some());
    assert_eq!(second.header("content-type"), None);
    let other = "Authorization: Bearer sim-token-main\r\nIf-None-Match: \"other\"\r\n";
    assert_eq!(gateway.get(ANTHROPIC, other).await.status(), 200);
}

#[tokio::test]
async fn head_has_the_headers_without_a_body() {
    let gateway = Setup::new([main()]).start().await;

    let text = format!(
        "HEAD {ANTHROPIC} HTTP/1.1\r\nHost: [::1]:1\r\nConnection: close\r\nAuthorization: token sim-token-main\r\n\r\n"
    );
    let response = gateway.send(&text).await;

    assert_eq!((response.status(), response.body()), (200, ""));
    assert!(response.header("etag").is_some());
}

#[tokio::test]
async fn health_and_readiness_have_paths() {
    let gateway = Setup::new([main()]).start().await;

    for path in ["/healthz", "/readyz"] {
        let response = gateway.get(path, "").await;
        assert_eq!((response.status(), response.body()), (200, "ok\n"));
    }
}
