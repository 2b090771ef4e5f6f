//! Real processes renew owned logins, and one of them may be killed at any step.
//!
//! The refresh tokens of the provider work once, and its ledger counts reuses. Each reuse is a lost login.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use quota::credentials::{ClaudeCode, NewLogin, TokenStore};
use quota::policy::Backoff;
use quota::{Clock, CredentialSource, Secret, anthropic};
use quota_sim::{Account, AccountLedger, Change, Simulator};
use redis_harness::Server;
use tempfile::TempDir;

use crate::fixture::*;

/// A process that resolves its credential. Dropping it kills the process.
struct Renewer {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Renewer {
    fn start(file: &Path, simulator: &Simulator, store: &str, how: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_renewer"))
            .arg(file)
            .args([simulator.url().as_str(), store, how])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        let lines = BufReader::new(child.stdout.take().expect("the stream is piped"));
        let mut renewer = Self { child, lines };
        assert_eq!(renewer.line(), "ready");
        renewer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the process prints a line");
        line.trim_end().to_owned()
    }

    fn start_renewal(&mut self) {
        self.child
            .stdin
            .as_mut()
            .expect("the stream is piped")
            .write_all(b"go\n")
            .expect("the process reads its input");
    }

    /// Starts the renewal and returns its result.
    fn run(&mut self) -> String {
        self.start_renewal();
        self.line()
    }

