//! The default store: a file that all processes of a user share.

use jiff::SignedDuration;
use quota::model::RequestId;
use quota::record::{CommitOutcome, LeaseDecision, LeaseRequest, MaxStaleness, Record};
use quota::store::{CasOutcome, StoreKey};
use quota::{Percent, Policy, UsageReport, WindowId, WindowReading};
use quota_sim::{Account, Answer, Change, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

const DEFAULT_STORE: &str = ".local/state/quota/quota.db";

fn provider() -> Provider {
    Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(42.0)])]))
}

#[test]
fn the_next_process_uses_the_cached_usage() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());

    for _ in 0..2 {
        let ended = machine.run(&["status", "--config", argument(&config)]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains("42 %"), "{}", ended.stdout);
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
    assert!(machine.path(DEFAULT_STORE).exists());
}

#[test]
fn the_store_file_is_in_xdg_state_home() {
    let provider = provider();
    let state = tempfile::tempdir().unwrap();
    // The folder has characters with a meaning in URLs.
    let folder = state.path().join("a b?#%20ü");
    let (machine, config) =
        provider.configure(Machine::new().set("XDG_STATE_HOME", folder.to_str().unwrap()));

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(folder.join("quota/quota.db").exists());
    assert!(!machine.path(DEFAULT_STORE).exists());
}

#[test]
fn a_damaged_file_given_by_url_is_unchanged_and_not_used() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let path = machine.write("shared.db", "contents of another program");
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    let machine = machine.set("QUOTA_STORE", &format!("sqlite://{}", path.display()));

    let line = machine.run(&["statusline", "--config", argument(&config)]);
    assert_eq!((line.code, line.stdout.as_str()), (Some(0), "quota: store error\n"));
    assert_eq!((line.stderr.lines().count(), provider.simulator.ledger().calls()), (1, 0), "{}", line.stderr);
    for command in ["status", "guard", "pick", "explain", "pace", "events", "budget"] {
        let ended = machine.run(&[command, "--config", argument(&config)]);

        assert_ne!(ended.code, Some(78), "{command}: {}", ended.stderr);
        let warnings: Vec<_> =
            ended.stderr.lines().filter(|line| line.contains("is damaged or not a database")).collect();
        assert_eq!(warnings.len(), 1, "{command}: {}", ended.stderr);
        assert!(warnings[0].contains("shared.db-wal"), "{command}: {}", ended.stderr);
    }
    let status = machine.run(&["status", "--config", argument(&config)]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert!(status.stdout.contains("42 %"), "{}", status.stdout);
    assert_eq!(machine.run(&["doctor", "--config", argument(&config)]).code, Some(1));
    assert_eq!(std::fs::read(&path).unwrap(), b"contents of another program");
}

/// The damaged files that were set aside.
fn damaged_files(machine: &Machine) -> Vec<std::path::PathBuf> {
    let folder = machine.path(DEFAULT_STORE);
    let entries = std::fs::read_dir(folder.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let is_copy = |name: &str| name.contains(".damaged-") && name.ends_with('Z');
    entries.filter(|path| is_copy(&path.to_string_lossy())).collect()
}

#[test]
fn a_damaged_default_file_is_set_aside_and_replaced() {
    for command in ["status", "guard", "pick", "explain", "pace", "events", "budget", "statusline"] {
        let provider = provider();
        let (machine, config) = provider.configure(Machine::new());
        let path = machine.write(DEFAULT_STORE, "contents of another program");
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

        let ended = machine.run(&[command, "--config", argument(&config)]);
        let again = machine.run(&["status", "--config", argument(&config)]);

        assert_ne!(ended.code, Some(78), "{command}: {}", ended.stderr);
        assert_eq!(
            ended.stderr.matches("the damaged file is kept").count(),
            1,
            "{command}: {}",
            ended.stderr
        );
        assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{command}");
        let copies = damaged_files(&machine);
        assert_eq!(copies.len(), 1, "{command}: {copies:?}");
        assert!(ended.stderr.contains(copies[0].to_str().unwrap()), "{command}: {}", ended.stderr);
        assert_eq!(std::fs::read(&copies[0]).unwrap(), b"contents of another program", "{command}");
    }
}

#[test]
fn concurrent_processes_set_a_damaged_file_aside_once() {
    let (provider, machine, config) = after_one_call();
    let path = machine.path(DEFAULT_STORE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(3000);
    std::fs::write(&path, &bytes).unwrap();

    let start = |_| {
        let mut command = machine.command(&["status", "--config", &config]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<_> = (0..16).map(start).collect();
    let ended: Vec<_> =
        started.into_iter().map(|child| Ended::of(child.wait_with_output().unwrap())).collect();

    assert_eq!(provider.simulator.ledger().calls(), 2, "one before the damage, and one after it");
    for ended in &ended {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let warnings: Vec<_> = ended.iter().filter(|ended| !ended.stderr.is_empty()).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let copies = damaged_files(&machine);
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(std::fs::read(&copies[0]).unwrap(), bytes);
}

#[cfg(unix)]
#[test]
fn an_exposed_file_is_reported_with_the_command_that_fixes_it() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    machine.run(&["status", "--config", argument(&config)]);
    let path = machine.path(DEFAULT_STORE);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();

    let ended = machine.run(&["status", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(78));
    assert!(
        ended.stderr.trim_end().ends_with(&format!("run: chmod 600 {}", path.display())),
        "{}",
        ended.stderr
    );
}

#[test]
fn without_a_home_directory_one_warning_is_printed() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());

    let ended = Ended::of(
        machine.command(&["status", "--config", argument(&config)]).env_remove("HOME").output().unwrap(),
    );

    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr.matches("running without a shared store").count(), 1, "{}", ended.stderr);
}

#[test]
fn commands_without_a_store_create_no_file() {
    let machine = Machine::new();

    machine.run(&["demo", "--seconds", "1", "--accounts", "1", "--consumers", "1"]);
    machine.run(&["parse", "anthropic", "nothing.json"]);

    assert!(!machine.path(".local").exists());
}

/// A machine with cached usage from one call.
fn after_one_call() -> (Provider, Machine, String) {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config).to_owned();
    assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
    (provider, machine, config)
}

#[test]
fn offline_calls_no_provider_even_without_numbers() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());

    let ended = machine.run(&["status", "--offline", "--config", argument(&config)]);

    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("no data"), "{}", ended.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 0);
}

