//! Stores in a broken state: without their file, not to be written, or touched by a clock that was wrong.

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

use super::program::{Ended, Machine, Provider, argument};
use super::pty::Pty;

/// A machine with the usual store, and a provider that says 42 %.
struct World {
    provider: Provider,
    machine: Machine,
    config: String,
}

impl World {
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
        // Whatever follows `--` is a command of its own.
        let end = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
        let (ours, theirs) = arguments.split_at(end);
        self.machine.command(&[ours, &["--config", &self.config], theirs].concat())
    }

    /// The same with a limit on the size of files, which fails every write as a full disk does.
    fn run_without_room(&self, arguments: &[&str]) -> Ended {
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

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_log_without_its_file_is_set_aside_and_the_command_goes_on() {
    let world = World::new("5m");
    assert_eq!(world.run(&["status"]).code, Some(0));
    std::fs::remove_file(world.file()).unwrap();

    let first = world.run(&["status"]);

    assert_eq!((first.code, world.calls()), (Some(0), 2), "{}", first.stderr);
    assert_eq!(first.stderr.lines().count(), 1, "{}", first.stderr);
    let second = world.run(&["status"]);
    assert_eq!((second.code, second.stderr.as_str(), world.calls()), (Some(0), "", 2));
}

#[test]
fn a_log_without_a_named_file_is_left_with_the_command_that_removes_it() {
    let world = World::new("5m");
    assert_eq!(world.run(&["status"]).code, Some(0));
    std::fs::remove_file(world.file()).unwrap();
    let url = format!("sqlite://{}", world.file().display());

    let ended = ["status", "statusline", "events"].map(|command| world.run(&["--store", &url, command]));

    // A statusline that failed would vanish.
    let shown = [(78, ""), (0, "quota: store error\n"), (78, "")];
    for (ended, (code, shown)) in ended.iter().zip(shown) {
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), shown), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    assert_eq!((world.calls(), world.file().exists()), (1, false));
    let command = ended[0].stderr.rsplit("run: ").next().unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert_eq!(world.run(&["status"]).code, Some(0));
    assert_eq!(world.calls(), 2);
}

