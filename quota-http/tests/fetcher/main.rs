//! The fetcher over a real socket: what it sends, and what it makes of every answer.
//! Parsing has its own tests beside the parsers.

// Clippy lets tests unwrap, and their helpers too if it is told that all of this is a test.
#![cfg(test)]

mod refresher;
mod server;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quota_core::{
    AccountId, Ask, AttemptId, Begin, Clock, Credential, CredentialError, CredentialSource, FetchError,
    Freshness, Identity, Lineage, Login, Mark, Policy, Record, RequestProgress, Secret, TroubleKind, Usage,
    UsageFetcher,
};
use quota_http::BuildError;
use quota_http::anthropic::{Anthropic, AnthropicBuilder};
use server::{Reply, Server, head};

const TOKEN: &str = "sk-ant-oat01-made-up";
const USAGE: &str = r#"{"five_hour":{"utilization":12.5,"resets_at":"2026-07-01T12:00:00Z"}}"#;

/// A source that has one credential at a time.
#[derive(Debug, Clone)]
struct Shelf(Arc<Mutex<Option<Credential>>>);

impl Shelf {
    fn with(credential: Credential) -> Self {
        Self(Arc::new(Mutex::new(Some(credential))))
    }

    fn put(&self, credential: Credential) {
        *self.0.lock().unwrap() = Some(credential);
    }

    fn fetcher(&self, server: &Server) -> AnthropicBuilder {
        Anthropic::builder(Arc::new(self.clone())).base_url(server.url())
    }
}

/// A source that never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl CredentialSource for Hanging {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        std::future::pending().await
    }
}

#[async_trait]
impl CredentialSource for Shelf {
    async fn credential(&self, _account: &AccountId) -> Result<Credential, CredentialError> {
        self.0.lock().unwrap().clone().ok_or(CredentialError::not_logged_in("the shelf is empty"))
    }
}

fn main_account() -> AccountId {
    "anthropic/main".parse().unwrap()
}

fn credential() -> Credential {
    Credential::new(Secret::new(TOKEN))
}

fn marked(mark: u64) -> Credential {
    credential().login(Login::of(Lineage::new("somebody")).mark(Mark::from_hash(mark)))
}

async fn fetch_from(server: &Server) -> Result<Usage, FetchError> {
    Shelf::with(credential()).fetcher(server).build().unwrap().fetch(&main_account()).await
}

/// What the fetcher makes of this reply.
async fn fetch(reply: Reply) -> Result<Usage, FetchError> {
    fetch_from(&Server::start(reply).await).await
}

/// What the fetcher sends, in lower case.
async fn request_of(build: impl FnOnce(AnthropicBuilder) -> AnthropicBuilder) -> String {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher = build(Shelf::with(credential()).fetcher(&server)).build().unwrap();
    fetcher.fetch(&main_account()).await.unwrap();
    server.asked().remove(0)
}

#[tokio::test]
async fn the_request_carries_the_token_and_the_beta() {
    let request = request_of(|builder| builder).await;

    assert!(request.starts_with("get /api/oauth/usage http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nauthorization: bearer sk-ant-oat01-made-up\r\n"), "{request}");
    assert!(request.contains("\r\nanthropic-beta: oauth-2025-04-20\r\n"), "{request}");
    assert!(request.contains("\r\naccept: application/json\r\n"), "{request}");
}

// B102
#[tokio::test]
async fn the_request_says_who_asks() {
    let request = request_of(|builder| builder).await;

    assert!(request.contains("\r\nuser-agent: quota/"), "{request}");
}

#[tokio::test]
async fn another_user_agent_is_the_users_setting() {
    let request = request_of(|builder| builder.user_agent("My-Program/1.0")).await;

    assert!(request.contains("\r\nuser-agent: my-program/1.0\r\n"), "{request}");
}

#[tokio::test]
async fn one_account_may_be_asked_about_elsewhere() {
    let elsewhere = Server::start(Reply::json(200, "", USAGE)).await;
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let builder = Shelf::with(credential()).fetcher(&server);
    let fetcher =
        builder.base_url_for(main_account(), elsewhere.url_with("http", "/proxy/")).build().unwrap();

    fetcher.fetch(&main_account()).await.unwrap();
    fetcher.fetch(&"anthropic/other".parse().unwrap()).await.unwrap();

    assert!(elsewhere.asked()[0].starts_with("get /proxy/api/oauth/usage "));
    assert_eq!((elsewhere.asked().len(), server.asked().len()), (1, 1));
}

