//! `quota statusline`: its output, and the session data that it reads and stores.

use std::io::Write as _;
use std::process::Stdio;

use quota_sim::{Account, Answer, ExtraUsage, Phase, Script, Window};

use super::support::{Ended, Machine, Provider, argument};

/// A format without the time until a reset, which changes during the test.
const FORMAT: &str = "{five_hour.used} {seven_day.used}";

/// A machine with cached usage that stays fresh.
fn with_cached_usage() -> (Provider, Machine, String) {
    let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
    let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config).to_owned();
    assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
    (provider, machine, config)
}

fn with_input(machine: &Machine, arguments: &[&str], input: &str) -> Ended {
    let mut child = machine
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The write fails if the program ended without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Ended::of(child.wait_with_output().unwrap())
}

#[test]
fn cached_usage_is_shown_without_a_call() {
    let (provider, machine, config) = with_cached_usage();

    let ended = machine.run(&["statusline", "--format", FORMAT, "--config", &config]);

    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("42% 17%\n", ""));
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn usage_cached_on_a_server_is_shown() {
    let server = redis_harness::Server::start();
    let store = server.url();
    let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
    let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config);
    assert_eq!(machine.run(&["status", "--config", config, "--store", &store]).code, Some(0));

    let ended = machine.run(&["statusline", "--format", FORMAT, "--config", config, "--store", &store]);

    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("42% 17%\n", ""));
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_custom_format_is_used() {
    let (_provider, machine, config) = with_cached_usage();

    let ended =
        machine.run(&["statusline", "--config", &config, "--format", "{account} {five_hour.left} {state}"]);

    assert_eq!(ended.stdout, "anthropic/main 58% fresh\n");
}

#[test]
fn json_has_the_format_of_status() {
    let (_provider, machine, config) = with_cached_usage();

    let document = machine.run(&["statusline", "--config", &config, "--json"]).json();

    assert_eq!(document["version"], 2);
    assert_eq!(document["accounts"][0]["windows"][0]["used_percent"], 42.0);
}

#[test]
fn a_usage_error_is_one_line_with_64() {
    let (_provider, machine, config) = with_cached_usage();
    for (arguments, expected) in [
        (["--format", "{five_hour.usd}"], "did you mean {five_hour.used}?"),
        (["--format", "{"], "--format, character 1: { without }"),
        (["--account", "mian"], "unknown account mian; "),
    ] {
        let ended = machine.run(&["statusline", "--config", &config, arguments[0], arguments[1]]);

        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{arguments:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn an_open_pipe_without_input_does_not_delay_the_line() {
    let (_provider, machine, config) = with_cached_usage();
    let mut child = machine
        .command(&["statusline", "--format", FORMAT, "--config", &config])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let silent = child.stdin.take();

    let ended = Ended::of(child.wait_with_output().unwrap());

    assert_eq!(ended.stdout, "42% 17%\n");
    drop(silent);
}

#[test]
fn other_input_changes_nothing() {
    let (_provider, machine, config) = with_cached_usage();
    for input in ["", "hello", "{", "[]", "{\"model\":7}"] {
        let ended = with_input(&machine, &["statusline", "--format", FORMAT, "--config", &config], input);

        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("42% 17%\n", ""), "{input}");
    }
}

#[test]
fn a_session_cannot_control_the_terminal() {
    let (_provider, machine, config) = with_cached_usage();
    let session = r#"{"model":{"display_name":"\u001b[2JOpus\u202e\n"}}"#;

    let ended = with_input(
        &machine,
        &["statusline", "--account", "main", "--format", "{model} {five_hour.used}", "--config", &config],
        session,
    );

    assert_eq!(ended.stdout, "?[2JOpus?? 42%\n");
}

/// A machine on which Claude Code is logged in as the account of the provider.
fn logged_in() -> (Provider, Machine, String) {
    let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
    let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
    let machine = Machine::new();
    machine.log_in("sim-token-main");
    let url = provider.url();
    let accounts = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{url}\"\n");
    let config = argument(&machine.write("config.toml", accounts)).to_owned();
    assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));
    (provider, machine, config)
}

