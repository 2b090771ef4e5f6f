//! `quota watch` on a terminal: however it ends, the terminal is as it was before.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Child;

use quota_sim::{Account, Answer, Change, Phase, Script, Window};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::program::{Machine, Provider, argument};
use super::pty::Pty;

const SCREEN_OF_ITS_OWN: &str = "\u{1b}[?1049h";
const SCREEN_OF_ALL: &str = "\u{1b}[?1049l";
const NO_CURSOR: &str = "\u{1b}[?25l";
const CURSOR: &str = "\u{1b}[?25h";
const CLEAR: &str = "\u{1b}[2J";
/// The last that is drawn of a screen.
const DRAWN: &str = "/ filter";

/// A watch that has drawn its first screen.
struct World {
    provider: Provider,
    machine: Machine,
    config: PathBuf,
    pty: Pty,
    watch: Child,
}

impl World {
    fn new(account: Account) -> Self {
        Self::of(Script::new([account]), "")
    }

    /// With this in the policy.
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
        let begun = pty.until(DRAWN);
        assert!(begun.contains(SCREEN_OF_ITS_OWN) && begun.contains(NO_CURSOR), "{begun:?}");
        assert!(!pty.is_as_shells_want_it());
        Self { provider, machine, config, pty, watch }
    }

    /// Waits until a word is on the screen. Only what has changed is drawn, so each look is at one of another size.
    fn until_shown(&mut self, word: &str) {
        self.until_shown_times(word, 1);
    }

    /// The same for a word that is there so many times.
    fn until_shown_times(&mut self, word: &str, times: usize) {
        self.until_drawn(word, |screen| screen.matches(word).count() >= times);
    }

    fn until_drawn(&mut self, wanted: &str, is_there: impl Fn(&str) -> bool) {
        let mut last = String::new();
        for look in 0..5_000_u16 {
            self.pty.resize(100 + look % 2, 30);
            self.signal(Signal::WINCH);
            let drawn = self.pty.until(NO_CURSOR);
            if drawn.contains(CLEAR) {
                last = drawn;
            }
            if is_there(&last) {
                return;
            }
        }
        panic!("{wanted} is not shown: {last:?}");
    }

    /// Waits until a whole screen has these words in this order.
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

    /// Its exit code, once the terminal is found as it was before.
    fn end(mut self) -> Option<i32> {
        let code = self.watch.wait().unwrap().code();
        let rest = self.pty.rest();
        assert_left(&rest);
        assert!(self.pty.is_as_shells_want_it());
        code
    }
}

/// The last escape sequences restore the screen and the cursor.
fn assert_left(written: &str) {
    assert!(written.rfind(SCREEN_OF_ALL) > written.rfind(SCREEN_OF_ITS_OWN), "{written:?}");
    assert!(written.rfind(CURSOR) > written.rfind(NO_CURSOR), "{written:?}");
}

fn account() -> Account {
    Account::new("main").windows([Window::five_hour().used(42.0)])
}

#[test]
fn a_refresh_key_makes_no_call_soon_after_another() {
    let mut world = World::new(Account::new("main").windows([Window::five_hour().used(37.5)]));
    // The whole screen is drawn, whether the number was there before or comes later.
    world.pty.resize(100, 24);
    world.pty.until("37.5");

    world.pty.press("r");
    world.pty.until("limit:");
    world.pty.press("R");
    world.pty.press("q");

    let provider = &world.provider.simulator;
    assert_eq!(provider.ledger().calls(), 1);
    assert_eq!(world.end(), Some(0));
}

#[test]
fn q_restores_the_terminal() {
    for (key, code) in [("q", 0), ("\u{1b}", 0), ("\u{3}", 130)] {
        let mut world = World::new(account());

        world.pty.press(key);

        assert_eq!(world.end(), Some(code), "{key:?}");
    }
}

#[test]
fn a_signal_restores_the_terminal_and_is_the_exit_code() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let world = World::new(account());

        world.signal(signal);

        assert_eq!(world.end(), Some(code), "{signal:?}");
    }
}

#[test]
fn a_hanging_call_does_not_delay_the_end() {
    let mut world = World::new(account().answers([Phase::new(Answer::Hang)]));

    world.pty.press("q");

    assert_eq!(world.end(), Some(0));
}

