//! `quota accounts login`: an OAuth login of this program at the simulated provider, in real processes. Some of them are killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use quota_sim::{Account, Answer, Change, Ledger, Script, Window};
use serde_json::{Value, json};
use url::Url;

use super::support::{Ended, Machine, Provider, argument};

const LOGINS: &str = ".local/state/quota/logins.json";

/// A machine with an OAuth client for the provider, which plays the account `work`.
struct Setup {
    machine: Machine,
    config: String,
    provider: Provider,
}

fn setup() -> Setup {
    let resets = Duration::from_secs(3600);
    let account = Account::new("work").windows([Window::five_hour().used(42.0).resets_in(resets)]);
    let provider = Provider::play(Script::new([account.budget(None)]));
    let url = provider.url();
    let url = url.trim_end_matches('/');
    let machine = Machine::new();
    let text = format!(
        "[policy]\nmin_call_interval = \"1ms\"\n\n[providers.anthropic]\nbase_url = \"{url}\"\n\n[providers.anthropic.oauth]\n\
         client_id = \"sim-client\"\nauthorize_url = \"{url}/oauth/authorize?login_hint=work\"\n\
         token_url = \"{url}/v1/oauth/token\"\nscopes = [\"user:profile\"]\n"
    );
    let config = argument(&machine.write("config.toml", text)).to_owned();
    Setup { machine, config, provider }
}

/// A `quota accounts login` that has printed its address. Dropping it kills it.
struct Login {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Setup {
    fn run(&self, arguments: &[&str]) -> Ended {
        self.machine.run(&[arguments, &["--config", &self.config]].concat())
    }

    fn start_login(&self) -> Login {
        let arguments = ["accounts", "login", "work", "--no-browser", "--config", &self.config];
        let mut command = self.machine.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        stdout.read_line(&mut address).unwrap();
        Login { child, stdout, address: address.trim_end().to_owned() }
    }

    /// Logs in as a user with a browser does.
    fn log_in(&self) -> Ended {
        let login = self.start_login();
        let back = login.authorize();
        assert_eq!(visit(&back).0, 200);
        login.end()
    }

    /// Waits until the simulator's ledger meets a condition.
    fn until(&self, condition: impl Fn(&Ledger) -> bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.provider.simulator.until(condition));
    }

    fn exchanges(&self) -> (u64, u64) {
        let ledger = self.provider.simulator.ledger();
        let work = ledger.account("work").unwrap();
        (work.exchanges, work.reuses)
    }

    fn set(&self, change: Change) {
        self.provider.simulator.set("work", change).unwrap();
    }

    fn used(&self) -> Value {
        self.run(&["status", "--json"]).json()["accounts"][0]["windows"][0]["used_percent"].clone()
    }

    /// Lets the stored access token expire.
    fn expire(&self) {
        let path = self.machine.path(LOGINS);
        let mut logins: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        logins["logins"]["anthropic/work"]["expires_ms"] = json!(1_000);
        std::fs::write(&path, logins.to_string()).unwrap();
    }
}

impl Login {
    /// Opens the address, and returns the one to which the provider sends the browser.
    fn authorize(&self) -> String {
        let (status, location) = visit(&self.address);
        assert_eq!(status, 302, "{}", self.address);
        location.unwrap()
    }

    fn paste(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stdout, stderr }
    }

    /// Kills the process, as `kill -9` does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Requests a page, and returns its status and where it leads.
fn visit(address: &str) -> (u16, Option<String>) {
    let url: Url = address.parse().unwrap();
    let mut stream = TcpStream::connect(&*url.socket_addrs(|| None).unwrap()).unwrap();
    let path = &url[url::Position::BeforePath..];
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", url.authority()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    let location = reply.lines().find_map(|line| line.strip_prefix("location: "));
    (status, location.map(str::to_owned))
}

#[test]
fn a_login_in_the_browser_adds_an_account_that_works() {
    let setup = setup();

    let ended = setup.log_in();

    let said = "logged in anthropic/work; quota renews this login\n";
    assert_eq!((ended.code, &*ended.stdout), (Some(0), said), "{}", ended.stderr);
    assert_eq!(setup.used(), json!(42.0));
    let listed = setup.run(&["accounts", "list", "--json"]).json();
    assert_eq!(listed["accounts"][0]["login"], json!({ "kind": "own_login", "name": null }));
    let doctor = setup.run(&["doctor"]);
    assert!(
        doctor.stdout.contains(&format!("anthropic/work: using {}", setup.machine.path(LOGINS).display()))
    );
    let script = "echo $CLAUDE_CODE_OAUTH_TOKEN";
    let passed = setup.machine.run(&["run", "--config", &setup.config, "--", "/bin/sh", "-c", script]);
    assert_eq!((passed.code, &*passed.stdout), (Some(0), "sim-token-work-2\n"), "{}", passed.stderr);
}

#[test]
fn a_pasted_address_or_code_logs_in() {
    for only_code in [false, true] {
        let setup = setup();
        let mut login = setup.start_login();
        let back = login.authorize();
        let code = back.split("code=").nth(1).unwrap().split('&').next().unwrap();

        login.paste("not a code");
        login.paste(if only_code { code } else { &back });
        let ended = login.end();

        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("there is no code in it"), "{}", ended.stderr);
        assert_eq!(setup.used(), json!(42.0));
    }
}

