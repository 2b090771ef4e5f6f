//! The page at `/`, without a browser: its answer, its headers, its escapes, and who may read it.

use quota_server::AccessTokens;
use quota_sim::Account;

use crate::support::{Setup, main};

const TOKEN: &str = "0123456789abcdef";

fn accounts() -> Setup {
    Setup::new([Account::new("main"), Account::new("work")])
}

/// `any:0123456789abcdef` as a browser sends it.
const BASIC: &str = "Authorization: Basic YW55OjAxMjM0NTY3ODlhYmNkZWY=\r\n";

fn tokens(role: &str) -> AccessTokens {
    AccessTokens::parse(&format!("{role} {TOKEN}")).unwrap()
}

#[tokio::test]
async fn the_page_names_the_account_to_use() {
    let running = accounts().start().await;
    let _ = running.main().refresh().await.unwrap();

    let page = running.get("/", "").await;

    assert_eq!(page.status(), 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body().contains(">anthropic/main</a></h1>"), "{}", page.body());
    assert!(page.body().contains("5-hour"), "{}", page.body());
}

#[tokio::test]
async fn the_page_may_load_only_its_own_files() {
    let running = accounts().start().await;

    let page = running.get("/", "").await;

    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(!page.body().contains("http://") && !page.body().contains("https://"), "{}", page.body());
    assert!(!page.body().contains(" style=") && !page.body().contains("<style"), "{}", page.body());
}

#[tokio::test]
async fn a_file_has_the_hash_of_its_content_in_its_path() {
    let running = accounts().start().await;
    let page = running.get("/", "").await;
    for start in ["/assets/dashboard-", "/assets/icon-"] {
        let at = page.body().find(start).unwrap();
        let path = page.body()[at..].split('"').next().unwrap();

        let file = running.get(path, "").await;

        assert_eq!(file.status(), 200, "{path}");
        let etag = file.header("etag").unwrap();
        assert!(path.contains(etag.trim_matches('"')), "{path} {etag}");
        assert!(file.header("cache-control").unwrap().contains("immutable"));
        let again = running.get(path, &format!("If-None-Match: {etag}\r\n")).await;
        assert_eq!((again.status(), again.body()), (304, ""), "{path}");
    }
    assert_eq!(running.get("/assets/dashboard-0000000000000000.js", "").await.status(), 404);
}

#[tokio::test]
async fn times_are_in_the_zone_of_the_reader() {
    let running = accounts().start().await;

    let asked = running.get("/?zone=Asia%2FKolkata", "").await;
    assert!(asked.body().contains("Times in Asia/Kolkata"), "{}", asked.body());
    for hostile in ["..%2F..%2Fetc%2Fpasswd", "%3Cscript%3E", "%00", ""] {
        let page = running.get(&format!("/?zone={hostile}"), "").await;
        assert_eq!(page.status(), 200, "{hostile}");
        assert!(!page.body().contains("<script>") && !page.body().contains("passwd"), "{hostile}");
    }
}

#[tokio::test]
async fn a_browser_presents_a_token_as_the_password() {
    let running = accounts().configure(|gateway, _| gateway.tokens(tokens("read"))).start().await;

    let refused = running.get("/", "").await;
    assert_eq!(refused.status(), 401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic realm="));
    assert_eq!(running.get("/", BASIC).await.status(), 200);
    assert_eq!(running.get("/v1/accounts", BASIC).await.status(), 200);
    assert_eq!(running.get_with("/", TOKEN).await.status(), 200);
    for wrong in ["YW55OjAxMjM0NTY3ODlhYmNkZWc=", "YW55", "!", ""] {
        assert_eq!(
            running.get("/", &format!("Authorization: Basic {wrong}\r\n")).await.status(),
            401,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_password_permits_no_change() {
    let running = accounts().configure(|gateway, _| gateway.tokens(tokens("operate"))).start().await;
    let post = |headers: &str| {
        format!(
            "POST /v1/accounts/anthropic/main/refresh HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        )
    };

    assert_eq!(running.send(&post(BASIC)).await.status(), 401);
    assert_eq!(running.send(&post(&format!("Authorization: Bearer {TOKEN}\r\n"))).await.status(), 200);
}

#[tokio::test]
async fn a_page_of_another_host_is_refused() {
    let running = accounts().start().await;

    let rebound = running.send("GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!(rebound.status(), 421);
    assert_eq!(running.get("/", "Origin: https://evil.example\r\n").await.status(), 403);
}

#[tokio::test]
async fn the_page_contains_no_credential() {
    let running = accounts().start().await;
    let _ = running.manager.account(&main()).refresh().await;

    let page = running.get("/", "").await;

    for account in [Account::new("main"), Account::new("work")] {
        assert!(!page.body().contains(&*account.token()), "{}", account.name());
    }
}