#[test]
fn an_empty_file_is_used_as_a_new_store() {
    let world = World::new("5m");
    world.machine.write(".local/state/quota/quota.db", "");
    std::fs::set_permissions(world.file().parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(world.file(), Permissions::from_mode(0o600)).unwrap();

    let ended = ["doctor", "statusline", "status", "status"].map(|command| world.run(&[command]));

    assert!(!ended[0].stdout.contains("FAIL"), "{}", ended[0].stdout);
    assert!(ended[1..].iter().all(|ended| (ended.code, &*ended.stderr) == (Some(0), "")), "{ended:?}");
    assert!(ended[3].stdout.contains("42 %"), "{}", ended[3].stdout);
}

#[test]
fn an_emptied_file_is_used_as_a_new_store_and_its_log_is_set_aside() {
    let world = World::new("5m");
    assert_eq!(world.run(&["status"]).code, Some(0));
    std::fs::write(world.file(), "").unwrap();

    let first = world.run(&["status"]);

    assert_eq!(
        (first.code, first.stderr.lines().count(), world.calls()),
        (Some(0), 1, 2),
        "{}",
        first.stderr
    );
    assert_eq!(world.run(&["status"]).stderr, "");
}

/// The claim that a statusline writes before it starts a refresher.
fn claim() -> StoreKey {
    StoreKey::account_extension(&"anthropic/main".parse().unwrap(), "refresher")
}

/// Claims as a process does whose clock is ahead by so much.
fn claimed(store: &dyn QuotaStore, ahead: SignedDuration) -> StoreRead {
    let until = Clock::system().now() + ahead + SignedDuration::from_secs(10);
    let body = format!(r#"{{"format":1,"holder":"07","until_ms":{}}}"#, until.as_millisecond());
    laid(store, body, ahead)
}

/// A claim with this in it that is kept until a clock is over that is ahead by so much.
fn laid(store: &dyn QuotaStore, body: String, ahead: SignedDuration) -> StoreRead {
    let keep = Duration::try_from(ahead).unwrap() + Duration::from_secs(60);
    wait(async {
        let written = store.compare_and_swap(&claim(), None, body.into(), keep).await.unwrap();
        assert!(matches!(written, CasOutcome::Applied(_)));
        store.read(&claim()).await.unwrap()
    })
}

#[test]
fn a_claim_from_a_future_clock_stops_no_refresh() {
    let world = World::new("5m");
    let store = world.store();
    let before = claimed(store.as_ref(), SignedDuration::from_hours(24));

    assert_eq!(world.run(&["statusline"]).code, Some(0));

    let after = wait(store.read(&claim())).unwrap();
    assert_ne!(after.version(), before.version());
    wait(world.provider.simulator.until(|ledger| ledger.calls() == 1));
}

#[test]
fn a_claim_of_this_moment_keeps_others_from_asking() {
    let world = World::new("5m");
    let store = world.store();
    let before = claimed(store.as_ref(), SignedDuration::ZERO);

    assert_eq!(world.run(&["statusline"]).code, Some(0));

    let after = wait(store.read(&claim())).unwrap();
    assert_eq!((after.version(), world.calls()), (before.version(), 0));
}

#[test]
fn a_claim_that_was_given_back_a_day_ahead_is_none() {
    let world = World::new("5m");
    let store = world.store();
    let before = laid(store.as_ref(), r#"{"format":1}"#.to_owned(), SignedDuration::from_hours(24));

    assert_eq!(world.run(&["statusline"]).code, Some(0));

    assert_ne!(wait(store.read(&claim())).unwrap().version(), before.version());
    wait(world.provider.simulator.until(|ledger| ledger.calls() == 1));
}

#[test]
fn a_store_that_cannot_be_created_is_reported_once() {
    let world = World::new("5m");
    let folder = world.file().parent().unwrap().to_owned();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();

    let (status, guard) = (world.run(&["status"]), world.run(&["guard"]));
    let line = world.run(&["statusline"]);

    let pick = world.run(&["pick"]);
    let explain = world.run(&["explain"]);
    let run = world.run(&["run", "--", "true"]);
    let list = world.run(&["accounts", "list"]);

    for ended in [&status, &guard, &line, &pick, &explain, &run, &list] {
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
        assert!(ended.stderr.contains("run: chmod go-w "), "{}", ended.stderr);
    }
    assert!(status.stdout.contains("42 %"), "{}", status.stdout);
    assert_eq!(line.stdout, "store read-only\n");
}

#[test]
fn a_read_only_store_is_shown_and_not_refreshed() {
    let world = World::new("2ms");
    assert_eq!(world.run(&["status"]).code, Some(0));
    // Another process has it open, as is usual, so a reader writes nothing.
    let other = world.store();
    wait(other.read(&claim())).unwrap();

    let status = world.run_without_room(&["status"]);
    let refresh = world.run_without_room(&["status", "--refresh", "--json"]);
    let guard = world.run_without_room(&["guard", "--unknown", "allow"]);
    let line = world.run_without_room(&["statusline"]);
    let list = world.run_without_room(&["accounts", "list"]);

    for ended in [&status, &refresh, &guard, &line, &list] {
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
        assert!(ended.stderr.contains("is the disk full"), "{}", ended.stderr);
    }
    assert!(status.stdout.contains("42 %"), "{}", status.stdout);
    assert!(line.stdout.contains("42%"), "{}", line.stdout);
    let why = refresh.json()["accounts"][0]["not_refreshed"].clone();
    assert_eq!(why, "not refreshed: the store is read-only");
    assert_eq!(world.calls(), 1);
}

#[test]
fn with_a_read_only_store_an_account_is_picked_with_a_warning() {
    let world = World::new("2ms");
    world.provider.simulator.set("main", Change::used(Window::five_hour(), 100.0)).unwrap();
    assert_eq!(world.run(&["status"]).code, Some(0));
    let other = world.store();
    wait(other.read(&claim())).unwrap();
    world.provider.simulator.set("main", Change::used(Window::five_hour(), 42.0)).unwrap();

    let pick = world.run_without_room(&["pick"]);
    let explain = world.run_without_room(&["explain"]);
    let run = world.run_without_room(&["run", "--", "printenv", "QUOTA_ACCOUNT"]);

    for ended in [&pick, &explain, &run] {
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(0), 1), "{}", ended.stderr);
        let told = &ended.stderr;
        assert!(told.starts_with("quota: running without a shared store: "), "{told}");
    }
    assert_eq!((&*pick.stdout, &*run.stdout), ("anthropic/main\n", "anthropic/main\n"));
}

#[test]
fn watch_shows_a_read_only_store_in_its_last_line() {
    let world = World::new("2ms");
    let folder = world.file().parent().unwrap().to_owned();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let mut pty = Pty::new(80, 24);
    let mut watch = pty.start(world.command(&["watch"]));

    // Only what changes on the screen is written, and that a word at a time; a new size has all of it written anew.
    pty.until("users");
    pty.resize(120, 24);
    kill_process(Pid::from_child(&watch), Signal::WINCH).unwrap();
    pty.until("running without a shared store: other users can write to");

    pty.press("q");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_statusline_is_printed_before_anything_is_written() {
    let world = World::new("5m");
    world.machine.log_in("sim-token-main");
    let url = world.provider.url();
    let accounts = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{url}\"\n");
    std::fs::write(&world.config, accounts).unwrap();
    assert_eq!(world.run(&["status"]).code, Some(0));
    let session = world.machine.write("session", r#"{"rate_limits":{"five_hour":{"used_percentage":55.0}}}"#);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let line = || {
        let mut line = world.command(&["statusline", "--format", "{five_hour.used}"]);
        line.stdin(std::fs::File::open(&session).unwrap());
        line
    };
    let others = || world.run(&["statusline", "--format", "{five_hour.used}"]).stdout;

    // A line that could not be told is the last thing that was done.
    let untold = line().stdout(full).status().unwrap();
    assert_eq!((untold.code(), others().as_str()), (Some(74), "42%\n"));

    let told = Ended::of(line().output().unwrap());
    assert_eq!((told.stdout.as_str(), others().as_str()), ("55%\n", "55%\n"));
}
