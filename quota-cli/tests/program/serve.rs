//! `quota serve`: the gateway as a process, with real sockets and signals.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Script, Window};

use super::support::{Machine, Provider, argument};

const PATH: &str = "/account/anthropic/main/api/oauth/usage";

/// A gateway process. It is killed if the test fails before the process ends.
pub(super) struct Running {
    pub(super) child: Child,
    stdout: BufReader<ChildStdout>,
    pub(super) address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts the gateway, and waits until it listens.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("Listening on ").unwrap_or_default();
        let address = address.strip_prefix("http://").unwrap_or(address).to_owned();
        let mut running = Self { child, stdout, address };
        if running.address.is_empty() {
            panic!("{}", running.stderr());
        }
        running
    }

    pub(super) fn get(&self, path: &str, headers: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
    }

    pub(super) fn post(&self, path: &str, body: &serde_json::Value) -> String {
        let body = body.to_string();
        let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n{body}"
        ))
    }

    /// Sends this text, and reads until the gateway closes the connection.
    fn send(&self, request: &str) -> String {
        let mut text = String::new();
        match self.address.strip_prefix("unix:") {
            Some(path) => {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                stream.read_to_string(&mut text).unwrap();
            }
            None => {
                let mut stream = TcpStream::connect(&self.address).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                stream.read_to_string(&mut text).unwrap();
            }
        }
        text
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Reads standard error up to a line that begins like this.
    fn wait_for_line(&mut self, start: &str) {
        let mut line = String::new();
        let mut stderr = BufReader::new(self.child.stderr.as_mut().unwrap());
        while stderr.read_line(&mut line).unwrap() > 0 {
            if line.starts_with(start) {
                return;
            }
            line.clear();
        }
        panic!("the gateway ended before it printed {start}");
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for the end. Returns the exit code, and all output after the first line.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        (code, text + &self.stderr())
    }
}

fn provider() -> Provider {
    let account = |name: &str, used| Account::new(name).windows([Window::five_hour().used(used)]);
    Provider::play(Script::new([account("main", 62.0), account("other", 5.0)]))
}

pub(super) fn serve(machine: &Machine, config: &Path, more: &[&str]) -> Running {
    let arguments = ["serve", "--config", argument(config)];
    Running::start(&mut machine.command(&[&arguments, more].concat()))
}

pub(super) const ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];

#[test]
fn a_client_gets_the_usage_of_its_login() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let gateway = serve(&machine, &config, &ANY_PORT);

    let token = provider.token_of("other");
    let answer = gateway.get("/api/oauth/usage", &format!("Authorization: Bearer {token}\r\n"));

    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"utilization\":5.0"), "{answer}");
}

#[test]
fn a_login_of_claude_code_needs_no_configuration() {
    let machine = Machine::new();
    machine.log_in("sk-ant-oat01-made-up");
    machine.seed([(
        quota::UsageReport::polled([quota::WindowReading::new(
            quota::WindowId::five_hour(),
            quota::Percent::from_percent(7.0).unwrap(),
        )]),
        quota::Clock::system().now(),
    )]);
    let gateway = Running::start(&mut machine.command(&[&["serve"], &ANY_PORT[..]].concat()));

    let answer = gateway.get("/api/oauth/usage", "Authorization: Bearer sk-ant-oat01-made-up\r\n");

    // The seeded reading belongs to a record without a login, as this login states none.
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"utilization\":7.0"), "{answer}");
}

#[test]
fn sigterm_and_ctrl_c_end_it_with_0() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    for signal in ["-TERM", "-INT"] {
        let gateway = serve(&machine, &config, &ANY_PORT);
        gateway.get("/healthz", "");

        gateway.signal(signal);

        assert_eq!(gateway.end(), (Some(0), String::new()), "{signal}");
    }
}