    /// Kills the process, as `kill -9` does.
    fn kill(mut self) {
        self.child.kill().expect("the process is running");
        self.child.wait().expect("the process is a child");
    }
}

impl Drop for Renewer {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// A folder with the file of a login whose access token has expired.
async fn logged_in() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logins.json");
    log_in(&file, "sim-token-main", "sim-refresh-main").await;
    (dir, file)
}

async fn log_in(file: &Path, access: &str, refresh: &str) {
    let ended = Clock::system().now() - SignedDuration::from_secs(60);
    let login = NewLogin::new(Secret::new(access)).refresh_token(Secret::new(refresh)).expires_at(ended);
    let _ = TokenStore::builder(file).build().put(&id("main"), login).await.unwrap();
}

async fn ledger(simulator: Simulator) -> AccountLedger {
    simulator.stop().await.account("main").unwrap().clone()
}

/// Kills a process at this step, and returns the result of the next process.
async fn killed_at(step: &str, account: Account) -> (String, AccountLedger) {
    let (_dir, file) = logged_in().await;
    let simulator = provider([account]).await;
    let next = tokio::task::block_in_place(|| {
        let mut first = Renewer::start(&file, &simulator, "memory:", step);
        assert_eq!(first.run(), "here");
        first.kill();
        Renewer::start(&file, &simulator, "memory:", "once").run()
    });
    (next, ledger(simulator).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_before_sending_or_after_writing_loses_no_login() {
    for (step, exchanges) in [("sent", 1), ("written", 1)] {
        let (next, ledger) = killed_at(step, account("main")).await;

        assert_eq!(next, "sim-token-main-2", "{step}");
        assert_eq!((ledger.exchanges, ledger.reuses), (exchanges, 0), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_before_writing_recovers_by_replay() {
    let lenient = account("main").reuse_grace(Duration::from_secs(60));

    let (next, ledger) = killed_at("answered", lenient).await;

    assert_eq!(next, "sim-token-main-2");
    assert_eq!((ledger.exchanges, ledger.exchanges_replayed, ledger.reuses), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_replay_the_login_is_lost_and_a_new_one_works() {
    let (_dir, file) = logged_in().await;
    let simulator = provider([account("main")]).await;
    let once = || tokio::task::block_in_place(|| Renewer::start(&file, &simulator, "memory:", "once").run());
    tokio::task::block_in_place(|| {
        let mut first = Renewer::start(&file, &simulator, "memory:", "answered");
        assert_eq!(first.run(), "here");
        first.kill();
    });

    let results = [once(), once()];
    simulator.set("main", Change::login("sim-token-b", "sim-refresh-b")).unwrap();
    log_in(&file, "sim-token-b", "sim-refresh-b").await;
    let next = once();

    assert!(results.iter().all(|result| result.ends_with("; log in again")), "{results:?}");
    assert_eq!(next, "sim-token-main-3");
    let ledger = ledger(simulator).await;
    assert_eq!((ledger.exchanges, ledger.reuses, ledger.exchanges_rejected), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_processes_killed_anywhere_leave_a_valid_file_and_login() {
    let simulator = provider([account("main").reuse_grace(Duration::from_secs(3600))]).await;
    let (_dir, file) = logged_in().await;

    tokio::task::block_in_place(|| {
        for _ in 0..20 {
            let mut renewer = Renewer::start(&file, &simulator, "memory:", "ever");
            renewer.start_renewal();
            let mut seen = HashSet::new();
            let renewals = fastrand::usize(0..5);
            while seen.len() < renewals {
                let line = renewer.line();
                assert!(!line.contains("log in"), "{line}");
                seen.insert(line);
            }
            renewer.kill();
        }
    });

    let seed = TokenStore::builder(&file).build();
    assert_eq!(seed.accounts().await.unwrap(), [id("main")]);
    let ledger = ledger(simulator).await;
    assert!(ledger.exchanges > 10, "{ledger:?}");
    assert_eq!((ledger.reuses, ledger.exchanges_rejected), (0, 0), "{ledger:?}");
}

/// Returns the results of eight processes that resolve the same credential at once.
async fn eight_at_once(store: &str) -> (Vec<String>, AccountLedger) {
    let (_dir, file) = logged_in().await;
    let simulator = provider([account("main").latency(Duration::from_millis(50))]).await;
    let got = tokio::task::block_in_place(|| {
        let start = |_| Renewer::start(&file, &simulator, store, "once");
        let mut renewers: Vec<_> = (0..8).map(start).collect();
        renewers.iter_mut().for_each(Renewer::start_renewal);
        renewers.iter_mut().map(Renewer::line).collect()
    });
    (got, ledger(simulator).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_concurrent_renewals_make_one_exchange() {
    let server = Server::start();
    // First, each process has its own store, so that only the file lock coordinates them. Then they share a store.
    for store in ["memory:".to_owned(), server.url()] {
        let (got, ledger) = eight_at_once(&store).await;

        assert_eq!(got, ["sim-token-main-2"; 8], "{store}");
        assert_eq!((ledger.exchanges, ledger.reuses), (1, 0), "{store}");
    }
}

/// A credential source that renews.
fn renewing(file: &Path, simulator: &Simulator) -> Arc<dyn CredentialSource> {
    let refresher = anthropic::refresher("sim-client").base_url(simulator.url()).build().unwrap();
    let backoff = Backoff::doubling(Duration::from_millis(10), Duration::from_millis(100));
    Arc::new(TokenStore::builder(file).refresher(Arc::new(refresher)).backoff(backoff).build())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_rejection_renews_the_login() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logins.json");
    let simulator = provider([account("main").budget(None)]).await;
    let login = NewLogin::new(Secret::new("sim-token-main")).refresh_token(Secret::new("sim-refresh-main"));
    let _ = TokenStore::builder(&file).build().put(&id("main"), login).await.unwrap();
    let quota = single_process(&simulator, renewing(&file, &simulator), policy());
    let main = quota.account(&id("main"));

    simulator.set("main", Change::expire_tokens()).unwrap();
    let renewed = main.refresh().await.unwrap();
    simulator.set("main", Change::expire_tokens()).unwrap();
    for _ in 0..10 {
        let refused = main.refresh().await.unwrap();
        assert!(refused.error.is_some());
    }

    assert!(renewed.error.is_none(), "{renewed:?}");
    let ledger = ledger(simulator).await;
    assert_eq!((ledger.exchanges, ledger.reuses), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_of_another_program_is_never_renewed_or_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".credentials.json");
    let ended = Timestamp::UNIX_EPOCH.as_millisecond() + 1;
    let text = format!(
        r#"{{"claudeAiOauth":{{"accessToken":"sim-token-gone","refreshToken":"sim-refresh-main","expiresAt":{ended}}}}}"#
    );
    std::fs::write(&path, &text).unwrap();
    let simulator = provider([account("main")]).await;
    let source = ClaudeCode::in_dir(dir.path());

    let found = source.credential(&id("main")).await;
    let renewed = source.renew(&id("main"), found.ok().and_then(|found| found.login.fingerprint)).await;

    assert!(renewed.is_ok_and(|renewed| renewed.secret.expose() == "sim-token-gone"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(ledger(simulator).await.exchanges, 0);
}
