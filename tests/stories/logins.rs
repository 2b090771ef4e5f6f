//! The login file changes while a program runs, and readings never mix between logins.

use std::fs;
use std::path::Path;
use std::time::Duration;

use quota::credentials::ClaudeCode;
use quota::policy::{CooldownPolicy, CooldownScope};
use quota::record::LastFailureKind;
use quota::{FetchError, QuotaError, anthropic};
use quota_sim::{Answer, Change};

use crate::fixture::*;

/// Writes the files that Claude Code writes when a user logs in.
fn log_in(folder: &Path, token: &str, user: &str) {
    let login = format!(
        r#"{{"claudeAiOauth":{{"accessToken":"{token}","refreshToken":"sim-refresh","expiresAt":4102444800000,"scopes":["user:profile"]}}}}"#
    );
    let state =
        format!(r#"{{"oauthAccount":{{"accountUuid":"user-{user}","organizationUuid":"org-{user}"}}}}"#);
    fs::write(folder.join(".claude.json"), state).unwrap();
    fs::write(folder.join(".credentials.json"), login).unwrap();
}

#[tokio::test]
async fn a_new_login_in_a_file_never_shows_readings_of_the_previous_one() {
    let home = tempfile::tempdir().unwrap();
    let first = account("first").with_organization("org-first");
    let second = account("second")
        .with_organization("org-second")
        .windows([quota_sim::Window::five_hour().used(81.0)]);
    let simulator = provider([first, second]).await;
    log_in(home.path(), "sim-token-first", "first");
    let own_cooldown = CooldownPolicy::new(Duration::ZERO, CooldownScope::Account);
    let quota = single_process(&simulator, login_in(home.path()), policy().cooldown(own_cooldown));
    let main = quota.account(&id("main"));
    let before = five_hours(&main.get().await.unwrap());
    simulator.set("first", Change::answer(Answer::ThrottleZero)).unwrap();
    drop(main.refresh().await);

    log_in(home.path(), "sim-token-second", "second");
    let after = main.refresh().await.unwrap();

    assert_eq!((before, five_hours(&after.usage)), (Some(30.0), Some(81.0)));
    assert_eq!(simulator.stop().await.account("second").unwrap().calls, 1);
}

#[tokio::test]
async fn a_token_renewed_by_its_owner_is_used_by_the_same_refresh() {
    // The provider rejects the old token, and the file already has a new one.
    let home = tempfile::tempdir().unwrap();
    let simulator = provider([account("main").with_token("sim-token-new")]).await;
    log_in(home.path(), "sim-token-old", "main");
    let quota = single_process(&simulator, login_in(home.path()), policy());
    let main = quota.account(&id("main"));
    let refused = main.get().await.unwrap_err();

    log_in(home.path(), "sim-token-new", "main");
    // `get` checks a rejected credential once a second.
    let answer = main.refresh().await.unwrap().usage;

    assert!(matches!(refused, QuotaError::Fetch { error: FetchError::Unauthorized, .. }), "{refused}");
    assert_eq!((five_hours(&answer), answer.last_failure()), (Some(30.0), None));
}

#[tokio::test]
async fn a_rejected_login_is_called_once_and_reported() {
    let simulator = provider([account("main")]).await;
    simulator.set("main", Change::answer(Answer::Unauthorized)).unwrap();
    let quota = single_process(&simulator, tokens(["main"]), policy());
    let main = quota.account(&id("main"));

    for _ in 0..10 {
        drop(main.get().await);
    }

    assert_eq!(main.peek().last_failure().unwrap().kind, LastFailureKind::Unauthorized);
    assert_eq!(main.peek().hold(), None);
    assert_eq!(simulator.stop().await.calls(), 1);
}

#[tokio::test]
async fn an_emptied_login_file_hides_readings_until_the_next_login() {
    let home = tempfile::tempdir().unwrap();
    let simulator = provider([account("main")]).await;
    log_in(home.path(), "sim-token-main", "main");
    let quota = single_process(&simulator, login_in(home.path()), policy());
    let main = quota.account(&id("main"));
    drop(main.get().await.unwrap());

    log_in(home.path(), "", "main");
    let error = main.refresh().await.unwrap_err();
    let hidden = main.peek().snapshot().is_empty();
    log_in(home.path(), "sim-token-main", "main");
    // `get` checks an account that is not logged in once a second.
    let back = main.refresh().await.unwrap().usage;

    assert!(matches!(error, QuotaError::Fetch { error: FetchError::NotLoggedIn { .. }, .. }), "{error}");
    assert_eq!((hidden, five_hours(&back)), (true, Some(30.0)));
}

#[tokio::test]
async fn the_anthropic_parser_reads_the_usage_that_claude_code_cached() {
    let home = tempfile::tempdir().unwrap();
    let state_file = r#"{
        "oauthAccount": { "accountUuid": "user-a", "organizationUuid": "org-a" },
        "cachedUsageUtilization": { "fetchedAtMs": 1782907200000, "accountUuid": "user-a",
            "utilization": { "five_hour": { "utilization": 26 } } }
    }"#;
    fs::write(home.path().join(".claude.json"), state_file).unwrap();
    let source = ClaudeCode::in_dir(home.path());

    let unparsed = source.cached_usage().await.unwrap();
    let cached = anthropic::parse_claude_json(&unparsed.state_file).unwrap();

    assert!(unparsed.login_id.is_some());
    assert_eq!(cached.account.as_deref(), Some("user-a"));
    assert_eq!(cached.parsed.usage.windows[0].used.basis_points(), 2600);
}