#[test]
fn offline_shows_cached_usage() {
    let (provider, machine, config) = after_one_call();

    let ended = machine.run(&["status", "--offline", "--config", &config]);

    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("42 %"), "{}", ended.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn refresh_calls_the_provider_although_the_data_is_fresh() {
    let (provider, machine, config) = after_one_call();
    backdate_last_call(&machine);

    assert_eq!(machine.run(&["status", "--refresh", "--config", &config]).code, Some(0));

    assert_eq!(provider.simulator.ledger().calls(), 2);
}

/// Replaces the record with one whose last call was a minute ago.
fn backdate_last_call(machine: &Machine) {
    let url = format!("sqlite://{}", argument(&machine.path(DEFAULT_STORE)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, key) =
            (quota::open_store(&url).unwrap(), StoreKey::account(&"anthropic/main".parse().unwrap()));
        let found = store.read(&key).await.unwrap();
        let (at, policy) = (found.now - SignedDuration::from_mins(1), Policy::default());
        let mut record = Record::default();
        let LeaseDecision::Granted(lease) =
            record.begin(at, &LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall), &policy)
        else {
            panic!("the record is empty, so the lease is granted");
        };
        let window = WindowReading::new(WindowId::five_hour(), Percent::from_percent(42.0).unwrap());
        assert_eq!(record.commit(at, &lease, &UsageReport::polled([window])), CommitOutcome::Stored);
        let swapped =
            store.compare_and_swap(&key, found.version(), record.encode(), policy.record_ttl).await.unwrap();
        assert!(matches!(swapped, CasOutcome::Applied(_)), "{swapped:?}");
    });
}

#[test]
fn thirty_refreshes_in_a_row_are_limited_and_say_so() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let refresh = ["status", "--refresh", "--config", argument(&config)];
    let clock = quota::Clock::system();
    let started = clock.now();

    let shown: Vec<_> = (0..30).map(|_| machine.run(&refresh)).collect();

    // At most one call per ten seconds.
    let elapsed = clock.now().duration_since(started).as_secs();
    let calls = provider.simulator.ledger().calls();
    assert!(calls <= 1 + elapsed.unsigned_abs() / 10, "{calls} calls in {elapsed} s");
    assert!(shown.iter().all(|ended| ended.code == Some(0) && ended.stdout.contains("42 %")), "{shown:?}");
    let is_limited = |ended: &&Ended| ended.stdout.contains("not called again (limit: one call per 10 s)");
    assert_eq!(shown.iter().filter(is_limited).count() as u64, 30 - calls);
    // The hourly budget is not used up.
    let elsewhere =
        machine.run(&["status", "--max-age", "0s", "--json", "--config", argument(&config)]).json();
    assert_eq!(elsewhere["accounts"][0]["hold"], serde_json::Value::Null);
    assert_eq!(provider.simulator.ledger().calls(), calls + 1);
}

