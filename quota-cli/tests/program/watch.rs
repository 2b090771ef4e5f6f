//! `quota watch` on a terminal. However it ends, it restores the terminal.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Child;

use quota_sim::{Account, Answer, Change, Phase, Script, Window};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::pty::Pty;
use super::support::{Machine, Provider, argument};

const ENTER_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";
const HIDE_CURSOR: &str = "\u{1b}[?25l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";
const CLEAR: &str = "\u{1b}[2J";
/// The last words of each drawn screen.
const DRAWN: &str = "/ filter";

/// A running `quota watch` that has drawn its first screen.
struct Env {
    provider: Provider,
    machine: Machine,
    config: PathBuf,
    pty: Pty,
    watch: Child,
}

impl Env {
    fn new(account: Account) -> Self {
        Self::of(Script::new([account]), "")
    }

    /// Starts a watch with these lines in the policy.
    fn of(script: Script, policy: &str) -> Self {
        let provider = Provider::play(script);
        let (machine, config) = provider.configure(Machine::new());
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replacen("[policy]\n", &format!("[policy]\n{policy}\n"), 1)).unwrap();
        Self::start(provider, machine, config)
    }

    fn start(provider: Provider, machine: Machine, config: PathBuf) -> Self {
        let mut pty = Pty::new(80, 24);
        let watch = pty.start(machine.command(&["watch", "--config", argument(&config)]));
        let first_screen = pty.until(DRAWN);
        assert!(
            first_screen.contains(ENTER_SCREEN) && first_screen.contains(HIDE_CURSOR),
            "{first_screen:?}"
        );
        assert!(!pty.is_in_cooked_mode());
        Self { provider, machine, config, pty, watch }
    }

    /// Waits until a word is on the screen. `watch` draws only changes, so each attempt resizes the terminal to get a full screen.
    fn until_shown(&mut self, word: &str) {
        self.until_shown_times(word, 1);
    }

    /// Waits until a word is on the screen at least this many times.
    fn until_shown_times(&mut self, word: &str, times: usize) {
        self.until_drawn(word, |screen| screen.matches(word).count() >= times);
    }

    fn until_drawn(&mut self, wanted: &str, is_there: impl Fn(&str) -> bool) {
        let mut last = String::new();
        for attempt in 0..5_000_u16 {
            self.pty.resize(100 + attempt % 2, 30);
            self.signal(Signal::WINCH);
            let drawn = self.pty.until(HIDE_CURSOR);
            if drawn.contains(CLEAR) {
                last = drawn;
            }
            if is_there(&last) {
                return;
            }
        }
        panic!("{wanted} is not shown: {last:?}");
    }

    /// Waits until the screen has these words in this order.
    fn until_in_order(&mut self, words: [&str; 2]) {
        self.until_drawn(&format!("{words:?} in this order"), |screen| {
            let places = words.map(|word| screen.find(word));
            places.iter().all(Option::is_some) && places.is_sorted()
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.watch)
    }

    /// Waits for the end, checks that the terminal is restored, and returns the exit code.
    fn end(mut self) -> Option<i32> {
        let code = self.watch.wait().unwrap().code();
        let rest = self.pty.rest();
        assert_restored(&rest);
        assert!(self.pty.is_in_cooked_mode());
        code
    }
}

/// Asserts that the last escape sequences restore the screen and the cursor.
fn assert_restored(written: &str) {
    assert!(written.rfind(LEAVE_SCREEN) > written.rfind(ENTER_SCREEN), "{written:?}");
    assert!(written.rfind(SHOW_CURSOR) > written.rfind(HIDE_CURSOR), "{written:?}");
}

fn account() -> Account {
    Account::new("main").windows([Window::five_hour().used(42.0)])
}

#[test]
fn a_refresh_key_obeys_the_call_limit() {
    let mut env = Env::new(Account::new("main").windows([Window::five_hour().used(37.5)]));
    // A resize redraws the whole screen, so the number appears even if it was drawn before.
    env.pty.resize(100, 24);
    env.pty.until("37.5");

    env.pty.press("r");
    env.pty.until("limit:");
    env.pty.press("R");
    env.pty.press("q");

    let provider = &env.provider.simulator;
    assert_eq!(provider.ledger().calls(), 1);
    assert_eq!(env.end(), Some(0));
}

#[test]
fn q_restores_the_terminal() {
    for (key, code) in [("q", 0), ("\u{1b}", 0), ("\u{3}", 130)] {
        let mut env = Env::new(account());

        env.pty.press(key);

        assert_eq!(env.end(), Some(code), "{key:?}");
    }
}

