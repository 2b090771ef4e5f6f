//! Tests of the fetcher over a real socket: its requests, and the result for each kind of response. The parsers have their own
//! tests.

// Lets clippy accept `unwrap` in helpers.
#![cfg(test)]

mod refresher;
mod second_request;
mod server;

use std::sync::Arc;
use std::time::Duration;

use quota_core::model::{OwnerId, RequestId};
use quota_core::record::{LastFailureKind, LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota_core::{AccountId, Clock, Credential, FetchError, Policy, Secret, UsageFetcher, UsageReport};
use quota_http::BuildError;
use quota_http::{Fetcher, FetcherBuilder, anthropic};
use server::{Reply, Server, head};

const TOKEN: &str = "sk-ant-oat01-made-up";
const USAGE: &str = r#"{"five_hour":{"utilization":12.5,"resets_at":"2026-07-01T12:00:00Z"}}"#;

fn fetcher(server: &Server) -> FetcherBuilder {
    Fetcher::builder(&anthropic::PROVIDER).base_url(server.url())
}

fn main_account() -> AccountId {
    "anthropic/main".parse().unwrap()
}

fn credential() -> Credential {
    Credential::new(Secret::new(TOKEN))
}

async fn fetch_from(server: &Server) -> Result<UsageReport, FetchError> {
    fetcher(server).build().unwrap().fetch(&main_account(), &credential()).await
}

/// Fetches from a server that sends this reply.
async fn fetch(reply: Reply) -> Result<UsageReport, FetchError> {
    fetch_from(&Server::start(reply).await).await
}

/// The request that the fetcher sends, in lower case.
async fn request_of(build: impl FnOnce(FetcherBuilder) -> FetcherBuilder) -> String {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher = build(fetcher(&server)).build().unwrap();
    fetcher.fetch(&main_account(), &credential()).await.unwrap();
    server.requests().remove(0)
}

#[tokio::test]
async fn the_request_has_the_token_and_the_beta_header() {
    let request = request_of(|builder| builder).await;

    assert!(request.starts_with("get /api/oauth/usage http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nauthorization: bearer sk-ant-oat01-made-up\r\n"), "{request}");
    assert!(request.contains("\r\nanthropic-beta: oauth-2025-04-20\r\n"), "{request}");
    assert!(request.contains("\r\naccept: application/json\r\n"), "{request}");
}

#[tokio::test]
async fn the_request_has_a_user_agent() {
    let request = request_of(|builder| builder).await;

    assert!(request.contains("\r\nuser-agent: quota/"), "{request}");
}

#[tokio::test]
async fn the_user_agent_can_be_set() {
    let request = request_of(|builder| builder.user_agent("My-Program/1.0")).await;

    assert!(request.contains("\r\nuser-agent: my-program/1.0\r\n"), "{request}");
}

#[tokio::test]
async fn a_query_can_be_set() {
    let request = request_of(|builder| builder.query("type", "2&3").query("b", "c")).await;

    assert!(request.starts_with("get /api/oauth/usage?type=2%263&b=c http/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn one_account_may_have_its_own_headers_and_query() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let account = main_account;
    let builder = fetcher(&server).header("x-team", "all").query("a", "1");
    let fetcher =
        builder.header_for(account(), "x-team", "own").query_for(account(), "b", "2").build().unwrap();

    fetcher.fetch(&account(), &credential()).await.unwrap();
    fetcher.fetch(&"anthropic/other".parse().unwrap(), &credential()).await.unwrap();

    let requests = server.requests();
    let is_own = |request: &str| (request.contains("x-team: own\r\n"), request.contains("usage?a=1&b=2 "));
    assert_eq!((is_own(&requests[0]), is_own(&requests[1])), ((true, true), (false, false)), "{requests:?}");
    assert!(!requests[0].contains("x-team: all"), "{requests:?}");
}

#[tokio::test]
async fn one_account_may_have_its_own_base_url() {
    let elsewhere = Server::start(Reply::json(200, "", USAGE)).await;
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher =
        fetcher(&server).base_url_for(main_account(), elsewhere.url_with("http", "/proxy/")).build().unwrap();

    fetcher.fetch(&main_account(), &credential()).await.unwrap();
    fetcher.fetch(&"anthropic/other".parse().unwrap(), &credential()).await.unwrap();

    assert!(elsewhere.requests()[0].starts_with("get /proxy/api/oauth/usage "));
    assert_eq!((elsewhere.requests().len(), server.requests().len()), (1, 1));
}

#[tokio::test]
async fn the_usage_has_its_owner() {
    let server = Server::start(Reply::json(200, "anthropic-organization-id: org-1\r\n", USAGE)).await;

    let usage = fetch_from(&server).await.unwrap();

    assert_eq!(usage.windows.len(), 1);
    assert_eq!(usage.owner_id, Some(OwnerId::new("org-1")));
}

#[tokio::test]
async fn an_endless_response_is_malformed() {
    let error = fetch(Reply::Flood(format!("{}\r\n{{", head(200, usize::MAX / 2)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn a_response_of_one_mebibyte_is_read() {
    let body = format!("{USAGE}{}", " ".repeat(1024 * 1024 - USAGE.len()));

    assert!(fetch(Reply::json(200, "", &body)).await.is_ok());
    assert!(fetch(Reply::json(200, "", &format!("{body} "))).await.is_err());
}

#[tokio::test]
async fn an_endless_429_is_throttled() {
    let head = head(429, usize::MAX / 2);

    let error = fetch(Reply::Flood(format!("{head}retry-after: 60\r\n\r\n"))).await.unwrap_err();

    assert!(matches!(error, FetchError::Throttled { retry_after: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_truncated_429_is_throttled() {
    let error = fetch(Reply::Send(format!("{}retry-after: 60\r\n\r\n{{", head(429, 100)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Throttled { retry_after: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_stalled_429_is_throttled() {
    let error =
        fetch(Reply::Stall(format!("{}retry-after: 60\r\n\r\n{{", head(429, 100)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Throttled { retry_after: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_silent_provider_times_out() {
    assert!(matches!(fetch(Reply::Stall(String::new())).await, Err(FetchError::TimedOut)));
}

#[tokio::test]
async fn a_stalled_response_times_out() {
    let reply = Reply::Stall(format!("{}\r\n{{", head(200, 100)));

    assert!(matches!(fetch(reply).await, Err(FetchError::TimedOut)));
}

#[tokio::test]
async fn a_truncated_response_is_unavailable() {
    let error = fetch(Reply::Send(format!("{}\r\n{{", head(200, 100)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other_host = Server::start(Reply::json(200, "", USAGE)).await;
    let location = format!("location: {}\r\n", other_host.url());

    let error = fetch(Reply::json(302, &location, "")).await.unwrap_err();

    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    assert_eq!(other_host.requests().len(), 0);
}

#[tokio::test]
async fn a_defined_provider_sends_no_token_to_a_redirect() {
    let other_host = Server::start(Reply::json(200, "", USAGE)).await;
    let location = format!("location: {}\r\n", other_host.url());
    let server = Server::start(Reply::json(307, &location, "")).await;
    let mut definition = quota_http::ProviderDefinition::new("made-up");
    definition.url = Some(server.url().join("v1/usage/?a=b").unwrap());
    let mut window = quota_http::shape::WindowShape::default();
    window.id = Some("w".parse().unwrap());
    window.used = Some("$.used".parse().unwrap());
    definition.shape.windows.push(window);

    let fetcher = Fetcher::new(definition.provider().unwrap());
    let error = fetcher.fetch(&"made-up/main".parse().unwrap(), &credential()).await.unwrap_err();

    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    assert!(server.requests()[0].starts_with("get /v1/usage/?a=b http/1.1\r\n"), "{:?}", server.requests());
    assert!(server.requests()[0].contains("authorization: bearer sk-ant-oat01-made-up"));
    assert_eq!(other_host.requests().len(), 0);
}

#[tokio::test]
async fn a_response_of_another_host_is_rejected() {
    let other_host = Server::start(Reply::json(200, "", USAGE)).await;
    let server = Server::start(Reply::json(302, &format!("location: {}\r\n", other_host.url()), "")).await;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();

    let fetcher = fetcher(&server).client(client).build().unwrap();
    let fetched = fetcher.fetch(&main_account(), &credential()).await;

    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })));
    assert!(!other_host.requests()[0].contains("made-up"));
}

#[tokio::test]
async fn a_refused_connection_error_contains_no_token_and_no_url() {
    let url = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/prefix", gone.local_addr().unwrap()).parse().unwrap()
    };
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(url).build().unwrap();

    let error = fetcher.fetch(&main_account(), &credential()).await.unwrap_err();

    let shown = format!("{error} {error:?} {error:#?}");
    assert!(matches!(error, FetchError::Unavailable { source: Some(_), .. }), "{shown}");
    assert!(!["made-up", "http://", "prefix"].iter().any(|secret| shown.contains(secret)), "{shown}");
}

/// A resolver that finds no host.
struct EmptyResolver;

impl reqwest::dns::Resolve for EmptyResolver {
    fn resolve(&self, _name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        Box::pin(async { Err(std::io::Error::other("Name or service not known").into()) })
    }
}

/// The error of a fetch from a host without an address.
async fn fetch_without_dns() -> FetchError {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(EmptyResolver));
    let client = client.tls_backend_preconfigured(tls).build().unwrap();
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).client(client);
    let fetcher = fetcher.base_url("https://nowhere.example/secret".parse().unwrap()).build().unwrap();

    fetcher.fetch(&main_account(), &credential()).await.unwrap_err()
}

#[tokio::test]
async fn a_dns_failure_names_the_host_once() {
    let error = fetch_without_dns().await;

    assert_eq!(error.report(), "could not resolve nowhere.example");
}

#[tokio::test]
async fn a_dns_failure_is_recorded_as_unreachable() {
    let error = fetch_without_dns().await;
    let (now, policy) = (Clock::system().now(), Policy::default());
    let mut record = Record::default();
    let ask = LeaseRequest::new(RequestId::random(), MaxStaleness::Age(policy.max_age));
    let LeaseDecision::Granted(lease) = record.begin(now, &ask, &policy) else {
        panic!("no other call is in progress")
    };

    let _ = record.fail(now, &lease, &error, &policy);

    assert_eq!(record.last_failure().map(|failure| failure.kind), Some(LastFailureKind::Unreachable));
}

#[tokio::test]
async fn a_refused_connection_reports_the_innermost_cause() {
    let url = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", gone.local_addr().unwrap()).parse().unwrap()
    };
    let fetcher = Fetcher::builder(&anthropic::PROVIDER).base_url(url).build().unwrap();

    let error = fetcher.fetch(&main_account(), &credential()).await.unwrap_err();

    assert_eq!(error.report(), "could not connect to 127.0.0.1: Connection refused");
}

#[tokio::test]
async fn a_cloudflare_challenge_is_transient() {
    let headers = "cf-mitigated: challenge\r\nserver: cloudflare\r\n";

    let error = fetch(Reply::json(403, headers, "<html>Just a moment...</html>")).await.unwrap_err();

    assert!(error.is_transient(), "{error:?}");
    assert!(error.report().starts_with("Cloudflare blocked the request (status 403)"), "{error}");
}

#[tokio::test]
async fn a_closed_connection_is_not_retried() {
    let server = Server::start(Reply::HangUp).await;

    let fetched = fetch_from(&server).await;

    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_tls_failure_is_unavailable() {
    let server = Server::start(Reply::HangUp).await;
    let builder = Fetcher::builder(&anthropic::PROVIDER);

    let fetcher = builder.base_url(server.url_with("https", "")).build().unwrap();
    let fetched = fetcher.fetch(&main_account(), &credential()).await;

    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })));
}

#[tokio::test]
async fn a_429_keeps_retry_after() {
    for seconds in [0, 3037] {
        let headers = format!("retry-after: {seconds}\r\n");

        let error = fetch(Reply::json(429, &headers, "{}")).await.unwrap_err();

        let FetchError::Throttled { retry_after, .. } = error else { panic!("{error}") };
        assert_eq!(retry_after, Some(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn a_403_for_an_organization_names_its_policy() {
    let body =
        r#"{"error":{"type":"permission_error","message":"currently not allowed for this organization."}}"#;

    let error = fetch(Reply::json(403, "", body)).await.unwrap_err();

    assert!(matches!(error, FetchError::Forbidden { .. }), "{error}");
    assert!(error.to_string().contains("organization's policy"), "{error}");
}

#[tokio::test]
async fn an_html_page_is_described_by_type_and_length() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html>secret!";

    let error = fetch(Reply::Send(page.into())).await.unwrap_err();

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("text/html, 13 bytes"), "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn a_response_without_usage_is_malformed() {
    let bodies = [
        "",
        "{}",
        "[]",
        r#"{"cedar_ember":{}}"#,
        r#"{"five_hour":null}"#,
        r#"{"five_hour":{"utilization":"x"}}"#,
    ];
    for body in bodies {
        // The credential's plan alone does not count as usage.
        let server = Server::start(Reply::json(200, "", body)).await;
        let credential = credential().plan("max".to_owned());

        let fetched = fetcher(&server).build().unwrap().fetch(&main_account(), &credential).await;

        assert!(matches!(fetched, Err(FetchError::Malformed { .. })), "{body}");
    }
}

#[tokio::test]
async fn an_expired_credential_is_not_sent() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let clock = Clock::virtual_at("2026-07-01T12:00:00Z".parse().unwrap());
    let credential = credential().expires_at("2026-07-01T11:58:59Z".parse().ok());

    let fetched = fetcher(&server).clock(clock).build().unwrap().fetch(&main_account(), &credential).await;

    assert!(matches!(fetched, Err(FetchError::NotLoggedIn { .. })));
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_credential_expired_for_under_a_minute_is_sent() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let clock = Clock::virtual_at("2026-07-01T12:00:00Z".parse().unwrap());
    let credential = credential().expires_at("2026-07-01T11:59:30Z".parse().ok());

    assert!(fetcher(&server).clock(clock).build().unwrap().fetch(&main_account(), &credential).await.is_ok());
}

#[tokio::test]
async fn without_a_credential_no_request_is_sent() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;

    let fetched = fetcher(&server).build().unwrap().fetch(&main_account(), &Credential::none()).await;

    assert!(matches!(fetched, Err(FetchError::NotLoggedIn { .. })));
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn an_invalid_token_is_neither_sent_nor_repeated() {
    for token in ["", " ", "made\r\nx-injected: up"] {
        let server = Server::start(Reply::json(200, "", USAGE)).await;
        let credential = Credential::new(Secret::new(token));

        let error = fetcher(&server).build().unwrap().fetch(&main_account(), &credential).await.unwrap_err();

        assert!(matches!(error, FetchError::NotLoggedIn { .. }), "{error}");
        assert!(!format!("{error:?}").contains("injected"));
        assert_eq!(server.requests().len(), 0);
    }
}

#[tokio::test]
async fn another_providers_account_is_rejected() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher = fetcher(&server).build().unwrap();

    let fetched = fetcher.fetch(&"openai/main".parse().unwrap(), &credential()).await;

    assert!(matches!(fetched, Err(FetchError::NotLoggedIn { .. })));
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn invalid_settings_are_rejected() {
    let builder = || Fetcher::builder(&anthropic::PROVIDER);
    let url = |text: &str| text.parse().unwrap();
    let foreign: AccountId = "openai/main".parse().unwrap();

    assert_eq!(builder().user_agent("").build().err(), Some(BuildError::UserAgent));
    assert_eq!(builder().base_url(url("http://example.com")).build().err(), Some(BuildError::Insecure));
    let result = builder().base_url_for(main_account(), url("https://a:b@example.com")).build();
    assert_eq!(result.err(), Some(BuildError::UserInfo));
    let result = builder().base_url_for(foreign, url("https://example.com")).build();
    assert!(matches!(result.err(), Some(BuildError::ForeignAccount { .. })));
}

#[test]
fn headers_that_quota_controls_are_rejected() {
    for name in ["Authorization", "cookie", "host", "User-Agent", "content-length", "transfer-encoding"] {
        let error = Fetcher::builder(&anthropic::PROVIDER).header(name, "n33dle").build().unwrap_err();

        assert_eq!(error, BuildError::ReservedHeader { name: name.to_lowercase() });
        let shown = error.to_string();
        assert!(shown.contains("remove it") && !shown.contains("n33dle") && !shown.contains('\n'), "{shown}");
    }
}

#[test]
fn debug_shows_neither_token_nor_password() {
    let url = "https://me:hunter2@example.com".parse().unwrap();
    let builder = Fetcher::builder(&anthropic::PROVIDER);

    let shown = format!("{:?} {:?}", builder.clone().base_url(url), builder.build().unwrap());

    assert!(!shown.contains("hunter2") && !shown.contains("made-up"), "{shown}");
}

#[test]
fn loopback_requests_bypass_the_proxy() {
    let test = "the_request_has_the_token_and_the_beta_header";
    let unreachable = "http://127.0.0.1:9";

    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .envs([
            ("http_proxy", unreachable),
            ("HTTP_PROXY", unreachable),
            ("all_proxy", unreachable),
            ("ALL_PROXY", unreachable),
        ])
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .unwrap();

    let shown = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && shown.contains("1 passed"), "{shown}");
}
