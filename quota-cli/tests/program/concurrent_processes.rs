//! Many real processes on one machine at once. The simulated provider records their calls in a ledger.
//! The tests count calls, so their results do not depend on timing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Ledger, Phase, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

/// A simulated provider, and a machine that is configured for it.
fn setup(script: Script, policy: &str) -> (Provider, Machine, String) {
    let provider = Provider::play(script);
    let (machine, config) = provider.configure(Machine::new());
    let accounts = std::fs::read_to_string(&config).unwrap();
    let accounts = &accounts[accounts.find("[[accounts]]").unwrap()..];
    let config = machine.write("herd.toml", format!("[policy]\ngap = \"1ms\"\n{policy}\n{accounts}"));
    (provider, machine, argument(&config).to_owned())
}

fn main_account() -> Account {
    Account::new("main").windows([Window::five_hour().used(42.0)]).latency(Duration::from_millis(50))
}

fn statusline(machine: &Machine, config: &str) -> Command {
    machine.command(&["statusline", "--format", "{five_hour.used} {stale}", "--config", config])
}

/// A statusline without data. If forty processes share two cores, one may not open the store in time.
const WITHOUT_DATA: [&str; 2] = ["? no data\n", "? store unreachable\n"];

/// Runs `count` statuslines at once. Each must print the cached usage, or that there is none.
fn run_statuslines(machine: &Machine, config: &str, count: usize) {
    let start =
        |_| statusline(machine, config).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<Child> = (0..count).map(start).collect();
    for one in children {
        let ended = Ended::of(one.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
        let has_usage = ended.stdout.contains("42% ");
        assert!(has_usage || WITHOUT_DATA.contains(&&*ended.stdout), "{}", ended.stdout);
    }
}

/// Runs statuslines in sequence until one has a percentage, and returns its output.
fn first_number(machine: &Machine, config: &str) -> String {
    loop {
        let ended = Ended::of(statusline(machine, config).output().unwrap());
        if ended.stdout.contains('%') {
            return ended.stdout;
        }
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(WITHOUT_DATA.contains(&&*ended.stdout), "{}", ended.stdout);
    }
}

/// How long the current lease was granted for.
fn lease_duration(machine: &Machine) -> Option<SignedDuration> {
    let store = format!("sqlite://{}", argument(&machine.path(".local/state/quota/quota.db")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = StoreKey::account(&"anthropic/main".parse().unwrap());
    let found = runtime.block_on(async { quota::open_store(&store).unwrap().read(&key).await }).unwrap();
    let record = Record::decode(&found.document.unwrap().body).unwrap();
    record.lease().map(|lease| lease.until.duration_since(lease.granted_at))
}

fn wait_until(provider: &Provider, condition: impl FnMut(&Ledger) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(provider.simulator.until(condition));
}

#[test]
fn fifty_statuslines_on_a_cold_store_make_one_call() {
    let (provider, machine, config) = setup(Script::new([main_account()]), "");

    run_statuslines(&machine, &config, 50);
    let shown = first_number(&machine, &config);

    assert_eq!(shown, "42% \n");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn each_killed_refresher_costs_one_call_and_one_lease() {
    let hangs = main_account().answers([Phase::new(Answer::Hang)]);
    let policy = "fetch_timeout = \"4s\"";
    let (provider, machine, config) = setup(Script::new([hangs]), policy);

    for killed in 1..=2 {
        run_statuslines(&machine, &config, 50);
        // The next refresher can only call after the lease of the killed one expires.
        while provider.simulator.ledger().calls() < killed {
            run_statuslines(&machine, &config, 1);
        }
        kill_refreshers(&config);
        wait_until(&provider, |ledger| ledger.accounts["main"].abandoned == killed);
        assert_eq!(
            lease_duration(&machine),
            Some(SignedDuration::from_secs(6)),
            "the lease of the killed process"
        );
    }
    provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    let shown = first_number(&machine, &config);
    run_statuslines(&machine, &config, 50);

    let ledger = provider.simulator.ledger();
    assert_eq!((shown.as_str(), lease_duration(&machine)), ("42% \n", None));
    assert_eq!((ledger.calls(), ledger.max_concurrent, ledger.calls_during_hold()), (3, 1, 0));
}

#[test]
fn forty_looping_statuslines_make_one_call_per_interval() {
    // At speed 600, five simulated minutes take half a second, and the hourly budget covers six seconds.
    const FRESHNESS: Duration = Duration::from_millis(500);
    const INTERVALS: u64 = 6;
    let script = Script::new([main_account().latency(Duration::ZERO).budget(30)]).speed(600.0);
    let policy = "freshness = \"500ms\"\nbudget = { per_hour = 10000, reserve = 0 }";
    let (provider, machine, config) = setup(script, policy);
    let clock = quota::Clock::system();
    let started = clock.now();

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    run_statuslines(&machine, &config, 1);
                }
            });
        }
        wait_until(&provider, |ledger| ledger.calls() > INTERVALS);
        is_over.store(true, Ordering::Relaxed);
    });

    let ledger = provider.simulator.ledger();
    let elapsed = Duration::try_from(clock.now().duration_since(started)).unwrap();
    let intervals = elapsed.as_millis() / FRESHNESS.as_millis();
    assert!(u128::from(ledger.calls()) <= intervals + 1, "{} calls in {elapsed:?}", ledger.calls());
    assert_eq!(ledger.accounts["main"].answers.get(&429), None, "{ledger:?}");
}

#[test]
fn a_kill_during_database_creation_leaves_a_usable_store() {
    let config = "[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"http://127.0.0.1:1\"\n";
    for _ in 0..10 {
        let machine = Machine::new();
        let config = machine.write("config.toml", config);
        let doctor = ["doctor", "--json", "--config", argument(&config)];
        let mut creator = machine.command(&doctor).stdout(Stdio::null()).spawn().unwrap();

        // The first file is the temporary database. The kill interrupts its creation, or comes just after.
        let folder = machine.path(".local/state/quota");
        let has_file = || folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        while !has_file() && creator.try_wait().unwrap().is_none() {}
        creator.kill().unwrap();
        creator.wait().unwrap();

        let shown = machine.run(&doctor).json();
        let store =
            shown["checks"].as_array().unwrap().iter().find(|check| check["area"] == "store").unwrap();
        assert_eq!(
            (&store["ok"], &store["message"]),
            (&true.into(), &"can be read and written".into()),
            "{shown}"
        );
    }
}

/// Kills the refreshers that statuslines with this configuration started.
fn kill_refreshers(config: &str) {
    let is_one = |process: &Path| {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        words.contains(&&b"refresh-detached"[..]) && words.contains(&config.as_bytes())
    };
    for process in std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
        let Some(number) = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        if is_one(&process) {
            let killed = Command::new("kill").args(["-9", &number.to_string()]).status().unwrap();
            assert!(killed.success());
        }
    }
}