#[test]
fn a_signal_restores_the_terminal_and_is_the_exit_code() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let env = Env::new(account());

        env.signal(signal);

        assert_eq!(env.end(), Some(code), "{signal:?}");
    }
}

#[test]
fn a_hanging_call_does_not_delay_the_end() {
    let mut env = Env::new(account().answers([Phase::new(Answer::Hang)]));

    env.pty.press("q");

    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_resized_terminal_is_redrawn() {
    let mut env = Env::new(account());

    env.pty.resize(120, 40);
    env.signal(Signal::WINCH);
    // No earlier line was this long.
    env.pty.until(&"─".repeat(119));

    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn no_key_is_lost_during_a_resize() {
    let mut env = Env::new(account());

    for _ in 0..200 {
        env.signal(Signal::WINCH);
        env.pty.press("?");
        // A word that only the help shows.
        env.pty.until("elapsed");
        // Any key closes the help.
        env.pty.press(" ");
    }

    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_stopped_watch_restores_the_terminal() {
    let stops: [fn(&mut Env); 2] = [|env| env.pty.press("\u{1a}"), |env| env.signal(Signal::TSTP)];
    for stop in stops {
        let mut env = Env::new(account());

        stop(&mut env);
        let (_, status) = waitpid(Some(env.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
        assert_restored(&env.pty.rest());
        assert!(env.pty.is_in_cooked_mode());

        env.signal(Signal::CONT);
        let again = env.pty.until(DRAWN);
        assert!(again.contains(ENTER_SCREEN) && again.contains(HIDE_CURSOR), "{again:?}");
        assert!(!env.pty.is_in_cooked_mode());
        env.pty.press("q");
        assert_eq!(env.end(), Some(0));
    }
}

#[test]
fn a_closed_terminal_ends_with_a_hang_up() {
    let Env { pty, mut watch, provider: _provider, machine: _machine, .. } = Env::new(account());

    drop(pty);

    assert_eq!(watch.wait().unwrap().code(), Some(129));
}

#[test]
fn quitting_releases_the_lease() {
    let mut env = Env::new(account().answers([Phase::new(Answer::Hang)]));
    while env.provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }
    env.pty.press("q");
    assert_eq!(env.watch.wait().unwrap().code(), Some(0));

    env.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    let next = env.machine.run(&["status", "--config", argument(&env.config)]);

    assert_eq!((next.code, next.stderr.as_str()), (Some(0), ""), "the next command did not wait");
}

#[test]
fn changed_accounts_are_shown() {
    let mut env = Env::new(account());
    let text = std::fs::read_to_string(&env.config).unwrap();
    let run = |env: &Env, command: &[&str]| {
        let config = ["--config", argument(&env.config)];
        let ended = env.machine.run(&[&["accounts"], command, &config].concat());
        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
    };

    std::fs::write(&env.config, format!("{text}[[accounts]]\nid = \"anthropic/new\"\n")).unwrap();
    env.until_shown("anthropic/new");
    run(&env, &["disable", "anthropic/main"]);
    env.until_shown("disabled");
    run(&env, &["enable", "anthropic/main"]);
    env.until_shown("read");
    std::fs::write(&env.config, &text).unwrap();
    env.until_shown("account,");

    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_broken_configuration_keeps_the_last_good_one() {
    let mut env = Env::new(account());
    let text = std::fs::read_to_string(&env.config).unwrap();

    std::fs::write(&env.config, "[[accounts]\n").unwrap();
    env.until_shown("config.toml");
    // Pressing a key does not clear the error while it persists, and the account can still be selected.
    env.pty.press("j");
    env.until_shown("▌");
    env.until_shown("config.toml");
    std::fs::write(&env.config, &text).unwrap();
    env.until_shown("filter");

    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_permission_error_ends_with_its_chmod() {
    let mut env = Env::new(account());
    let chmod = |env: &Env, mode| {
        std::fs::set_permissions(&env.config, Permissions::from_mode(mode)).unwrap();
    };

    chmod(&env, 0o666);
    env.until_shown("go-w");
    chmod(&env, 0o644);
    env.until_shown("filter");

    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_hanging_account_does_not_hide_the_others() {
    let accounts = ["main", "work"].map(|name| Account::new(name).windows([Window::five_hour().used(42.0)]));
    // The fetch timeout is longer than the test.
    let mut env = Env::of(Script::new(accounts), "fetch_timeout = \"10m\"\nfreshness = \"3s\"");
    env.until_shown_times("42 %", 2);
    env.provider.simulator.set("main", Change::answer(Answer::Hang)).unwrap();
    env.provider.simulator.set("work", Change::used(Window::five_hour(), 77.0)).unwrap();

    env.until_shown("77");
    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_refresh_key_joins_a_call_in_flight() {
    let mut env = Env::new(account().answers([Phase::new(Answer::Hang)]));
    while env.provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }

    env.pty.press("rR");
    // A word of the help shows that both keys were read.
    env.pty.press("?");
    env.pty.until("elapsed");
    env.pty.press(" ");
    env.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();

    env.until_shown("42 %");
    env.pty.press("q");
    let calls = env.provider.simulator.ledger().calls();
    assert_eq!((env.end(), calls), (Some(0), 1));
}

#[test]
fn refresh_all_shows_one_account_while_another_hangs() {
    let hanging = account().answers([Phase::new(Answer::Hang)]);
    let of_use = |name, used| Account::new(name).windows([Window::five_hour().used(used)]);
    let (first, second) = (of_use("first", 42.0), of_use("second", 77.0));
    let provider = Provider::play(Script::new([hanging, first.clone(), second.clone()]));
    let machine = Machine::new().set("QUOTA_MAIN", &provider.token());
    let token = machine.write("work.token", &*first.token());
    std::fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let login = |name, login| {
        format!("[[accounts]]\nid = \"anthropic/{name}\"\nbase_url = \"{}\"\n{login}\n", provider.url())
    };
    // The fetch timeout is longer than the test.
    let policy = "[policy]\ngap = \"1ms\"\nfetch_timeout = \"10m\"\n";
    let main = login("main", "token_env = \"QUOTA_MAIN\"");
    let work = login("work", "token_file = \"work.token\"");
    let config = machine.write("config.toml", format!("{policy}{main}{work}"));
    let mut env = Env::start(provider, machine, config);
    env.until_shown("42 %");

    // The call limit does not apply to a new token.
    std::fs::write(&token, &*second.token()).unwrap();
    env.pty.press("R");

    env.until_shown("77 %");
    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

#[test]
fn a_changed_order_is_shown() {
    let accounts = ["main", "work"].map(|name| Account::new(name).windows([Window::five_hour().used(42.0)]));
    let mut env = Env::of(Script::new(accounts), "");
    env.until_in_order(["anthropic/main", "anthropic/work"]);

    let order = ["accounts", "order", "anthropic/work", "anthropic/main", "--config", argument(&env.config)];
    let ended = env.machine.run(&order);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    env.until_in_order(["anthropic/work", "anthropic/main"]);
    env.pty.press("q");
    assert_eq!(env.end(), Some(0));
}

const HOOK_FAILURES: &str = ".local/state/quota/hook-failures.json";

/// A watch that shows a hook failure of an earlier command.
fn with_hook_failure() -> Env {
    let provider = Provider::play(Script::new([account()]));
    let (machine, config) = provider.configure(Machine::new());
    let failure = r#"{"at":"2026-11-23T12:00:00Z","text":"hook 1 could not be run"}"#;
    machine.write(HOOK_FAILURES, format!(r#"{{"version":1,"failures":[{failure}]}}"#));
    let mut env = Env::start(provider, machine, config);
    env.until_shown("hook 1 could not be run");
    env
}

#[test]
fn a_signal_leaves_an_unread_hook_failure_to_the_next_command() {
    for signal in [Signal::TERM, Signal::HUP, Signal::KILL] {
        let mut env = with_hook_failure();

        env.signal(signal);
        env.watch.wait().unwrap();

        let status = env.machine.run(&["status", "--config", argument(&env.config)]);
        assert!(status.stderr.contains("hook 1 could not be run"), "{signal:?}: {}", status.stderr);
    }
}

#[test]
fn a_read_hook_failure_is_not_reported_again() {
    let mut env = with_hook_failure();

    env.pty.press("jq");

    let (machine, config) = (std::mem::replace(&mut env.machine, Machine::new()), env.config.clone());
    assert_eq!(env.end(), Some(0));
    let status = machine.run(&["status", "--config", argument(&config)]);
    assert_eq!(status.stderr, "");
}

#[test]
fn without_a_terminal_status_is_recommended() {
    let ended = Machine::new().run(&["watch"]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    assert_eq!(ended.stderr, "quota: quota watch needs a terminal; use quota status in scripts\n");
}