#[tokio::test]
async fn the_usage_says_whose_it_is() {
    let server = Server::start(Reply::json(200, "anthropic-organization-id: org-1\r\n", USAGE)).await;
    let shelf = Shelf::with(marked(1).plan("max".to_owned()));

    let usage = shelf.fetcher(&server).build().unwrap().fetch(&main_account()).await.unwrap();

    assert_eq!(usage.windows.len(), 1);
    assert_eq!(usage.identity, Some(Identity::new("org-1")));
    assert_eq!((usage.lineage, usage.plan.as_deref()), (Some(Lineage::new("somebody")), Some("max")));
}

#[tokio::test]
async fn the_login_is_the_credentials() {
    let server = Server::start(Reply::HangUp).await;
    let fetcher = Shelf::with(marked(1)).fetcher(&server).build().unwrap();

    let login = fetcher.login(&main_account()).await.unwrap();

    assert_eq!(login, Login::of(Lineage::new("somebody")).mark(Mark::from_hash(1)));
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    let error = fetch(Reply::Flood(format!("{}\r\n{{", head(200, usize::MAX / 2)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_of_one_mebibyte_is_read() {
    let body = format!("{USAGE}{}", " ".repeat(1024 * 1024 - USAGE.len()));

    assert!(fetch(Reply::json(200, "", &body)).await.is_ok());
    assert!(fetch(Reply::json(200, "", &format!("{body} "))).await.is_err());
}

#[tokio::test]
async fn a_refusal_without_end_is_a_refusal() {
    let head = head(429, usize::MAX / 2);

    let error = fetch(Reply::Flood(format!("{head}retry-after: 60\r\n\r\n"))).await.unwrap_err();

    assert!(matches!(error, FetchError::Throttled { retry_after: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_that_breaks_off_is_a_refusal() {
    let error = fetch(Reply::Say(format!("{}retry-after: 60\r\n\r\n{{", head(429, 100)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Throttled { retry_after: Some(_), .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_that_stalls_is_a_refusal() {
    let error =
        fetch(Reply::Stall(format!("{}retry-after: 60\r\n\r\n{{", head(429, 100)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Throttled { retry_after: Some(_), .. }), "{error}");
}

// B09
#[tokio::test]
async fn a_provider_that_says_nothing_is_given_up() {
    assert!(matches!(fetch(Reply::Stall(String::new())).await, Err(FetchError::TimedOut)));
}

// B09
#[tokio::test]
async fn an_answer_that_stalls_is_given_up() {
    let reply = Reply::Stall(format!("{}\r\n{{", head(200, 100)));

    assert!(matches!(fetch(reply).await, Err(FetchError::TimedOut)));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure_of_the_provider() {
    let error = fetch(Reply::Say(format!("{}\r\n{{", head(200, 100)))).await.unwrap_err();

    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let thief = Server::start(Reply::json(200, "", USAGE)).await;
    let location = format!("location: {}\r\n", thief.url());

    let error = fetch(Reply::json(302, &location, "")).await.unwrap_err();

    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
    assert_eq!(thief.asked().len(), 0);
}

#[tokio::test]
async fn a_client_that_follows_redirects_brings_no_answer_of_another_host() {
    let thief = Server::start(Reply::json(200, "", USAGE)).await;
    let server = Server::start(Reply::json(302, &format!("location: {}\r\n", thief.url()), "")).await;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();

    let fetcher = Shelf::with(credential()).fetcher(&server).client(client).build().unwrap();
    let fetched = fetcher.fetch(&main_account()).await;

    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })));
    assert!(!thief.asked()[0].contains("made-up"));
}

#[tokio::test]
async fn nobody_there_is_told_without_token_and_url() {
    let url = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/prefix", gone.local_addr().unwrap()).parse().unwrap()
    };
    let fetcher = Anthropic::builder(Arc::new(Shelf::with(credential()))).base_url(url).build().unwrap();

    let error = fetcher.fetch(&main_account()).await.unwrap_err();

    let told = format!("{error} {error:?} {error:#?}");
    assert!(matches!(error, FetchError::Unavailable { source: Some(_), .. }), "{told}");
    assert!(!["made-up", "http://", "prefix"].iter().any(|secret| told.contains(secret)), "{told}");
}

/// A resolver that knows no host.
struct NoHosts;

impl reqwest::dns::Resolve for NoHosts {
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
    let client = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(NoHosts));
    let client = client.tls_backend_preconfigured(tls).build().unwrap();
    let fetcher = Anthropic::builder(Arc::new(Shelf::with(credential()))).client(client);
    let fetcher = fetcher.base_url("https://nowhere.example/secret".parse().unwrap()).build().unwrap();

    fetcher.fetch(&main_account()).await.unwrap_err()
}

#[tokio::test]
async fn a_host_that_cannot_be_resolved_is_named_once_and_without_layers() {
    let error = fetch_without_dns().await;

    assert_eq!(error.report(), "could not resolve nowhere.example");
}

#[tokio::test]
async fn a_host_that_cannot_be_resolved_is_recorded_as_unreachable() {
    let error = fetch_without_dns().await;
    let (now, policy) = (Clock::system().now(), Policy::default());
    let mut record = Record::default();
    let ask = Ask::new(AttemptId::random(), Freshness::Within(policy.freshness));
    let Begin::Granted(lease) = record.begin(now, &ask, &policy) else { panic!("no other call runs") };

    let _ = record.fail(now, &lease, &error, &policy);

    assert_eq!(record.trouble().map(|failure| failure.kind), Some(TroubleKind::Unreachable));
}

#[tokio::test]
async fn a_refused_connection_is_told_with_its_innermost_cause_alone() {
    let url = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", gone.local_addr().unwrap()).parse().unwrap()
    };
    let fetcher = Anthropic::builder(Arc::new(Shelf::with(credential()))).base_url(url).build().unwrap();

    let error = fetcher.fetch(&main_account()).await.unwrap_err();

    assert_eq!(error.report(), "could not connect to 127.0.0.1: Connection refused");
}

#[tokio::test]
async fn a_fetch_that_waits_for_its_credential_has_sent_no_request() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher = Anthropic::builder(Arc::new(Hanging)).base_url(server.url()).build().unwrap();
    let progress = RequestProgress::default();

    let account = main_account();
    let mut fetch = fetcher.fetch_tracked(&account, &progress);
    let ended = std::future::poll_fn(|context| std::task::Poll::Ready(fetch.as_mut().poll(context))).await;

    assert!(ended.is_pending() && !progress.is_sent());
}

#[tokio::test]
async fn a_fetch_that_was_answered_has_sent_its_request() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher = Shelf::with(credential()).fetcher(&server).build().unwrap();
    let progress = RequestProgress::default();

    let fetched = fetcher.fetch_tracked(&main_account(), &progress).await;

    assert!(fetched.is_ok() && progress.is_sent());
}

#[tokio::test]
async fn a_cloudflare_challenge_is_transient_and_says_so() {
    let headers = "cf-mitigated: challenge\r\nserver: cloudflare\r\n";

    let error = fetch(Reply::json(403, headers, "<html>Just a moment...</html>")).await.unwrap_err();

    assert!(error.is_transient(), "{error:?}");
    assert!(error.report().starts_with("Cloudflare blocked the request (status 403)"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_asked_once() {
    let server = Server::start(Reply::HangUp).await;

    let fetched = fetch_from(&server).await;

    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn tls_that_fails_is_no_panic_and_no_fallback() {
    let server = Server::start(Reply::HangUp).await;
    let builder = Anthropic::builder(Arc::new(Shelf::with(credential())));

    let fetcher = builder.base_url(server.url_with("https", "")).build().unwrap();
    let fetched = fetcher.fetch(&main_account()).await;

    assert!(matches!(fetched, Err(FetchError::Unavailable { .. })));
}

// B18
#[tokio::test]
async fn after_a_401_only_another_credential_is_a_new_one() {
    let server = Server::start(Reply::json(401, "", "{}")).await;
    let shelf = Shelf::with(marked(1));
    let fetcher = shelf.fetcher(&server).build().unwrap();

    let refused = fetcher.fetch(&main_account()).await;
    let renewed_at_once = fetcher.renew(&main_account()).await;
    shelf.put(marked(2));
    let renewed_later = fetcher.renew(&main_account()).await;

    assert!(matches!(refused, Err(FetchError::Unauthorized)));
    assert_eq!((renewed_at_once, renewed_later), (false, true));
}

#[tokio::test]
async fn what_was_never_sent_cannot_be_renewed() {
    let server = Server::start(Reply::HangUp).await;
    let fetcher = Shelf::with(marked(1)).fetcher(&server).build().unwrap();

    assert!(!fetcher.renew(&main_account()).await);
}

#[tokio::test]
async fn both_kinds_of_429_say_how_long_to_wait() {
    for seconds in [0, 3037] {
        let headers = format!("retry-after: {seconds}\r\n");

        let error = fetch(Reply::json(429, &headers, "{}")).await.unwrap_err();

        let FetchError::Throttled { retry_after, .. } = error else { panic!("{error}") };
        assert_eq!(retry_after, Some(Duration::from_secs(seconds)));
    }
}

// B17
#[tokio::test]
async fn a_refused_organization_is_a_matter_of_policy() {
    let body =
        r#"{"error":{"type":"permission_error","message":"currently not allowed for this organization."}}"#;

    let error = fetch(Reply::json(403, "", body)).await.unwrap_err();

    assert!(matches!(error, FetchError::Forbidden { .. }), "{error}");
    assert!(error.to_string().contains("organization's policy"), "{error}");
}

// B29
#[tokio::test]
async fn a_page_instead_of_an_answer_is_told_by_kind_and_length() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html>secret!";

    let error = fetch(Reply::Say(page.into())).await.unwrap_err();

    assert!(matches!(error, FetchError::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("text/html, 13 bytes"), "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}

// B30
#[tokio::test]
async fn an_answer_that_says_nothing_is_malformed() {
    let nothing = [
        "",
        "{}",
        "[]",
        r#"{"cedar_ember":{}}"#,
        r#"{"five_hour":null}"#,
        r#"{"five_hour":{"utilization":"x"}}"#,
    ];
    for body in nothing {
        // A plan that only the credential tells does not make it an answer.
        let server = Server::start(Reply::json(200, "", body)).await;
        let fetcher = Shelf::with(credential().plan("max".to_owned())).fetcher(&server).build().unwrap();

        let fetched = fetcher.fetch(&main_account()).await;

        assert!(matches!(fetched, Err(FetchError::Malformed { .. })), "{body}");
    }
}

#[tokio::test]
async fn an_expired_credential_is_not_sent() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let clock = Clock::anchored("2026-07-01T12:00:00Z".parse().unwrap());
    let shelf = Shelf::with(credential().expires_at("2026-07-01T11:58:59Z".parse().ok()));

    let fetched = shelf.fetcher(&server).clock(clock).build().unwrap().fetch(&main_account()).await;

    assert!(matches!(fetched, Err(FetchError::NotLoggedIn { .. })));
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test]
async fn a_credential_that_expired_within_the_minute_is_still_tried() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let clock = Clock::anchored("2026-07-01T12:00:00Z".parse().unwrap());
    let shelf = Shelf::with(credential().expires_at("2026-07-01T11:59:30Z".parse().ok()));

    assert!(shelf.fetcher(&server).clock(clock).build().unwrap().fetch(&main_account()).await.is_ok());
}

#[tokio::test]
async fn without_a_credential_nobody_is_asked() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;

    let fetched = Shelf(Arc::default()).fetcher(&server).build().unwrap().fetch(&main_account()).await;

    assert!(matches!(fetched, Err(FetchError::NotLoggedIn { .. })));
    assert_eq!(server.asked().len(), 0);
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_not_sent_and_not_repeated() {
    for token in ["", " ", "made\r\nx-injected: up"] {
        let server = Server::start(Reply::json(200, "", USAGE)).await;
        let shelf = Shelf::with(Credential::new(Secret::new(token)));

        let error = shelf.fetcher(&server).build().unwrap().fetch(&main_account()).await.unwrap_err();

        assert!(matches!(error, FetchError::NotLoggedIn { .. }), "{error}");
        assert!(!format!("{error:?}").contains("injected"));
        assert_eq!(server.asked().len(), 0);
    }
}

#[tokio::test]
async fn another_providers_token_is_never_sent_here() {
    let server = Server::start(Reply::json(200, "", USAGE)).await;
    let fetcher = Shelf::with(credential()).fetcher(&server).build().unwrap();

    let fetched = fetcher.fetch(&"openai/main".parse().unwrap()).await;

    assert!(matches!(fetched, Err(FetchError::NotLoggedIn { .. })));
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let builder = || Anthropic::builder(Arc::new(Shelf::with(credential())));
    let url = |text: &str| text.parse().unwrap();
    let foreign: AccountId = "openai/main".parse().unwrap();

    assert_eq!(builder().user_agent("").build().err(), Some(BuildError::UserAgent));
    assert_eq!(builder().base_url(url("http://example.com")).build().err(), Some(BuildError::Insecure));
    let refused = builder().base_url_for(main_account(), url("https://a:b@example.com")).build();
    assert_eq!(refused.err(), Some(BuildError::UserInfo));
    let refused = builder().base_url_for(foreign, url("https://example.com")).build();
    assert!(matches!(refused.err(), Some(BuildError::ForeignAccount { .. })));
}

#[test]
fn debug_shows_neither_token_nor_password() {
    let url = "https://me:hunter2@example.com".parse().unwrap();
    let builder = Anthropic::builder(Arc::new(Shelf::with(credential())));

    let shown = format!("{:?} {:?}", builder.clone().base_url(url), builder.build().unwrap());

    assert!(!shown.contains("hunter2") && !shown.contains("made-up"), "{shown}");
}

#[test]
fn what_stays_on_this_machine_passes_no_proxy() {
    let another = "the_request_carries_the_token_and_the_beta";
    let dead = "http://127.0.0.1:9";

    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", another])
        .envs([("http_proxy", dead), ("HTTP_PROXY", dead), ("all_proxy", dead), ("ALL_PROXY", dead)])
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .output()
        .unwrap();

    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
}