fn session(percent: f64) -> String {
    format!(r#"{{"rate_limits":{{"five_hour":{{"used_percentage":{percent}}}}}}}"#)
}

#[test]
fn a_session_is_a_reading_for_all_processes() {
    let (provider, machine, config) = logged_in();

    let shown =
        with_input(&machine, &["statusline", "--format", FORMAT, "--config", &config], &session(55.0));
    let others = machine.run(&["statusline", "--format", FORMAT, "--config", &config]);

    assert!(shown.stdout.starts_with("55%"), "{}", shown.stdout);
    assert!(others.stdout.starts_with("55%"), "{}", others.stdout);
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn an_idle_session_does_not_lower_a_reading() {
    let (_provider, machine, config) = logged_in();
    with_input(&machine, &["statusline", "--format", FORMAT, "--config", &config], &session(55.0));

    let idle = with_input(&machine, &["statusline", "--format", FORMAT, "--config", &config], &session(43.0));

    assert!(idle.stdout.starts_with("55%"), "{}", idle.stdout);
}

/// Session data with the usage of the 5-hour window and the seconds until its reset.
fn session_until(percent: f64, seconds: i64) -> String {
    let resets_at = quota::Clock::system().now().as_second() + seconds;
    let window = format!(r#"{{"used_percentage":{percent},"resets_at":{resets_at}}}"#);
    format!(r#"{{"rate_limits":{{"five_hour":{window}}}}}"#)
}

#[test]
fn a_session_with_an_epoch_for_a_percentage_changes_nothing() {
    let (_provider, machine, config) = logged_in();

    let shown =
        with_input(&machine, &["statusline", "--format", FORMAT, "--config", &config], &session(1.8e9));

    assert_eq!(shown.stdout, "42% 17%\n");
    assert_eq!(machine.run(&["guard", "--config", &config]).code, Some(0));
}

#[test]
fn a_session_left_open_overnight_changes_nothing() {
    let (_provider, machine, config) = logged_in();
    let overnight = session_until(97.0, -9 * 3600);

    let shown = with_input(&machine, &["statusline", "--format", FORMAT, "--config", &config], &overnight);

    assert_eq!(shown.stdout, "42% 17%\n");
    assert_eq!(machine.run(&["guard", "--config", &config]).code, Some(0));
}

#[test]
fn a_session_older_than_a_lowered_reading_changes_nothing() {
    let provider = |used| {
        let windows = [Window::five_hour().used(used), Window::seven_day().used(17.0)];
        let windows = windows.map(|window| window.resets_in(std::time::Duration::from_secs(7200)));
        Provider::play(Script::new([Account::new("main").windows(windows)]))
    };
    let machine = Machine::new();
    machine.log_in("sim-token-main");
    let polls = |provider: &Provider| {
        let url = provider.url();
        let accounts = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{url}\"\n");
        let config = argument(&machine.write("config.toml", accounts)).to_owned();
        assert_eq!(machine.run(&["status", "--max-age", "0s", "--config", &config]).code, Some(0));
        config
    };
    let _ = polls(&provider(99.5));
    let lowered = provider(3.0);
    let config = polls(&lowered);

    let line = |used| {
        let arguments = ["statusline", "--format", FORMAT, "--config", &config];
        with_input(&machine, &arguments, &session_until(used, 7200)).stdout
    };

    assert_eq!((line(99.5).as_str(), line(99.5).as_str()), ("3% 17%\n", "3% 17%\n"));
    assert_eq!(machine.run(&["guard", "--config", &config]).code, Some(0));
    assert_eq!(line(99.7), "99.7% 17%\n");
}

#[test]
fn a_session_without_an_account_is_not_stored() {
    let (_provider, machine, config) = logged_in();
    let elsewhere = machine.path("elsewhere");
    let stranger = machine.set("CLAUDE_CONFIG_DIR", elsewhere.to_str().unwrap());
    let accounts = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{accounts}claude_config_dir = \"~/.claude\"\n")).unwrap();

    with_input(&stranger, &["statusline", "--format", FORMAT, "--config", &config], &session(99.0));

    let shown = stranger.run(&["statusline", "--format", FORMAT, "--config", &config]);
    assert!(shown.stdout.starts_with("42%"), "{}", shown.stdout);
}

/// A machine with fresh readings of a login that is not the session's, and the session's variables.
fn with_session_of_another_login() -> (Provider, Machine, String) {
    let (provider, machine, config) = logged_in();
    let accounts = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{accounts}claude_config_dir = \"~/.claude\"\n")).unwrap();
    let elsewhere = machine.path("elsewhere");
    (provider, machine.set("CLAUDE_CONFIG_DIR", elsewhere.to_str().unwrap()), config)
}

