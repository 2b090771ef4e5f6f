//! A provider that needs an optional second request: what the result has if the second one fails.

use std::time::Duration;

use quota_core::model::{Coverage, Throttled};
use quota_core::{Credential, FetchError, Secret, UsageFetcher, UsageReport, WindowId};
use quota_http::{Fetcher, Provider, UsageRequest, anthropic};

use super::server::{Reply, Server, head};
use super::{TOKEN, USAGE};

static PROVIDER: Provider = Provider::new("two", "Two", request, |body, _| anthropic::parse_usage(body))
    .second_request(|credential, _| {
        Ok(Some(UsageRequest::get("credits").bearer(&credential.secret).optional()))
    });

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("usage").bearer(&credential.secret)
}

async fn fetch_from(server: &Server) -> Result<UsageReport, FetchError> {
    let fetcher = Fetcher::builder(&PROVIDER).base_url(server.url()).build().unwrap();
    fetcher.fetch(&"two/main".parse().unwrap(), &Credential::new(Secret::new(TOKEN))).await
}

/// Fetches with a good first response and this second one.
async fn fetch(second: Reply) -> Result<UsageReport, FetchError> {
    fetch_from(&Server::start_with(Reply::json(200, "", USAGE), second).await).await
}

#[tokio::test]
async fn a_failed_optional_request_leaves_the_first_response() {
    let page = "<html>";
    let cloudflare = format!("{}cf-mitigated: challenge\r\n\r\n{page}", head(403, page.len()));
    for second in [
        Reply::json(401, "", "{}"),
        Reply::json(403, "", "{}"),
        Reply::json(404, "", "{}"),
        Reply::Send(cloudflare),
        Reply::json(503, "", "{}"),
        Reply::HangUp,
    ] {
        let usage = fetch(second.clone()).await.unwrap();

        assert_eq!(usage.windows[0].id, WindowId::five_hour(), "{second:?}");
        assert_eq!(usage.coverage, Coverage::Reported, "{second:?}");
    }
}

#[tokio::test]
async fn a_throttled_optional_request_leaves_the_first_response_and_a_hold() {
    let usage = fetch(Reply::json(429, "retry-after: 60\r\n", "{}")).await.unwrap();

    assert_eq!(usage.windows[0].id, WindowId::five_hour());
    assert_eq!(usage.throttled, Some(Throttled::new(Some(Duration::from_secs(60)))));
}

#[tokio::test]
async fn a_stalled_optional_request_leaves_the_first_response() {
    let server = Server::start_with(Reply::json(200, "", USAGE), Reply::Stall(head(200, 9))).await;
    let timeout = Duration::from_secs(4);
    let fetcher = Fetcher::builder(&PROVIDER).base_url(server.url()).timeout(timeout).build().unwrap();
    let (account, credential) = ("two/main".parse().unwrap(), Credential::new(Secret::new(TOKEN)));

    let usage = fetcher.fetch(&account, &credential).await.unwrap();

    assert_eq!((usage.windows.len(), usage.coverage), (1, Coverage::Reported));
}

#[tokio::test]
async fn without_readings_of_the_first_response_the_failure_counts() {
    let second = Reply::json(429, "", "{}");
    let server = Server::start_with(Reply::json(200, "", r#"{"plan":null}"#), second).await;

    let fetched = fetch_from(&server).await;

    assert!(matches!(fetched, Err(FetchError::Throttled { .. })), "{fetched:?}");
}

#[tokio::test]
async fn the_reports_of_two_requests_are_joined() {
    let key = Reply::json(200, "", r#"{"info":{"user_id":"u 1","spend":1,"max_budget":4}}"#);
    let user = Reply::json(200, "", r#"{"user_info":{"spend":1,"max_budget":2}}"#);
    let server = Server::start_with(key, user).await;
    let fetcher = Fetcher::builder(&quota_http::litellm::PROVIDER).base_url(server.url()).build().unwrap();
    let credential = Credential::new(Secret::new(TOKEN));

    let usage = fetcher.fetch(&"litellm/main".parse().unwrap(), &credential).await.unwrap();

    let windows: Vec<_> = usage.windows.iter().map(|window| window.id.to_string()).collect();
    assert_eq!(windows, ["key_budget", "user_budget"]);
    let requests = server.requests();
    assert!(requests[1].starts_with("get /user/info?user_id=u+1 "), "{}", requests[1]);
}
