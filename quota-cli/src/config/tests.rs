//! Valid configurations, and the errors of invalid ones.

use std::time::Duration;

use jiff::Timestamp;
use quota::accounts::{Limits, RoutingMode, UnknownUsage};

use super::*;

const MAIN: &str = "[[accounts]]\nid = \"anthropic/main\"\n";

fn parsed(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/quota"), &[]).unwrap()
}

fn error_of(text: &str) -> String {
    Config::parse(text, Path::new(""), &[]).unwrap_err().message("config.toml", text)
}

/// The error of an account with these lines.
fn account_error(lines: &str) -> String {
    error_of(&format!("{MAIN}{lines}\n"))
}

#[test]
fn an_account_without_a_login_uses_claude_code() {
    let mut config = parsed(MAIN);

    assert_eq!(config.accounts[0].origin, Origin::Configured { line: 2 });
    config.accounts[0].origin = Origin::Default;
    assert_eq!(config, Config::default_account());
}

#[test]
fn the_removed_setting_lease_has_a_hint() {
    assert_eq!(
        error_of("[policy]\nlease = \"30s\"\n"),
        "config.toml:2:1: `lease` is no longer a setting: a lease always lasts 2 s longer than fetch_timeout; remove it"
    );
}

#[test]
fn every_setting_is_parsed() {
    let config = parsed(
        r#"
        [policy]
        freshness = "2m"
        budget = { per_hour = 20, reserve = 2 }

        [providers.anthropic]
        base_url = "https://proxy.example.com/anthropic"
        user_agent = "test/1"

        [[accounts]]
        id = "anthropic/work"
        token_env = "WORK"
        base_url = "http://127.0.0.1:8123"
        "#,
    );

    assert_eq!((config.policy.max_age, config.policy.budget.per_hour), (Duration::from_secs(120), 20));
    let anthropic = config.provider(config.accounts[0].id.provider()).clone();
    let base_url = anthropic.base_url.map(String::from);
    assert_eq!(base_url.as_deref(), Some("https://proxy.example.com/anthropic"));
    assert_eq!(anthropic.user_agent.as_deref(), Some("test/1"));
    let work = &config.accounts[0];
    assert_eq!((work.id.as_str(), &work.login), ("anthropic/work", &LoginSource::TokenEnv("WORK".into())));
    assert_eq!(work.base_url.as_ref().map(Url::as_str), Some("http://127.0.0.1:8123/"));
}

#[test]
fn missing_policy_keys_have_their_defaults() {
    let config = parsed(&format!("[policy]\ngap = \"2s\"\n{MAIN}"));

    assert_eq!(config.policy, Policy::default().min_call_interval(Duration::from_secs(2)));
}

#[test]
fn accounts_stay_in_their_order() {
    let config = parsed("[[accounts]]\nid = \"anthropic/z\"\n[[accounts]]\nid = \"anthropic/a\"\n");

    assert_eq!(config.accounts.iter().map(|one| one.id.name()).collect::<Vec<_>>(), ["z", "a"]);
}

#[test]
fn paths_are_relative_to_the_configuration() {
    let of = |line: &str| parsed(&format!("{MAIN}{line}")).accounts.remove(0).login;

    assert_eq!(of("token_file = 'main.token'"), LoginSource::TokenFile("/etc/quota/main.token".into()));
    assert_eq!(of("token_file = '/run/token'"), LoginSource::TokenFile("/run/token".into()));
    assert_eq!(of("claude_config_dir = '~/.claude-2'"), LoginSource::ClaudeConfigDir("~/.claude-2".into()));
}