#[test]
fn a_session_of_another_login_does_not_show_the_numbers_of_an_account() {
    let (provider, machine, config) = with_session_of_another_login();
    let model = r#""model":{"display_name":"Opus"}"#;
    let line = |input: &str, arguments: &[&str]| {
        let all = [&["statusline", "--config", &config], arguments].concat();
        with_input(&machine, &all, input).stdout
    };
    let unread = format!("{{{model}}}");
    let with_usage = format!(r#"{{{model},"rate_limits":{{"five_hour":{{"used_percentage":5}}}}}}"#);

    assert_eq!(line(&unread, &[]), "Opus · unknown account\n");
    assert_eq!(line(&unread, &["--format", "{model} {five_hour.used} {reason}"]), "Opus ? unknown account\n");
    assert!(line(&with_usage, &[]).starts_with("Opus · 5h 5%"), "{}", line(&with_usage, &[]));
    let document: serde_json::Value = serde_json::from_str(&line(&unread, &["--json"])).unwrap();
    assert_eq!(document["accounts"][0]["reason"], "unknown_account");
    assert_eq!(document["accounts"][0]["windows"], serde_json::json!([]));

    // Without a session, and with a named account, the line shows that account.
    assert!(line("", &[]).starts_with("5h 42%"));
    assert!(line(&unread, &["--account", "main"]).starts_with("Opus · 5h 42%"));
    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn a_session_with_an_api_key_does_not_show_the_numbers_of_an_account() {
    let (_provider, machine, config) = logged_in();
    let machine = machine.set("ANTHROPIC_API_KEY", "sk-ant-api03-made-up");
    let session = r#"{"model":{"display_name":"Opus"},"cost":{"total_cost_usd":1.25}}"#;

    let ended = with_input(&machine, &["statusline", "--config", &config], session);

    assert_eq!(ended.stdout, "Opus · unknown account\n");
}

/// A machine that `what` sets up, after one refresh.
fn refreshed_once(what: impl FnOnce(&Provider, Machine) -> (Machine, String)) -> (Machine, String) {
    let windows = [Window::five_hour().used(42.0), Window::seven_day().used(17.0)];
    let provider = Provider::play(Script::new([Account::new("main").windows(windows)]));
    what(&provider, Machine::new())
}

fn line(machine: &Machine, config: &str, arguments: &[&str]) -> Ended {
    let mut all = vec!["statusline", "--config", config];
    all.extend(arguments);
    machine.run(&all)
}

fn one_account(machine: &Machine, url: &str, login: &str) -> String {
    let text = format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"{url}\"\n{login}");
    argument(&machine.write("config.toml", text)).to_owned()
}

#[test]
fn a_missing_login_is_named() {
    for login in ["", "token_env = \"QUOTA_NONE\"\n", "token_file = \"none.token\"\n"] {
        let machine = Machine::new();
        let config = one_account(&machine, "http://127.0.0.1:9", login);

        assert_eq!(line(&machine, &config, &[]).stdout, "not logged in\n", "{login}");
    }
}

#[test]
fn a_rejected_login_is_named() {
    let (machine, config) = refreshed_once(|provider, machine| {
        let machine = machine.set("QUOTA_WRONG", "sim-token-unknown");
        let config = one_account(&machine, &provider.url(), "token_env = \"QUOTA_WRONG\"\n");
        machine.run(&["status", "--config", &config]);
        (machine, config)
    });

    assert_eq!(line(&machine, &config, &[]).stdout, "login rejected\n");
    assert_eq!(
        line(&machine, &config, &["--format", "{five_hour.used} {reason}"]).stdout,
        "? login rejected\n"
    );
    let account = &line(&machine, &config, &["--json"]).json()["accounts"][0];
    assert_eq!(account["reason"], "login_rejected");
    let bar = line(&machine, &config, &["--preset", "waybar"]).json();
    assert_eq!(
        (&bar["text"], &bar["class"]),
        (&"login rejected".into(), &["stale", "login-rejected"][..].into())
    );
}

#[test]
fn a_forbidden_account_is_named() {
    for (answer, reason) in [(Answer::ThrottleNoHeader, "rate limited"), (Answer::Forbidden, "forbidden")] {
        let account = Account::new("main").answers([Phase::new(answer)]);
        let provider = Provider::play(Script::new([account]));
        let (machine, config) = provider.configure(Machine::new());
        let config = argument(&config);
        machine.run(&["status", "--config", config]);

        assert_eq!(line(&machine, config, &[]).stdout, format!("{reason}\n"));
    }
}

#[test]
fn a_stale_number_near_the_limit_is_critical_in_waybar() {
    let provider =
        Provider::play(Script::new([Account::new("main").windows([Window::five_hour().used(99.5)])]));
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("[policy]\n", "[policy]\nfreshness = \"2ms\"\n", 1)).unwrap();
    let config = argument(&config);
    assert_eq!(machine.run(&["status", "--config", config]).code, Some(0));

    let bar = line(&machine, config, &["--preset", "waybar"]).json();

    assert_eq!(bar["class"], serde_json::json!(["critical", "stale"]));
}

