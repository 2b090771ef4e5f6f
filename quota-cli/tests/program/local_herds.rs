//! Many processes of one machine at once, with real processes and a provider that keeps a ledger.
//! Nothing here depends on how fast anything is: what is counted is calls.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Ledger, Phase, Script, Window};

use super::program::{Ended, Machine, Provider, argument};

/// A provider of one account that takes a while to answer, and a machine that is configured for it.
fn world(script: Script, policy: &str) -> (Provider, Machine, String) {
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

fn line(machine: &Machine, config: &str) -> Command {
    machine.command(&["statusline", "--format", "{five_hour.used} {stale}", "--config", config])
}

/// What a line says before there is a number. Where forty processes want two cores, one may not get at the file in time.
const NOTHING_YET: [&str; 2] = ["? no data\n", "? store unreachable\n"];

/// Starts that many statuslines and lets all of them end; each says what is known.
fn herd(machine: &Machine, config: &str, count: usize) {
    let start = |_| line(machine, config).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let herd: Vec<Child> = (0..count).map(start).collect();
    for one in herd {
        let ended = Ended::of(one.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
        let is_known = ended.stdout.contains("42% ");
        assert!(is_known || NOTHING_YET.contains(&&*ended.stdout), "{}", ended.stdout);
    }
}

/// What a statusline says once there is a number in it: one after the other is started until then.
fn first_number(machine: &Machine, config: &str) -> String {
    loop {
        let ended = Ended::of(line(machine, config).output().unwrap());
        if ended.stdout.contains('%') {
            return ended.stdout;
        }
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(NOTHING_YET.contains(&&*ended.stdout), "{}", ended.stdout);
    }
}

/// The remaining time of the present lease.
fn lease_in(machine: &Machine) -> Option<SignedDuration> {
    let store = format!("sqlite://{}", argument(&machine.path(".local/state/quota/quota.db")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = StoreKey::account(&"anthropic/main".parse().unwrap());
    let found = runtime.block_on(async { quota::open_store(&store).unwrap().read(&key).await }).unwrap();
    let record = Record::decode(&found.document.unwrap().body).unwrap();
    record.lease().map(|lease| lease.until.duration_since(lease.granted_at))
}

fn until(provider: &Provider, condition: impl FnMut(&Ledger) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(provider.simulator.until(condition));
}

#[test]
fn fifty_statuslines_on_a_cold_store_make_one_call() {
    let (provider, machine, config) = world(Script::new([main_account()]), "");

    herd(&machine, &config, 50);
    let shown = first_number(&machine, &config);

    assert_eq!(shown, "42% \n");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_refresher_that_is_killed_in_mid_call_twice_costs_two_calls_and_a_lease_each() {
    let hangs = main_account().answers([Phase::new(Answer::Hang)]);
    let policy = "fetch_timeout = \"4s\"";
    let (provider, machine, config) = world(Script::new([hangs]), policy);

    for killed in 1..=2 {
        herd(&machine, &config, 50);
        // The one after a kill may ask when the lease is over; until then statuslines come and go.
        while provider.simulator.ledger().calls() < killed {
            herd(&machine, &config, 1);
        }
        kill_refreshers(&config);
        until(&provider, |ledger| ledger.accounts["main"].abandoned == killed);
        assert_eq!(lease_in(&machine), Some(SignedDuration::from_secs(6)), "what was killed keeps no more");
    }
    provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    let shown = first_number(&machine, &config);
    herd(&machine, &config, 50);

    let ledger = provider.simulator.ledger();
    assert_eq!((shown.as_str(), lease_in(&machine)), ("42% \n", None));
    assert_eq!((ledger.calls(), ledger.max_concurrent, ledger.calls_during_hold()), (3, 1, 0));
}

#[test]
fn forty_statuslines_over_and_over_make_one_call_per_interval_and_no_429() {
    // The provider's five minutes are half a second of ours, and its budget of an hour is for six seconds.
    const FRESHNESS: Duration = Duration::from_millis(500);
    const INTERVALS: u64 = 6;
    let script = Script::new([main_account().latency(Duration::ZERO).budget(30)]).speed(600.0);
    let policy = "freshness = \"500ms\"\nbudget = { per_hour = 10000, reserve = 0 }";
    let (provider, machine, config) = world(script, policy);
    let clock = quota::Clock::system();
    let started = clock.now();

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    herd(&machine, &config, 1);
                }
            });
        }
        until(&provider, |ledger| ledger.calls() > INTERVALS);
        is_over.store(true, Ordering::Relaxed);
    });

    let ledger = provider.simulator.ledger();
    let elapsed = Duration::try_from(clock.now().duration_since(started)).unwrap();
    let intervals = elapsed.as_millis() / FRESHNESS.as_millis();
    assert!(u128::from(ledger.calls()) <= intervals + 1, "{} calls in {elapsed:?}", ledger.calls());
    assert_eq!(ledger.accounts["main"].answers.get(&429), None, "{ledger:?}");
}

#[test]
fn a_process_killed_while_it_creates_the_database_does_no_harm() {
    let config = "[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"http://127.0.0.1:1\"\n";
    for _ in 0..10 {
        let machine = Machine::new();
        let config = machine.write("config.toml", config);
        let doctor = ["doctor", "--json", "--config", argument(&config)];
        let mut maker = machine.command(&doctor).stdout(Stdio::null()).spawn().unwrap();

        // The draft is the first that lies there; the kill hits the making, or what comes after it.
        let folder = machine.path(".local/state/quota");
        let is_begun = || folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        while !is_begun() && maker.try_wait().unwrap().is_none() {}
        maker.kill().unwrap();
        maker.wait().unwrap();

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

/// Kills with SIGKILL the processes that statuslines with this configuration started.
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