#[test]
fn a_refresh_after_a_failed_call_says_so_and_makes_none() {
    let (provider, machine, config) = after_one_call();
    provider.simulator.set("main", Change::answer(Answer::Unauthorized)).unwrap();
    machine.run(&["status", "--max-age", "0s", "--config", &config]);

    let text = machine.run(&["status", "--refresh", "--config", &config]).stdout;
    let json = machine.run(&["status", "--refresh", "--json", "--config", &config]).json();

    assert!(text.contains("42 %") && text.contains("last refresh failed: login rejected (401)"), "{text}");
    assert!(text.contains("last call failed"), "{text}");
    assert!(json["accounts"][0]["called_at"].is_string(), "{json}");
    assert!(json["accounts"][0]["not_refreshed"].is_string(), "{json}");
    assert_eq!(provider.simulator.ledger().calls(), 2);
}

#[test]
fn a_token_that_may_not_read_usage_is_tried_once() {
    let provider = provider();
    let (machine, _) = provider.configure(Machine::new());
    provider.simulator.set("main", Change::answer(Answer::Scope)).unwrap();
    // Usage is stale after 2 ms, so that each command is due for a refresh.
    let policy = "[policy]\nfreshness = \"2ms\"\ngap = \"1ms\"\n";
    let config = machine.write("config.toml", format!("{policy}{}", provider.client_config()));
    let config = argument(&config);

    let first = machine.run(&["status", "--config", config]);
    for command in [&["status"][..], &["status", "--refresh"], &["guard"], &["status", "--max-age", "0s"]] {
        machine.run(&[command, &["--config", config]].concat());
    }
    let json = machine.run(&["status", "--json", "--config", config]).json();

    let doctor = machine.run(&["doctor", "--config", config]);
    let same = machine.write("token", provider.token());
    #[cfg(unix)]
    std::fs::set_permissions(&same, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    machine.write(".config/quota/config.toml", std::fs::read(config).unwrap());
    let added = machine.run(&["accounts", "add", "twin", "--token-file", argument(&same)]);

    assert!(first.stdout.contains("lacks the scope user:profile"), "{}", first.stdout);
    assert!(doctor.stdout.contains("lacks the scope user:profile"), "{}", doctor.stdout);
    assert_eq!(added.code, Some(0));
    assert!(added.stderr.contains("anthropic/twin: the token may not read usage"), "{}", added.stderr);
    assert_eq!(json["accounts"][0]["last_failure"]["kind"], "missing_scope");
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn data_older_than_max_age_is_refreshed() {
    let (provider, machine, config) = after_one_call();

    assert_eq!(machine.run(&["status", "--max-age", "1h", "--config", &config]).code, Some(0));
    assert_eq!(provider.simulator.ledger().calls(), 1);
    assert_eq!(machine.run(&["status", "--max-age", "0s", "--config", &config]).code, Some(0));

    assert_eq!(provider.simulator.ledger().calls(), 2);
}

#[test]
fn a_refresh_obeys_a_hold_and_prints_the_reason() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config).to_owned();
    machine.run(&["status", "--config", &config]);
    provider.simulator.set("main", Change::answer(Answer::ThrottleNoHeader)).unwrap();
    machine.run(&["status", "--max-age", "0s", "--config", &config]);

    let held = machine.run(&["status", "--refresh", "--config", &config]);
    let json = machine.run(&["status", "--refresh", "--json", "--config", &config]).json();

    assert!(held.stdout.contains("42 %") && held.stdout.contains("retrying in"), "{}", held.stdout);
    assert_eq!(json["accounts"][0]["hold"]["reason"], "rate_limited");
    assert!(json["accounts"][0]["not_refreshed"].as_str().unwrap().contains("on hold"), "{json}");
    assert_eq!(
        (provider.simulator.ledger().calls(), provider.simulator.ledger().calls_during_hold()),
        (2, 0)
    );
}

#[test]
fn a_failed_refresh_is_shown_with_its_reason() {
    let (provider, machine, config) = after_one_call();
    provider.simulator.set("main", Change::answer(Answer::Html)).unwrap();

    let json = machine.run(&["status", "--max-age", "0s", "--json", "--config", &config]);
    let text = machine.run(&["status", "--config", &config]);

    let account = &json.json()["accounts"][0];
    assert_eq!((json.code, &account["error"]), (Some(0), &serde_json::Value::Null));
    assert!(account["not_refreshed"].is_string(), "{account}");
    assert!(text.stdout.contains("42 %") && text.stdout.contains("last refresh failed: "), "{}", text.stdout);
}

#[test]
fn contradictory_options_end_with_64() {
    for pair in [["--refresh", "--offline"], ["--max-age=1m", "--refresh"], ["--max-age=1m", "--offline"]] {
        assert_eq!(Machine::new().run(&["status", pair[0], pair[1]]).code, Some(64), "{pair:?}");
    }
}