#[test]
fn an_unreachable_provider_is_named() {
    let machine = Machine::new().set("QUOTA_TOKEN", "sim-token-main");
    let config = one_account(&machine, "http://127.0.0.1:9", "token_env = \"QUOTA_TOKEN\"\n");
    machine.run(&["status", "--config", &config]);

    assert_eq!(line(&machine, &config, &[]).stdout, "offline\n");
}

#[test]
fn an_unreachable_store_is_named() {
    let machine =
        Machine::new().set("QUOTA_STORE", "redis://127.0.0.1:9").set("QUOTA_TOKEN", "sim-token-main");
    let config = one_account(&machine, "http://127.0.0.1:9", "token_env = \"QUOTA_TOKEN\"\n");

    assert_eq!(line(&machine, &config, &[]).stdout, "store unreachable\n");
}

#[cfg(unix)]
#[test]
fn a_login_error_of_a_token_command_is_named() {
    let machine = Machine::new().set("PATH", "/usr/bin:/bin");
    let config = one_account(&machine, "http://127.0.0.1:9", "token_command = [\"false\"]\n");

    let mut shown = line(&machine, &config, &[]).stdout;
    assert_eq!(shown, "no data\n");
    while shown == "no data\n" {
        shown = line(&machine, &config, &[]).stdout;
    }

    assert_eq!(shown, "not logged in\n");
}

#[test]
fn without_a_reason_the_line_is_no_data() {
    let (machine, config) = refreshed_once(|provider, machine| {
        let (machine, config) = provider.configure(machine);
        let config = argument(&config).to_owned();
        (machine, config)
    });

    assert_eq!(line(&machine, &config, &[]).stdout, "no data\n");
}

#[test]
fn a_disabled_account_is_named() {
    let machine = Machine::new().set("QUOTA_TOKEN", "sim-token-main");
    machine.run(&["accounts", "add", "main", "--token-env", "QUOTA_TOKEN"]);
    machine.run(&["accounts", "disable", "main"]);

    assert_eq!(machine.run(&["statusline", "--account", "main"]).stdout, "disabled\n");
    assert_eq!(machine.run(&["statusline"]).stdout, "quota: all accounts disabled\n");
}

#[test]
fn a_session_is_shown_without_an_account() {
    let machine = Machine::new();

    let shown = with_input(&machine, &["statusline"], &session(55.0));

    assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("5h 55%\n", ""));
    assert_eq!(machine.run(&["statusline"]).stdout, "not logged in\n");
}