#[test]
fn no_other_page_can_end_or_answer_a_login() {
    let setup = setup();
    let login = setup.start_login();
    let back = login.authorize();
    let other = back.replace("state=", "state=x");
    let page = back.replace("/callback?", "/other?");

    let statuses = [visit(&other).0, visit(&page).0, visit(&back).0];

    assert_eq!(statuses, [400, 404, 200]);
    assert_eq!(login.end().code, Some(0));
}

#[test]
fn a_refused_login_writes_nothing() {
    let setup = setup();
    let before = std::fs::read_to_string(&setup.config).unwrap();
    let login = setup.start_login();
    let back = login.authorize();
    let (base, query) = back.split_once('?').unwrap();
    let state = query.split("state=").nth(1).unwrap();

    visit(&format!("{base}?error=access_denied&state={state}"));
    let ended = login.end();

    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("did not authorize the login: access_denied\n"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(&setup.config).unwrap(), before);
    assert!(!setup.machine.path(LOGINS).exists());
}

#[test]
fn without_a_client_in_the_configuration_the_command_says_what_to_add() {
    let ended = Machine::new().run(&["accounts", "login", "codex/work"]);

    assert_eq!(ended.code, Some(78));
    assert!(ended.stderr.contains("[providers.openai.oauth]"), "{}", ended.stderr);
}

#[test]
fn an_account_with_another_login_is_not_changed() {
    let setup = setup();
    setup.run(&["accounts", "add", "work", "--token-env", "X"]);

    let ended = setup.run(&["accounts", "login", "work"]);

    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("anthropic/work uses another login (variable X)"), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_tokens_and_no_output_has_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let setup = setup();

    let ended = setup.log_in();

    let logins = setup.machine.path(LOGINS);
    assert_eq!(logins.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(logins).unwrap().contains("sim-refresh-work-2"));
    let shown = [ended, setup.run(&["status"]), setup.run(&["doctor"]), setup.run(&["accounts"])];
    let config = std::fs::read_to_string(&setup.config).unwrap();
    let all = format!("{shown:?}{config}");
    assert!(!all.contains("sim-token") && !all.contains("sim-refresh") && !all.contains("sim-code"), "{all}");
}

#[test]
fn a_kill_before_the_code_arrives_leaves_everything_unchanged() {
    let setup = setup();
    let before = std::fs::read_to_string(&setup.config).unwrap();
    let login = setup.start_login();
    login.authorize();

    login.kill();

    assert_eq!(std::fs::read_to_string(&setup.config).unwrap(), before);
    assert_eq!(setup.log_in().code, Some(0));
    assert_eq!((setup.used(), setup.exchanges()), (json!(42.0), (1, 0)));
}

#[test]
fn a_kill_during_the_exchange_says_log_in_and_a_new_login_works() {
    let setup = setup();
    setup.set(Change::answer(Answer::Hang));
    let login = setup.start_login();
    visit(&login.authorize());
    setup.until(|ledger| ledger.account("work").unwrap().exchanges == 1);

    login.kill();
    setup.set(Change::follow_script());

    let status = setup.run(&["status"]);
    assert!(format!("{}{}", status.stdout, status.stderr).contains("quota accounts login"), "{status:?}");
    assert_eq!(setup.log_in().code, Some(0));
    assert_eq!(setup.used(), json!(42.0));
}

#[test]
fn concurrent_commands_renew_an_expired_login_once() {
    let setup = setup();
    setup.log_in();
    setup.expire();

    let start = |_| {
        let arguments = ["status", "--json", "--config", &setup.config];
        setup.machine.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let running: Vec<Child> = (0..8).map(start).collect();
    let ended: Vec<_> = running.into_iter().map(|child| child.wait_with_output().unwrap()).collect();

    assert!(ended.iter().all(|output| output.status.success()), "{ended:?}");
    assert_eq!(setup.exchanges(), (2, 0));
    assert_eq!(setup.used(), json!(42.0));
}

#[test]
fn a_renewal_that_outlives_its_command_is_not_interrupted() {
    let setup = setup();
    setup.log_in();
    setup.used();
    let path = setup.machine.path(LOGINS);
    let mut logins: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let now = quota::Clock::system().now().as_millisecond();
    logins["logins"]["anthropic/work"]["issued_ms"] = json!(now - 8 * 3_600_000);
    logins["logins"]["anthropic/work"]["expires_ms"] = json!(now + 60_000);
    std::fs::write(&path, logins.to_string()).unwrap();

    // The token is valid for a minute, so the command does not wait for the renewal before it shows the readings.
    let ended = setup.run(&["status"]);

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(setup.exchanges(), (2, 0));
    assert!(std::fs::read_to_string(path).unwrap().contains("sim-refresh-work-3"));
}

#[test]
fn a_kill_between_rotation_and_rename_sends_the_token_once_more_and_says_log_in() {
    let setup = setup();
    setup.log_in();
    setup.expire();
    setup.set(Change::answer(Answer::Hang));
    let arguments = ["status", "--config", &setup.config];
    let mut renewing =
        setup.machine.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    setup.until(|ledger| ledger.account("work").unwrap().exchanges == 2);
    renewing.kill().unwrap();
    renewing.wait().unwrap();
    setup.set(Change::follow_script());

    let next = setup.run(&["status"]);
    let after = setup.run(&["status"]);

    for shown in [&next, &after] {
        assert!(format!("{}{}", shown.stdout, shown.stderr).contains("quota accounts login"), "{shown:?}");
    }
    // The reuse ended the login, so no further request is sent.
    assert_eq!(setup.exchanges(), (2, 1));
    assert_eq!(setup.log_in().code, Some(0));
    assert_eq!(setup.used(), json!(42.0));
}