#[test]
fn sighup_loads_the_configuration_again() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let mut gateway = serve(&machine, &config, &ANY_PORT);
    let other = "/account/anthropic/other/api/oauth/usage";
    assert!(gateway.get(other, "").starts_with("HTTP/1.1 200 "));

    std::fs::write(&config, text.replace("anthropic/other", "anthropic/renamed")).unwrap();
    gateway.signal("-HUP");
    gateway.wait_for_line("Reloaded");

    assert!(gateway.get(other, "").starts_with("HTTP/1.1 404 "));
    assert!(gateway.get("/account/anthropic/renamed/api/oauth/usage", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_broken_configuration_is_not_loaded() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let mut gateway = serve(&machine, &config, &ANY_PORT);

    std::fs::write(&config, "[[accounts]]\nid = 5\n").unwrap();
    gateway.signal("-HUP");
    gateway.wait_for_line("quota: could not reload");

    assert!(gateway.get(PATH, "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_reload_without_the_token_file_keeps_the_tokens() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let folder = machine.path("credentials");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("quota-tokens");
    std::fs::write(&file, "read gateway-token-0123456789\n").unwrap();
    let mut command = machine.command(&[&["serve", "--config", argument(&config)][..], &ANY_PORT].concat());
    let mut gateway = Running::start(command.env("CREDENTIALS_DIRECTORY", &folder));

    std::fs::remove_file(&file).unwrap();
    gateway.signal("-HUP");
    gateway.wait_for_line("quota: could not reload");

    assert!(gateway.get(PATH, "").starts_with("HTTP/1.1 401 "));
}

#[test]
fn sigterm_does_not_wait_for_a_reload() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let pipe = machine.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let gateway = serve(&machine, &config, &ANY_PORT);
    gateway.get("/healthz", "");

    // The reload reads this credential.
    let script = format!("(echo started; exec sleep 3600) > '{}' & wait", pipe.display());
    let command = format!("token_command = [\"/bin/sh\", \"-c\", {script:?}]");
    let account =
        format!("[[accounts]]\nid = \"anthropic/main\"\nbase_url = \"http://127.0.0.1:1\"\n{command}\n");
    std::fs::write(&config, account).unwrap();
    gateway.signal("-HUP");
    let mut lines = BufReader::new(std::fs::File::open(&pipe).unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "started");
    gateway.signal("-TERM");

    assert_eq!(gateway.end(), (Some(0), String::new()));
    // The pipe closes when the last process that has it open ends.
    assert!(lines.next().is_none());
}

#[test]
fn sigterm_after_a_reload_ends_the_calls_before_it() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    for account in ["main", "other"] {
        provider.simulator.set(account, Change::answer_for(Answer::Hang, Duration::from_secs(1000))).unwrap();
    }
    let text = std::fs::read_to_string(&config).unwrap();
    let mut gateway = serve(&machine, &config, &ANY_PORT);
    while provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }

    std::fs::write(&config, text.replace("anthropic/", "codex/")).unwrap();
    gateway.signal("-HUP");
    gateway.wait_for_line("Reloaded");
    gateway.signal("-TERM");
    assert_eq!(gateway.end().0, Some(0));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("sqlite://{}", machine.path(".local/state/quota/quota.db").display());
    let store = quota::open_store(&url).unwrap();
    for account in ["anthropic/main", "anthropic/other"] {
        let key = StoreKey::account(&account.parse().unwrap());
        if let Some(document) = runtime.block_on(store.read(&key)).unwrap().document {
            assert!(Record::decode(&document.body).unwrap().lease().is_none(), "{account}");
        }
    }
}

#[test]
fn a_unix_socket_is_removed_at_the_end() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let socket = machine.path("quota.sock");
    let gateway = serve(&machine, &config, &["--listen", &format!("unix:{}", socket.display())]);

    assert!(gateway.get(PATH, "").contains("\"utilization\":62.0"));
    gateway.signal("-TERM");

    assert_eq!(gateway.end().0, Some(0));
    assert!(!socket.exists());
}

#[test]
fn two_addresses_are_served() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let mut gateway = serve(&machine, &config, &[&ANY_PORT[..], &["--listen", "[::1]:0"]].concat());
    let mut second = String::new();
    gateway.stdout.read_line(&mut second).unwrap();
    assert!(gateway.get("/healthz", "").ends_with("ok\n"));

    gateway.address = second.trim().strip_prefix("Listening on http://").unwrap().to_owned();

    assert!(gateway.get("/healthz", "").ends_with("ok\n"), "{second}");
}

#[test]
fn a_passed_socket_is_used() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let program = machine.command(&["serve", "--config", argument(&config)]);
    // As systemd does it: the socket is file descriptor 3, and LISTEN_PID is the process itself.
    let script = "import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(program.get_program()).args(program.get_args());
    python.env_clear().current_dir(machine.path("."));
    python.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    python.env("PATH", std::env::var_os("PATH").unwrap());

    let gateway = Running::start(&mut python);

    assert!(!gateway.address.ends_with(":7878"));
    assert!(gateway.get("/healthz", "").ends_with("ok\n"));
}

