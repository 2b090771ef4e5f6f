//! Broken stores: a database file that is missing, empty or read-only, and claims from a wrong clock.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use quota::store::{CasOutcome, StoreKey, StoreRead};
use quota::{Clock, QuotaStore};
use quota_sim::{Account, Change, Script, Window};
use rustix::process::{Pid, Signal, kill_process};

use super::pty::Pty;
use super::support::{Ended, Machine, Provider, argument};

/// A machine with the default store, and a provider at 42 %.
struct Env {
    provider: Provider,
    machine: Machine,
    config: String,
}

impl Env {
    fn new(freshness: &str) -> Self {
        let windows = [Window::five_hour().used(42.0)];
        let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
        let (machine, config) = provider.configure(Machine::new());
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replacen("[policy]\n", &format!("[policy]\nfreshness = \"{freshness}\"\n"), 1);
        std::fs::write(&config, text).unwrap();
        let config = argument(&config).to_owned();
        Self { provider, machine, config }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // `--config` must come before `--`, because the rest is the command of `quota run`.
        let end = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
        let (ours, theirs) = arguments.split_at(end);
        self.machine.command(&[ours, &["--config", &self.config], theirs].concat())
    }

    /// Runs a command with a file size limit of zero, so that every write fails as on a full disk.
    fn run_with_full_disk(&self, arguments: &[&str]) -> Ended {
        let mut inner = self.command(arguments);
        let program = std::mem::replace(&mut inner, Command::new("sh"));
        inner.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$0" "$@""#]).arg(program.get_program());
        inner.args(program.get_args()).env_clear().stdin(Stdio::null());
        for (name, value) in program.get_envs() {
            inner.env(name, value.unwrap());
        }
        inner.current_dir(program.get_current_dir().unwrap());
        Ended::of(inner.output().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.machine.path(".local/state/quota/quota.db")
    }

    fn store(&self) -> Arc<dyn QuotaStore> {
        quota::open_store(&format!("sqlite://{}", self.file().display())).unwrap()
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn an_orphaned_wal_is_set_aside() {
    let env = Env::new("5m");
    assert_eq!(env.run(&["status"]).code, Some(0));
    std::fs::remove_file(env.file()).unwrap();

    let first = env.run(&["status"]);

    assert_eq!((first.code, env.calls()), (Some(0), 2), "{}", first.stderr);
    assert_eq!(first.stderr.lines().count(), 1, "{}", first.stderr);
    let second = env.run(&["status"]);
    assert_eq!((second.code, second.stderr.as_str(), env.calls()), (Some(0), "", 2));
}

#[test]
fn an_orphaned_wal_of_a_given_store_is_reported_with_its_removal() {
    let env = Env::new("5m");
    assert_eq!(env.run(&["status"]).code, Some(0));
    std::fs::remove_file(env.file()).unwrap();
    let url = format!("sqlite://{}", env.file().display());

    let ended = ["status", "statusline", "events"].map(|command| env.run(&["--store", &url, command]));

    // Claude Code hides a statusline that fails, so it ends with 0.
    let shown = [(78, ""), (0, "quota: store error\n"), (78, "")];
    for (ended, (code, shown)) in ended.iter().zip(shown) {
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), shown), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    assert_eq!((env.calls(), env.file().exists()), (1, false));
    let command = ended[0].stderr.rsplit("run: ").next().unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert_eq!(env.run(&["status"]).code, Some(0));
    assert_eq!(env.calls(), 2);
}

#[test]
fn an_empty_file_is_used_as_a_new_store() {
    let env = Env::new("5m");
    env.machine.write(".local/state/quota/quota.db", "");
    std::fs::set_permissions(env.file().parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(env.file(), Permissions::from_mode(0o600)).unwrap();

    let ended = ["doctor", "statusline", "status", "status"].map(|command| env.run(&[command]));

    assert!(!ended[0].stdout.contains("FAIL"), "{}", ended[0].stdout);
    assert!(ended[1..].iter().all(|ended| (ended.code, &*ended.stderr) == (Some(0), "")), "{ended:?}");
    assert!(ended[3].stdout.contains("42 %"), "{}", ended[3].stdout);
}

#[test]
fn a_truncated_file_is_a_new_store_and_its_wal_is_set_aside() {
    let env = Env::new("5m");
    assert_eq!(env.run(&["status"]).code, Some(0));
    std::fs::write(env.file(), "").unwrap();

    let first = env.run(&["status"]);

    assert_eq!((first.code, first.stderr.lines().count(), env.calls()), (Some(0), 1, 2), "{}", first.stderr);
    assert_eq!(env.run(&["status"]).stderr, "");
}

/// The key of the claim that a statusline writes before it starts a refresher.
fn claim_key() -> StoreKey {
    StoreKey::account_extension(&"anthropic/main".parse().unwrap(), "refresher")
}

/// Writes a claim from a process whose clock is ahead by `skew`.
fn claim_with_clock_ahead(store: &dyn QuotaStore, skew: SignedDuration) -> StoreRead {
    let until = Clock::system().now() + skew + SignedDuration::from_secs(10);
    let body = format!(r#"{{"format":1,"holder":"07","until_ms":{}}}"#, until.as_millisecond());
    write_claim(store, body, skew)
}

/// Writes `body` as the claim. The store keeps it until a minute after the clock that is ahead by `skew`.
fn write_claim(store: &dyn QuotaStore, body: String, skew: SignedDuration) -> StoreRead {
    let ttl = Duration::try_from(skew).unwrap() + Duration::from_secs(60);
    block_on(async {
        let written = store.compare_and_swap(&claim_key(), None, body.into(), ttl).await.unwrap();
        assert!(matches!(written, CasOutcome::Applied(_)));
        store.read(&claim_key()).await.unwrap()
    })
}

#[test]
fn a_claim_from_a_future_clock_does_not_block_a_refresh() {
    let env = Env::new("5m");
    let store = env.store();
    let before = claim_with_clock_ahead(store.as_ref(), SignedDuration::from_hours(24));

    assert_eq!(env.run(&["statusline"]).code, Some(0));

    let after = block_on(store.read(&claim_key())).unwrap();
    assert_ne!(after.version(), before.version());
    block_on(env.provider.simulator.until(|ledger| ledger.calls() == 1));
}

#[test]
fn a_current_claim_prevents_a_second_refresh() {
    let env = Env::new("5m");
    let store = env.store();
    let before = claim_with_clock_ahead(store.as_ref(), SignedDuration::ZERO);

    assert_eq!(env.run(&["statusline"]).code, Some(0));

    let after = block_on(store.read(&claim_key())).unwrap();
    assert_eq!((after.version(), env.calls()), (before.version(), 0));
}

#[test]
fn a_released_claim_from_a_future_clock_is_ignored() {
    let env = Env::new("5m");
    let store = env.store();
    let before = write_claim(store.as_ref(), r#"{"format":1}"#.to_owned(), SignedDuration::from_hours(24));

    assert_eq!(env.run(&["statusline"]).code, Some(0));

    assert_ne!(block_on(store.read(&claim_key())).unwrap().version(), before.version());
    block_on(env.provider.simulator.until(|ledger| ledger.calls() == 1));
}

#[test]
fn a_store_that_cannot_be_created_is_reported_once() {
    let env = Env::new("5m");
    let folder = env.file().parent().unwrap().to_owned();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();

    let (status, guard) = (env.run(&["status"]), env.run(&["guard"]));
    let line = env.run(&["statusline"]);

    let pick = env.run(&["pick"]);
    let explain = env.run(&["explain"]);
    let run = env.run(&["run", "--", "true"]);
    let list = env.run(&["accounts", "list"]);

    for ended in [&status, &guard, &pick, &explain, &run, &list] {
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
        assert!(ended.stderr.contains("run: chmod go-w "), "{}", ended.stderr);
    }
    assert!(status.stdout.contains("42 %"), "{}", status.stdout);
    // A file in the temporary directory replaces the store.
    assert!(line.stdout.contains("42%"), "{}", line.stdout);
    assert_eq!(env.calls(), 1);
}

#[test]
fn a_read_only_store_is_shown_and_not_refreshed() {
    let env = Env::new("2ms");
    assert_eq!(env.run(&["status"]).code, Some(0));
    // While another process has the database open, opening it for reading writes nothing.
    let other = env.store();
    block_on(other.read(&claim_key())).unwrap();

    let status = env.run_with_full_disk(&["status"]);
    let refresh = env.run_with_full_disk(&["status", "--refresh", "--json"]);
    let guard = env.run_with_full_disk(&["guard", "--unknown", "allow"]);
    let line = env.run_with_full_disk(&["statusline"]);
    let list = env.run_with_full_disk(&["accounts", "list"]);

    for ended in [&status, &guard, &line, &list] {
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
        assert!(ended.stderr.contains("is the disk full"), "{}", ended.stderr);
    }
    assert!(status.stdout.contains("42 %"), "{}", status.stdout);
    assert!(line.stdout.contains("42%"), "{}", line.stdout);
    // Only --refresh may call without a store, and the last call is too recent for that.
    assert!(refresh.json()["accounts"][0]["called_at"].is_string(), "{}", refresh.stdout);
    assert_eq!(env.calls(), 1);
}

#[test]
fn pick_without_a_writable_folder_warns_and_makes_no_call() {
    let env = Env::new("2ms");
    env.provider.simulator.set("main", Change::used(Window::five_hour(), 100.0)).unwrap();
    assert_eq!(env.run(&["status"]).code, Some(0));
    let other = env.store();
    block_on(other.read(&claim_key())).unwrap();
    env.provider.simulator.set("main", Change::used(Window::five_hour(), 42.0)).unwrap();

    let pick = env.run_with_full_disk(&["pick"]);
    let explain = env.run_with_full_disk(&["explain"]);
    let run = env.run_with_full_disk(&["run", "--", "printenv", "QUOTA_ACCOUNT"]);

    // Nothing would remember a call, so none is made, and the known reading decides.
    for ended in [&pick, &explain, &run] {
        assert_eq!(
            (ended.code, ended.stderr.matches("without the shared store: ").count()),
            (Some(1), 1),
            "{ended:?}"
        );
    }
    assert_eq!((&*pick.stdout, env.calls()), ("", 1));
}

#[test]
fn watch_reports_a_read_only_store_in_its_last_line() {
    let env = Env::new("2ms");
    let folder = env.file().parent().unwrap().to_owned();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let mut pty = Pty::new(80, 24);
    let mut watch = pty.start(env.command(&["watch"]));

    // `watch` writes only the changed words. A new terminal size makes it write the whole screen.
    pty.until("users");
    pty.resize(120, 24);
    kill_process(Pid::from_child(&watch), Signal::WINCH).unwrap();
    pty.until("running without the shared store since ");

    pty.press("q");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_statusline_is_printed_before_the_store_is_written() {
    let env = Env::new("5m");
    env.machine.log_in("sim-token-main");
    let url = env.provider.url();
    let accounts = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{url}\"\n");
    std::fs::write(&env.config, accounts).unwrap();
    assert_eq!(env.run(&["status"]).code, Some(0));
    let session = env.machine.write("session", r#"{"rate_limits":{"five_hour":{"used_percentage":55.0}}}"#);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let line = || {
        let mut line = env.command(&["statusline", "--format", "{five_hour.used}"]);
        line.stdin(std::fs::File::open(&session).unwrap());
        line
    };
    let other_session = || env.run(&["statusline", "--format", "{five_hour.used}"]).stdout;

    // If the line cannot be printed, the session is not stored.
    let failed = line().stdout(full).status().unwrap();
    assert_eq!((failed.code(), other_session().as_str()), (Some(74), "42%\n"));

    let printed = Ended::of(line().output().unwrap());
    assert_eq!((printed.stdout.as_str(), other_session().as_str()), ("55%\n", "55%\n"));
}