#[test]
fn a_session_without_an_account_is_only_in_its_own_line() {
    let (_provider, machine, config) = logged_in();
    let elsewhere = machine.path("elsewhere");
    let stranger = machine.set("CLAUDE_CONFIG_DIR", elsewhere.to_str().unwrap());
    let accounts = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{accounts}claude_config_dir = \"~/.claude\"\n")).unwrap();
    let shown = |arguments: &[&str]| {
        let mut all = vec!["statusline", "--config", &config, "--format", "{account} {five_hour.used}"];
        all.extend(arguments);
        with_input(&stranger, &all, &session(99.0)).stdout
    };

    assert_eq!(shown(&[]), "anthropic/session 99%\n");
    assert_eq!(shown(&["--account", "main"]), "anthropic/main 42%\n");
}

#[test]
fn a_broken_configuration_still_prints_a_line() {
    let machine = Machine::new();
    let config = argument(&machine.write("config.toml", "[polciy]\n")).to_owned();
    let arguments = ["statusline", "--config", &config];

    let plain = machine.run(&arguments);
    let with_session = with_input(&machine, &arguments, &session(55.0));
    let json = line(&machine, &config, &["--json"]);

    assert_eq!((plain.code, plain.stdout.as_str()), (Some(0), "quota: config error\n"));
    assert!(plain.stderr.contains("did you mean `policy`?"), "{}", plain.stderr);
    assert_eq!(with_session.stdout, "5h 55% · quota: config error\n");
    assert_eq!((json.code, &json.json()["error"]), (Some(78), &"config_error".into()));
}

#[test]
fn an_unusable_store_still_prints_a_line() {
    let machine = Machine::new().set("QUOTA_STORE", "redsi://x");

    let ended = machine.run(&["statusline"]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "quota: store error\n"));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn an_account_with_only_credits_shows_them() {
    let account = Account::new("main").windows([]).extra_usage(ExtraUsage::new(1234, 5000));
    let provider = Provider::play(Script::new([account]));
    let (machine, config) = provider.configure(Machine::new());
    let config = argument(&config);
    assert_eq!(machine.run(&["status", "--config", config]).code, Some(0));

    assert_eq!(line(&machine, config, &[]).stdout, "extra usage: 12.34 of 50.00 USD\n");
    assert_eq!(line(&machine, config, &["--format", "{reason}"]).stdout, "no windows\n");
    let json = line(&machine, config, &["--json"]).json();
    assert_eq!(json["accounts"][0]["reason"], "no_windows");
}

/// Runs the program without a home directory, with `input` on standard input.
fn run_without_home(arguments: &[&str], input: &str) -> Ended {
    let machine = Machine::new();
    let mut command = machine.command(arguments);
    command.env_remove("HOME").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Ended::of(child.wait_with_output().unwrap())
}

#[test]
fn without_a_home_directory_the_session_is_shown() {
    let ended = run_without_home(&["statusline"], &session(55.0));

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "5h 55%\n"));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("set HOME"), "{}", ended.stderr);
    let json = run_without_home(&["statusline", "--json"], &session(55.0));
    assert_eq!((json.code, &json.json()["accounts"][0]["reason"]), (Some(0), &"no_home_directory".into()));
}

#[test]
fn without_a_home_directory_or_session_the_line_says_so() {
    let ended = run_without_home(&["statusline"], "");

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "quota: no home directory\n"));
    assert!(ended.stderr.contains("set HOME"), "{}", ended.stderr);
    let json = run_without_home(&["statusline", "--json"], "");
    assert_eq!((json.code, &json.json()["error"]), (Some(78), &"no_home_directory".into()));
}

#[test]
fn a_store_that_is_not_shared_still_shows_the_session() {
    let machine = Machine::new();
    let shown = |input: &str| with_input(&machine, &["statusline", "--store", "memory:"], input);

    assert_eq!((shown(&session(55.0)).code, shown(&session(55.0)).stdout.as_str()), (Some(0), "5h 55%\n"));
    let alone = shown("");
    assert_eq!((alone.code, alone.stdout.as_str()), (Some(0), "quota: store not shared\n"));
    assert!(alone.stderr.contains("use a file: sqlite:///path"), "{}", alone.stderr);
}