/// The unit of the repository, with a socket that systemd's own program passes.
#[cfg(target_os = "linux")]
#[test]
fn the_unit_of_systemd_answers_its_first_client() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/quota.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let state = machine.path("state");
    std::fs::create_dir_all(&state).unwrap();
    // The folders of this machine in place of those of the system.
    let line = setting("ExecStart=").replace("/etc/quota/config.toml", argument(&config));
    let words = line.split(' ').skip(1);
    let environment = setting("Environment=").replace("/var/lib", argument(&state));
    let socket = machine.path("quota.sock");
    let program = machine.command(&[]);
    let mut activate = Command::new("systemd-socket-activate");
    activate.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    activate.args(["--listen", argument(&socket), "--setenv", &environment]);
    for (name, value) in
        program.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)))
    {
        if name.starts_with("QUOTA_SIM_") {
            activate.args(["--setenv", &format!("{name}={value}")]);
        }
    }
    activate.arg(program.get_program()).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = activate.spawn().expect("systemd-socket-activate is in the package systemd");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let address = format!("unix:{}", argument(&socket));
    let mut gateway = Running { child, stdout, address };
    gateway.wait_for_line("Listening on ");

    assert!(gateway.get("/healthz", "").ends_with("ok\n"));
    assert!(gateway.get(PATH, "").contains("\"utilization\":62"), "{}", gateway.get(PATH, ""));
    gateway.signal("-TERM");
    assert_eq!(gateway.end().0, Some(0));
}

#[test]
fn another_address_than_loopback_needs_tokens_and_tls() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let arguments = ["serve", "--config", argument(&config), "--listen", "0.0.0.0:0"];

    let refused = machine.run(&arguments);
    assert_eq!((refused.code, &*refused.stdout), (Some(64), ""));
    assert!(refused.stderr.contains("--token-file") && refused.stderr.contains("--open-to-network"));
    let gateway = serve(&machine, &config, &["--listen", "0.0.0.0:0", "--open-to-network"]);
    assert!(gateway.address.starts_with("0.0.0.0:"));
}

#[test]
fn a_token_file_must_be_private_and_valid() {
    use std::os::unix::fs::PermissionsExt as _;
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let file = machine.write("tokens", "read gateway-token-0123456789\n");
    let arguments =
        ["serve", "--config", argument(&config), "--token-file", argument(&file), "--listen", "127.0.0.1:0"];
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();

    mode(0o644);
    let readable = machine.run(&arguments);
    assert_eq!(readable.code, Some(78), "{}", readable.stderr);
    assert!(readable.stderr.contains("chmod 600") && !readable.stderr.contains("gateway-token"));
    mode(0o600);
    let gateway = Running::start(&mut machine.command(&arguments));
    assert!(gateway.get(PATH, "").starts_with("HTTP/1.1 401 "));
    assert!(
        gateway.get(PATH, "Authorization: Bearer gateway-token-0123456789\r\n").starts_with("HTTP/1.1 200 ")
    );
    std::fs::write(&file, "gateway-token-0123456789\n").unwrap();
    let invalid = machine.run(&arguments);
    assert!(
        invalid.code == Some(78)
            && invalid.stderr.contains("line 1")
            && !invalid.stderr.contains("gateway-token")
    );
}

#[test]
fn an_adopted_credential_is_never_stored() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    let settings = format!("[providers.anthropic]\nbase_url = \"{}\"\n", provider.url());
    std::fs::write(&config, format!("{settings}{text}")).unwrap();
    let gateway = serve(&machine, &config, &[&ANY_PORT[..], &["--adopt-presented"]].concat());
    provider.simulator.set("other", Change::token("sim-token-adopted-n33dle")).unwrap();

    let answer = gateway.get("/api/oauth/usage", "Authorization: Bearer sim-token-adopted-n33dle\r\n");
    assert!(answer.contains("\"utilization\":5.0"), "{answer}");
    gateway.signal("-TERM");
    let (code, output) = gateway.end();

    assert_eq!((code, &*output), (Some(0), ""));
    for entry in std::fs::read_dir(machine.path(".local/state/quota")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let has = |needle: &str| bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
        assert!(!has("n33dle") && !has("presented-"));
    }
}

#[test]
fn a_port_in_use_ends_it_with_69() {
    let provider = provider();
    let (machine, config) = provider.configure(Machine::new());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let ended = machine.run(&["serve", "--config", argument(&config), "--listen", &address]);

    assert_eq!((ended.code, &*ended.stdout), (Some(69), ""));
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("--listen"), "{}", ended.stderr);
}

#[test]
fn without_a_login_it_ends_with_3() {
    let ended = Machine::new().run(&[&["serve"], &ANY_PORT[..]].concat());

    assert_eq!((ended.code, &*ended.stdout), (Some(3), ""));
}