#[test]
fn each_error_is_one_line_with_its_position() {
    let errors = [
        error_of("accounts = ["),
        error_of("[[acounts]]\nid = \"anthropic/main\"\n"),
        account_error("base_ulr = \"http://127.0.0.1\""),
        account_error("color = \"red\""),
        account_error("token = \"x\""),
        account_error("token_env = 5"),
        error_of("[[accounts]]\ntoken_env = \"X\"\n"),
        error_of("[[accounts]]\nid = \"main\"\n"),
        error_of("[[accounts]]\nid = \"antropic/main\"\n"),
        error_of("[[accounts]]\nid = \"quux/main\"\n"),
        error_of(&format!("{MAIN}\n{MAIN}")),
        account_error("token_env = \"X\"\ntoken_file = \"x\""),
        account_error("base_url = \"http://example.com\""),
        account_error("base_url = \"example.com\""),
        account_error("base_url = \"https://me:secret@example.com\""),
        error_of(&format!("[providers.anthropic]\nuser_agent = \"\"\n{MAIN}")),
        error_of(&format!("[providers.opnai]\nuser_agent = \"x\"\n{MAIN}")),
        error_of(&format!("[policy]\nfreshnes = \"5m\"\n{MAIN}")),
        error_of(&format!("[policy]\nfreshness = \"soon\"\n{MAIN}")),
        error_of(&format!("[policy]\nfreshness = 300\n{MAIN}")),
        error_of(&format!("\n[policy]\ngap = \"10m\"\n{MAIN}")),
        account_error("token_command = []"),
        account_error("keyring = { service = \"\" }"),
        account_error("keyring = { service = \"quota\", user = \"sk-ant-oat01-made-up\" }"),
        account_error("keyring = { user = \"me\" }"),
        account_error("keyring = { service = \"quota\" }\ntoken_file = \"x\""),
        account_error("token_env = \"\""),
        account_error("token_file = \"\""),
        account_error("claude_config_dir = \"\""),
        account_error("token_file = \"sk-ant-oat01-made-up\""),
        account_error("min_remaining = \"a lot\""),
        account_error("killswitch = { five_hours = 10 }"),
        error_of(&format!("[routing]\nmode = \"main_frist\"\n{MAIN}")),
        error_of(&format!("[routing]\nmin_remainign = 20\n{MAIN}")),
        error_of(&format!("[routing]\nminimum = 20\n{MAIN}")),
        error_of(&format!("[routing]\nwhen_unknown = \"open\"\n{MAIN}")),
        account_error("stop = 5"),
        error_of(&format!("[routing]\nmin_remaining = 120\n{MAIN}")),
        error_of(&format!("[routing]\nkillswitch = {{ every = 5, five_hour = true }}\n{MAIN}")),
        error_of(&format!("[routing]\nwhen_unknown = \"shut\"\n{MAIN}")),
        error_of(&format!("[routing]\nfallback_on = [429, 42]\n{MAIN}")),
        error_of(&format!("[routing]\nsession_ttl = 7\n{MAIN}")),
    ];

    assert!(errors.iter().all(|error| !error.contains('\n')), "{errors:#?}");
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn an_account_has_the_id_of_its_provider_under_every_name() {
    let config = parsed("[providers.codex]\nuser_agent = \"x\"\n[[accounts]]\nid = \"chatgpt/main\"\n");

    let account = &config.accounts[0];
    assert_eq!(account.id.as_str(), "openai/main");
    assert!(matches!(account.login, LoginSource::Program(_)), "{:?}", account.login);
    assert_eq!(config.provider(account.id.provider()).user_agent.as_deref(), Some("x"));
}

#[test]
fn a_folder_is_for_the_program_of_the_provider() {
    let login = |id: &str, key: &str| {
        let mut config = parsed(&format!("[[accounts]]\nid = \"{id}\"\n{key} = \"~/.other\"\n"));
        config.accounts.remove(0).login
    };

    assert_eq!(login("anthropic/main", "login_dir"), LoginSource::ClaudeConfigDir("~/.other".into()));
    assert!(matches!(login("codex/main", "login_dir"), LoginSource::ProgramDir(..)));
    let error = error_of("[[accounts]]\nid = \"codex/main\"\nclaude_config_dir = \"~/.other\"\n");
    assert!(error.ends_with("use login_dir for OpenAI Codex"), "{error}");
}

#[test]
fn the_users_policy_precedes_the_defaults_of_a_provider() {
    let config = parsed(&format!("[policy]\nfreshness = \"2m\"\n{MAIN}"));

    assert!(config.policy_keys.contains("freshness"));
    assert_eq!(config.policy_of(config.accounts[0].id.provider()).max_age, Duration::from_secs(120));
}

#[test]
fn no_error_repeats_a_token() {
    const TOKEN: &str = "sk-ant-oat01-made-up";
    let texts = [
        format!("accounts = \"{TOKEN}\""),
        format!("[[accounts]]\nid = \"{TOKEN}\"\n"),
        format!("[[accounts]]\nid = \"anthropic/{TOKEN}\"\n"),
        format!("{MAIN}token = \"{TOKEN}\"\n"),
        format!("{MAIN}{TOKEN} = 1\n"),
        format!("{MAIN}base_url = \"{TOKEN}\"\n"),
        format!("{MAIN}base_url = \"http://me:{TOKEN}@example.com\"\n"),
        format!("{MAIN}token_env = \"X\"\ntoken_file = \"{TOKEN}\"\n"),
        format!("{MAIN}token_file = \"{TOKEN}\"\n"),
        format!("{MAIN}claude_config_dir = \"{TOKEN}\"\n"),
        format!("{MAIN}login_dir = \"{TOKEN}\"\n"),
        format!("[providers.{TOKEN}]\nuser_agent = \"x\"\n{MAIN}"),
        format!("[providers.codex.headers]\nx-team = \"{TOKEN}\"\n{MAIN}"),
        format!("{MAIN}headers = {{ x-team = \"{TOKEN}\" }}\n"),
        format!("{MAIN}query = {{ team = \"{TOKEN}\" }}\n"),
        format!("{MAIN}query = {{ api_key = \"oat01\" }}\n"),
        format!("[policy]\nfreshness = \"{TOKEN}\"\n"),
        format!("[policy]\nwhen_away = \"{TOKEN}\"\n"),
        format!("{TOKEN}\n"),
    ];

    for text in texts {
        assert!(!error_of(&text).contains("oat01"), "{}", error_of(&text));
    }
}

fn hook(lines: &str) -> Hook {
    parsed(&format!("{MAIN}[[hooks]]\n{lines}")).hooks.remove(0)
}

#[test]
fn a_hook_applies_to_all_accounts_and_windows_by_default() {
    let hook = hook("on = [\"reset\"]\nrun = [\"notify-send\", \"quota\"]\n");

    assert_eq!(hook.on, ["reset"]);
    assert!(hook.accounts.is_empty() && hook.windows.is_empty() && hook.thresholds.is_empty());
    assert_eq!(hook.timeout, Duration::from_secs(10));
}

#[test]
fn thresholds_of_hooks_are_hundredths_of_a_percent() {
    let config =
        parsed(&format!("{MAIN}[[hooks]]\non = [\"threshold\"]\nthresholds = [82.5]\nrun = [\"x\"]\n"));

    assert_eq!(config.hooks[0].thresholds, [8_250]);
}

#[test]
fn debug_output_hides_the_url_of_a_hook() {
    let hook = hook("on = [\"reset\"]\npost = \"https://hooks.example.com/T000/secret\"\n");

    assert!(!format!("{hook:?}").contains("secret"), "{hook:?}");
}

#[test]
fn each_hook_error_is_one_line_with_its_position() {
    let of = |lines: &str| error_of(&format!("{MAIN}[[hooks]]\n{lines}\n"));
    let errors = [
        of("run = [\"x\"]"),
        of("on = []\nrun = [\"x\"]"),
        of("on = [\"treshold\"]\nrun = [\"x\"]"),
        of("on = [\"reset\"]"),
        of("on = [\"reset\"]\nrun = []"),
        of("on = [\"reset\"]\nrun = [\"x\"]\npost = \"https://example.com/secret\""),
        of("on = [\"reset\"]\npost = \"http://example.com/secret\""),
        of("on = [\"reset\"]\npost = \"secret\""),
        of("on = [\"reset\"]\nrun = [\"x\"]\nthresholds = [80]"),
        of("on = [\"threshold\"]\nrun = [\"x\"]\nthresholds = [0]"),
        of("on = [\"reset\"]\nrun = [\"x\"]\naccounts = [\"anthropic/mian\"]"),
        of("on = [\"reset\"]\nrun = [\"x\"]\ntimeout = \"2h\""),
        of("on = [\"reset\"]\nrun = [\"x\"]\ntimeout = \"soon\""),
        of("on = [\"reset\"]\nrum = [\"x\"]"),
    ];

    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn every_routing_setting_is_parsed() {
    let config = parsed(
        r#"
        [routing]
        mode = "sticky_balanced"
        min_remaining = 20
        killswitch = { every = 2.5, "seven_day/opus" = 10 }
        when_unknown = "deny"
        fallback_on = [429]
        throttle_cooldown = "10s"
        exhausted_cooldown = "1m"
        forbidden_cooldown = "2h"
        credential_timeout = "15s"
        route_timeout = "3s"
        session_ttl = "24h"
        max_sessions = 5
        max_session_wait = "0s"

        [[accounts]]
        id = "anthropic/main"
        token_command = ["./token", "main"]
        killswitch = 0
        "#,
    );

    let share = |percent| quota::Percent::from_percent(percent).unwrap();
    let stop = Limits::of(share(2.5)).window("seven_day/opus".parse().unwrap(), share(10.0));
    let mut policy =
        RoutingPolicy::default().mode(RoutingMode::StickyBalanced).min_remaining(Limits::of(share(20.0)));
    policy = policy.killswitch(stop).when_unknown(UnknownUsage::Deny).fallback_on([429]);
    policy = policy.sessions(Duration::from_secs(24 * 3600), 5).max_session_wait(Duration::ZERO);
    policy.throttle_cooldown = Duration::from_secs(10);
    policy.credential_timeout = Duration::from_secs(15);
    policy.route_timeout = Duration::from_secs(3);
    policy.exhausted_cooldown = Duration::from_secs(60);
    policy.forbidden_cooldown = Duration::from_secs(7200);
    assert_eq!(config.routing, policy);
    assert!(config.when_unknown_is_set);
    let main = &config.accounts[0];
    assert_eq!(main.limits, AccountLimits::none().killswitch(Limits::of(share(0.0))));
    assert_eq!(main.login, LoginSource::TokenCommand(vec!["/etc/quota/./token".into(), "main".into()]));
}

#[test]
fn missing_routing_keys_have_their_defaults() {
    let config = parsed(&format!("[routing]\n{MAIN}"));

    assert_eq!(config.routing, RoutingPolicy::default());
    assert!(!config.when_unknown_is_set);
}

/// The code blocks of docs/define-a-provider.md in this language.
fn documented(language: &str) -> Vec<&'static str> {
    let page = include_str!("../../../docs/define-a-provider.md");
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

#[test]
fn the_documented_provider_reads_the_documented_response() {
    let config = parsed(documented("toml")[0]);
    let provider = config.defined_providers.find("my-gateway").unwrap();
    let now = "2026-07-01T12:00:00Z".parse().unwrap();

    let usage = provider.parse(documented("json")[0].as_bytes(), now).unwrap().usage;

    let windows: Vec<_> = usage.windows.iter().map(|one| format!("{} {}", one.id, one.used)).collect();
    assert_eq!(windows, ["five_hour 25%", "seven_day 80%", "seven_day/opus 87.5%"]);
    assert_eq!(usage.plan.as_deref(), Some("team"));
    assert_eq!(usage.credits.unwrap().balance.unwrap().to_string(), "12.34 EUR");
    assert_eq!(config.accounts[0].id.as_str(), "my-gateway/main");
}

#[test]
fn the_documented_repair_replaces_only_the_parser() {
    let config = parsed(documented("toml")[1]);
    let kimi = config.defined_providers.find("kimi").unwrap();

    let body = br#"{ "quota": { "week": { "used": 3, "max": 4 } } }"#;
    let usage = kimi.parse(body, Timestamp::UNIX_EPOCH).unwrap().usage;

    assert_eq!(usage.windows[0].used.as_f64(), 75.0);
    assert_eq!(kimi.own_login(), quota::http::find_provider("kimi").unwrap().own_login());
    assert_eq!(config.defined_providers.all().filter(|one| one.id_str() == "kimi").count(), 1);
}

#[test]
fn a_table_and_a_list_define_the_same_provider() {
    let keys = "url = \"https://example.com/usage\"\nuser_agent = \"x\"\n";
    let window = "id = \"w\"\nused = \"$.used\"\n";
    let table = parsed(&format!("[providers.made-up]\n{keys}[[providers.made-up.windows]]\n{window}"));
    let list = parsed(&format!("[[providers]]\nid = \"made-up\"\n{keys}[[providers.windows]]\n{window}"));

    let find = |config: &Config| config.defined_providers.find("made-up").unwrap();
    assert!(std::ptr::eq(find(&table), find(&list)));
    assert_eq!(table, list);
}

#[test]
fn each_error_of_a_defined_provider_has_its_position() {
    let of = |keys: &str, window: &str| {
        error_of(&format!("[[providers]]\nid = \"made-up\"\n{keys}\n[[providers.windows]]\n{window}\n"))
    };
    let (url, window) = ("url = \"https://example.com/usage\"", "id = \"w\"\nused = \"$.used\"");
    let errors = [
        of(url, "id = \"w\"\nused = \"used\""),
        of(url, "id = \"w\"\nused = \"$.limits[?@.kind = 'x'].used\""),
        of(url, "id = \"w\"\nused = \"$..a..b\""),
        of(url, "id = \"w\""),
        of(url, "id = \"w\"\nused = \"$.used\"\nunit = \"amount\""),
        of(url, "id = \"w\"\nused = \"$.used\"\nunit = \"percents\""),
        of(url, "length = \"soon\"\nused = \"$.used\""),
        of(url, "id = \"w\"\nuse = \"$.used\""),
        of("", window),
        of("url = \"http://example.com/usage\"", window),
        of("url = \"usage\"", window),
        of(&format!("{url}\ntoken_header = \"content-length\""), window),
        of(&format!("{url}\nmethod = \"PUT\""), window),
        error_of("[[providers]]\nurl = \"https://example.com\"\n"),
        error_of("[[providers]]\nid = \"made-up\"\nurl = \"https://example.com\"\n"),
        error_of("[providers.kimi]\nid = \"kimi\"\n"),
    ];

    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn a_token_in_a_definition_is_not_repeated() {
    const TOKEN: &str = "sk-ant-oat01-made-up";
    let window = "[[providers.windows]]\nid = \"w\"\nused = \"$.used\"\n";
    let url = "url = \"https://example.com/usage\"";
    for keys in [
        format!("url = \"https://example.com/usage?key={TOKEN}\""),
        format!("{url}\ntoken_prefix = \"Bearer {TOKEN}\""),
        format!("{url}\ntoken_header = \"{TOKEN}\""),
        format!("{url}\nmethod = \"POST\"\nbody = {{ key = \"{TOKEN}\" }}"),
        format!("{url}\nheaders = {{ x-key = \"{TOKEN}\" }}"),
        format!("{url}\nplan = \"$.{TOKEN}[\""),
        format!("{url}\ntoken = \"{TOKEN}\""),
    ] {
        let error = error_of(&format!("[[providers]]\nid = \"made-up\"\n{keys}\n{window}"));

        assert!(!error.contains("made-up\"") && !error.contains("oat01"), "{error}");
    }
}