#[test]
fn a_resized_terminal_is_redrawn() {
    let mut world = World::new(account());

    world.pty.resize(120, 40);
    world.signal(Signal::WINCH);
    // No line of before has been as long.
    world.pty.until(&"─".repeat(119));

    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn no_key_is_lost_during_a_resize() {
    let mut world = World::new(account());

    for _ in 0..200 {
        world.signal(Signal::WINCH);
        world.pty.press("?");
        // A word of the help, where nothing was before.
        world.pty.until("elapsed");
        // Any key ends the help.
        world.pty.press(" ");
    }

    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn while_stopped_the_shell_has_the_terminal() {
    let ways: [fn(&mut World); 2] = [|world| world.pty.press("\u{1a}"), |world| world.signal(Signal::TSTP)];
    for stop in ways {
        let mut world = World::new(account());

        stop(&mut world);
        let (_, status) = waitpid(Some(world.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
        assert_left(&world.pty.rest());
        assert!(world.pty.is_as_shells_want_it());

        world.signal(Signal::CONT);
        let again = world.pty.until(DRAWN);
        assert!(again.contains(SCREEN_OF_ITS_OWN) && again.contains(NO_CURSOR), "{again:?}");
        assert!(!world.pty.is_as_shells_want_it());
        world.pty.press("q");
        assert_eq!(world.end(), Some(0));
    }
}

#[test]
fn a_closed_terminal_ends_with_a_hang_up() {
    let World { pty, mut watch, provider: _provider, machine: _machine, .. } = World::new(account());

    drop(pty);

    assert_eq!(watch.wait().unwrap().code(), Some(129));
}

#[test]
fn quitting_releases_the_lease() {
    let mut world = World::new(account().answers([Phase::new(Answer::Hang)]));
    while world.provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }
    world.pty.press("q");
    assert_eq!(world.watch.wait().unwrap().code(), Some(0));

    world.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    let next = world.machine.run(&["status", "--config", argument(&world.config)]);

    assert_eq!((next.code, next.stderr.as_str()), (Some(0), ""), "it did not wait");
}

#[test]
fn changed_accounts_are_shown() {
    let mut world = World::new(account());
    let text = std::fs::read_to_string(&world.config).unwrap();
    let run = |world: &World, command: &[&str]| {
        let config = ["--config", argument(&world.config)];
        let ended = world.machine.run(&[&["accounts"], command, &config].concat());
        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
    };

    std::fs::write(&world.config, format!("{text}[[accounts]]\nid = \"anthropic/new\"\n")).unwrap();
    world.until_shown("anthropic/new");
    run(&world, &["disable", "anthropic/main"]);
    world.until_shown("disabled");
    run(&world, &["enable", "anthropic/main"]);
    world.until_shown("read");
    std::fs::write(&world.config, &text).unwrap();
    world.until_shown("account,");

    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn a_broken_configuration_keeps_the_last_good_one() {
    let mut world = World::new(account());
    let text = std::fs::read_to_string(&world.config).unwrap();

    std::fs::write(&world.config, "[[accounts]\n").unwrap();
    world.until_shown("config.toml");
    // No key takes the reason away, for it is still true; the account is there to be chosen.
    world.pty.press("j");
    world.until_shown("▌");
    world.until_shown("config.toml");
    std::fs::write(&world.config, &text).unwrap();
    world.until_shown("filter");

    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn a_permission_error_ends_with_its_chmod() {
    let mut world = World::new(account());
    let chmod = |world: &World, mode| {
        std::fs::set_permissions(&world.config, Permissions::from_mode(mode)).unwrap();
    };

    chmod(&world, 0o666);
    world.until_shown("go-w");
    chmod(&world, 0o644);
    world.until_shown("filter");

    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn a_hanging_account_does_not_hide_the_others() {
    let accounts = ["main", "work"].map(|name| Account::new(name).windows([Window::five_hour().used(42.0)]));
    // No call ends by itself for as long as a test waits.
    let mut world = World::of(Script::new(accounts), "fetch_timeout = \"10m\"\nfreshness = \"3s\"");
    world.until_shown_times("42 %", 2);
    world.provider.simulator.set("main", Change::answer(Answer::Hang)).unwrap();
    world.provider.simulator.set("work", Change::used(Window::five_hour(), 77.0)).unwrap();

    world.until_shown("77");
    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn a_refresh_key_joins_a_call_in_flight() {
    let mut world = World::new(account().answers([Phase::new(Answer::Hang)]));
    while world.provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }

    world.pty.press("rR");
    // A word of the help shows that both keys were read.
    world.pty.press("?");
    world.pty.until("elapsed");
    world.pty.press(" ");
    world.provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();

    world.until_shown("42 %");
    world.pty.press("q");
    let calls = world.provider.simulator.ledger().calls();
    assert_eq!((world.end(), calls), (Some(0), 1));
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
    // No call ends by itself for as long as a test waits.
    let policy = "[policy]\ngap = \"1ms\"\nfetch_timeout = \"10m\"\n";
    let main = login("main", "token_env = \"QUOTA_MAIN\"");
    let work = login("work", "token_file = \"work.token\"");
    let config = machine.write("config.toml", format!("{policy}{main}{work}"));
    let mut world = World::start(provider, machine, config);
    world.until_shown("42 %");

    // A call with another token is never too soon after one with the first.
    std::fs::write(&token, &*second.token()).unwrap();
    world.pty.press("R");

    world.until_shown("77 %");
    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn a_changed_order_is_shown() {
    let accounts = ["main", "work"].map(|name| Account::new(name).windows([Window::five_hour().used(42.0)]));
    let mut world = World::of(Script::new(accounts), "");
    world.until_in_order(["anthropic/main", "anthropic/work"]);

    let order =
        ["accounts", "order", "anthropic/work", "anthropic/main", "--config", argument(&world.config)];
    let ended = world.machine.run(&order);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    world.until_in_order(["anthropic/work", "anthropic/main"]);
    world.pty.press("q");
    assert_eq!(world.end(), Some(0));
}

#[test]
fn without_a_terminal_status_is_recommended() {
    let ended = Machine::new().run(&["watch"]);

    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""));
    assert_eq!(ended.stderr, "quota: quota watch needs a terminal; use quota status in scripts\n");
}
