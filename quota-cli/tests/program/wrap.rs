//! `quota wrap`: real programs with TLS, in place of the hosts of providers.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get, post};
use futures_util::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;

use quota_sim::{Account, Script, TlsFront, Window};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Notify;

use super::pty::Pty;
use super::support::{Ended, Machine, Provider, argument};

const HOST: &str = "api.anthropic.com";
const OTHER_HOST: &str = "other.example";
const USAGE: &str = "https://api.anthropic.com/api/oauth/usage";

/// A provider with two accounts, and hosts with TLS before it.
struct Setup {
    provider: Provider,
    front: TlsFront,
    machine: Machine,
    config: PathBuf,
    authority: PathBuf,
    _runtime: Runtime,
}

impl Setup {
    /// The provider itself answers for the hosts.
    fn new() -> Self {
        Self::with(["http/1.1"].as_slice(), |provider, _| {
            provider.simulator.url().socket_addrs(|| None).unwrap()[0]
        })
    }

    /// A server of the test answers for the hosts, in HTTP/1.1 and 2.
    fn with_server(app: Router) -> Self {
        Self::with(&["h2", "http/1.1"], |_, runtime| {
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
            let address = listener.local_addr().unwrap();
            runtime.spawn(async move { axum::serve(listener, app).await });
            address
        })
    }

    fn with(protocols: &[&str], server: impl FnOnce(&Provider, &Runtime) -> SocketAddr) -> Self {
        let account = |name: &str, used| Account::new(name).windows([Window::five_hour().used(used)]);
        let provider = Provider::play(Script::new([account("main", 62.0), account("other", 5.0)]));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = server(&provider, &runtime);
        let front = TlsFront::start([(HOST, server), (OTHER_HOST, server)], protocols);
        let front = runtime.block_on(front).unwrap();
        let (machine, config) = provider.configure(Machine::new());
        let authority = machine.write("authority.pem", front.certificate());
        let machine = machine
            .set("PATH", &std::env::var("PATH").unwrap())
            .set("HTTPS_PROXY", &front.proxy_url())
            .set("SSL_CERT_FILE", argument(&authority));
        Self { provider, front, machine, config, authority, _runtime: runtime }
    }

    fn wrapped(&self, command: &[&str]) -> Command {
        self.machine.command(&[&["wrap", "--config", argument(&self.config), "--"], command].concat())
    }

    fn run(&self, command: &[&str]) -> Ended {
        Ended::of(self.wrapped(command).output().unwrap())
    }

    fn curl(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["curl", "-sS", "--max-time", "60"], arguments].concat())
    }

    fn authorization(&self, account: &str) -> String {
        format!("Authorization: Bearer {}", self.provider.token_of(account))
    }

    fn calls(&self) -> u64 {
        self.provider.simulator.ledger().calls()
    }

    /// The files and folders that wrapped commands use, or have left behind.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.machine.temp()).unwrap().map(|entry| entry.unwrap().path());
        let inner = entries.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
        let paths = inner.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("wrap-")).collect()
    }

    /// Starts a wrapped shell, and waits until it has printed a line.
    fn start(&self, script: &str) -> Running {
        let mut command = self.wrapped(&["/bin/sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        Running { child, stdout, line: line.trim().to_owned() }
    }
}

/// A wrapped command that runs. It is killed if the test fails before it ends.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    line: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end. Returns the exit code, and the output after the first line.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.child.stdin.take());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.stdout, &mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }
}

fn is_listening(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

#[test]
fn usage_is_answered_from_the_readings_over_both_versions() {
    let setup = Setup::new();

    for version in ["--http1.1", "--http2"] {
        let ended = setup.curl(&[
            version,
            "-i",
            "-H",
            &setup.authorization("other"),
            USAGE,
            "-w",
            " %{http_version}",
        ]);

        let text = format!("{}{}", ended.stdout, ended.stderr);
        assert!(text.contains("\"utilization\":5.0") && text.ends_with(&version[6..7]), "{text}");
        assert!(text.contains("quota-freshness: fresh") || text.contains("Quota-Freshness: fresh"), "{text}");
    }
    assert_eq!((setup.calls(), setup.front.connections(HOST)), (1, 0));
}

#[test]
fn forty_commands_cause_one_call() {
    let setup = Setup::new();
    let header = setup.authorization("main");
    let start = |_| {
        let mut command = setup.wrapped(&["curl", "-sS", "--max-time", "60", "-H", &header, USAGE]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };

    let running: Vec<_> = (0..40).map(start).collect();
    let ended = running.into_iter().map(|child| Ended::of(child.wait_with_output().unwrap()));
    let wrong: Vec<_> = ended.filter(|ended| !ended.stdout.contains("\"utilization\":62.0")).collect();

    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!((setup.calls(), setup.files()), (1, Vec::new()));
}

#[test]
fn an_unknown_login_goes_to_the_provider() {
    let setup = Setup::new();

    let ended = setup.curl(&["-H", "Authorization: Bearer unknown-token", "-w", " %{http_code}", USAGE]);

    assert!(ended.stdout.ends_with(" 401") && ended.stdout.contains("authentication_error"), "{ended:?}");
    assert_eq!(setup.front.connections(HOST), 1);
}

#[test]
fn own_requests_of_quota_go_to_the_provider() {
    let setup = Setup::new();
    let header = setup.authorization("main");
    let beta = "anthropic-beta: oauth-2025-04-20";

    let ended = setup.curl(&["-A", "quota/0.1.0", "-H", &header, "-H", beta, USAGE]);

    assert!(ended.stdout.contains("\"utilization\":62.0"), "{ended:?}");
    assert_eq!((setup.calls(), setup.front.connections(HOST)), (1, 1));
}

/// The version, the headers and the body of a request.
async fn reflect(request: Request) -> String {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let mut text = format!("{:?} {} {}\n", parts.version, parts.method, parts.uri);
    for (name, value) in &parts.headers {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    text + std::str::from_utf8(&body).unwrap()
}

#[test]
fn other_requests_are_relayed_unchanged() {
    let setup = Setup::with_server(Router::new().fallback(any(reflect)));
    let body = "x".repeat(200_000);
    let file = setup.machine.write("body", &body);
    let data = format!("@{}", argument(&file));

    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let url = format!("https://{HOST}/v1/messages?beta=true");
        let ended = setup.curl(&[flag, "-H", "X-Own: Value", "--data-binary", &data, &url]);

        let (head, relayed) = ended.stdout.split_at(ended.stdout.len().saturating_sub(body.len()));
        assert!(
            head.starts_with(&format!("{version} POST ")) && head.contains("/v1/messages?beta=true\n"),
            "{head}"
        );
        assert!(head.contains("\nx-own: Value\n") && head.contains("content-length: 200000\n"), "{head}");
        assert!(!head.contains("proxy") && !head.contains("forwarded") && !head.contains("via:"), "{head}");
        assert!(relayed == body);
    }
}

#[test]
fn a_stream_arrives_as_it_is_sent() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let stream = get(async move || {
        let rest = stream::once(async move {
            gate.notified().await;
            Bytes::from_static(b"two")
        });
        let parts = stream::once(async { Bytes::from_static(b"one") }).chain(rest);
        Body::from_stream(parts.map(Ok::<_, std::io::Error>))
    });
    let open = post(async move || opened.notify_one());
    let setup = Setup::with_server(Router::new().route("/stream", stream).route("/open", open));

    for version in ["--http1.1", "--http2"] {
        // The second part is sent only after the first one has arrived.
        let script = format!(
            "curl -sSN {version} https://{HOST}/stream | \
             {{ head -c 3; curl -sS -X POST https://{HOST}/open; cat; }}"
        );
        let ended = setup.run(&["/bin/sh", "-c", &script]);

        assert_eq!((&*ended.stdout, &*ended.stderr), ("onetwo", ""));
    }
}

#[test]
fn a_websocket_is_relayed() {
    let echo = get(async |request: Request| {
        let upgrade = hyper::upgrade::on(request);
        Handle::current().spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut word = [0; 5];
            stream.read_exact(&mut word).await.unwrap();
            word.reverse();
            stream.write_all(&word).await.unwrap();
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "upgrade").header("upgrade", "echo").body(Body::empty()).unwrap()
    });
    let setup = Setup::with_server(Router::new().route("/socket", echo));
    let script = format!(
        r#"
import base64, http.client, os, ssl, urllib.parse
proxy = urllib.parse.urlparse(os.environ["HTTPS_PROXY"])
login = base64.b64encode(f"{{proxy.username}}:{{proxy.password}}".encode()).decode()
client = http.client.HTTPSConnection(proxy.hostname, proxy.port, timeout=60)
client.set_tunnel("{HOST}", 443, {{"Proxy-Authorization": "Basic " + login}})
client.request("GET", "/socket", headers={{"Connection": "Upgrade", "Upgrade": "echo"}})
response = client.getresponse()
client.sock.sendall(b"hello")
print(response.status, response.headers["upgrade"], client.sock.recv(5).decode())
"#
    );

    let ended = setup.run(&["python3", "-c", &script]);

    assert_eq!((&*ended.stdout, &*ended.stderr), ("101 echo olleh\n", ""));
}

#[test]
fn another_host_keeps_its_certificate() {
    let setup = Setup::new();
    let authority = argument(&setup.authority);
    let code = |host: &str, more: &[&str]| {
        let url = format!("https://{host}/api/oauth/usage");
        setup.curl(&[&["-o", "/dev/null", &url], more].concat()).code
    };

    // 60 is an unknown certificate.
    assert_eq!(code(OTHER_HOST, &["--cacert", authority]), Some(0));
    assert_eq!(code(HOST, &["--cacert", authority]), Some(60));
    // Both are trusted with the variables of the command.
    assert_eq!((code(OTHER_HOST, &[]), code(HOST, &[])), (Some(0), Some(0)));
}

#[test]
fn a_host_with_an_unknown_certificate_is_not_trusted() {
    let mut setup = Setup::new();
    setup.machine = setup.machine.set("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");

    let ended = setup.curl(&["-w", " %{http_code}", &format!("https://{HOST}/v1/messages")]);

    assert!(ended.stdout.ends_with(" 502") && ended.stdout.contains("certificate"), "{ended:?}");
}

#[test]
fn only_the_command_can_use_the_proxy() {
    let setup = Setup::new();
    let script = "address=${HTTPS_PROXY##*@}
        for proxy in http://quota:wrong@$address http://$address; do
          curl -sS -o /dev/null -w '%{http_connect} ' -x $proxy https://other.example/ 2>/dev/null
        done
        curl -sS -o /dev/null -w '%{http_code}' -x $HTTPS_PROXY http://other.example/";

    let ended = setup.run(&["/bin/sh", "-c", script]);

    assert_eq!((&*ended.stdout, setup.front.connections(OTHER_HOST)), ("407 407 405", 0));
}

#[test]
fn the_certificate_is_limited_private_and_short_lived() {
    let setup = Setup::new();
    let script = "stat -c %a \"$NODE_EXTRA_CA_CERTS\"
        openssl x509 -in \"$NODE_EXTRA_CA_CERTS\" -noout -text -checkend 86400
        grep -c PRIVATE \"$NODE_EXTRA_CA_CERTS\" \"$SSL_CERT_FILE\"";

    let text = setup.run(&["/bin/sh", "-c", script]).stdout;

    assert!(text.starts_with("600\n"), "{text}");
    for part in [
        "X509v3 Name Constraints: critical",
        "Permitted:\n                  DNS:api.anthropic.com\n",
        "Excluded:\n                  IP:0.0.0.0/0.0.0.0\n",
        "CA:TRUE, pathlen:0",
        "Certificate will expire\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.matches(".pem:0\n").count(), 2, "{text}");
}

#[test]
fn python_and_its_requests_are_answered() {
    let setup = Setup::new();
    let script = format!(
        r#"
import json, os, urllib.request
request = urllib.request.Request("{USAGE}", headers={{"{}": "{}"}})
print(json.load(urllib.request.urlopen(request, timeout=60))["five_hour"]["utilization"])
"#,
        "Authorization",
        setup.authorization("main").trim_start_matches("Authorization: ")
    );

    let ended = setup.run(&["python3", "-c", &script]);

    assert_eq!((&*ended.stdout, &*ended.stderr), ("62.0\n", ""));
    assert_eq!(setup.calls(), 1);
}

#[test]
fn exceptions_of_the_user_do_not_skip_the_proxy() {
    let mut setup = Setup::new();
    setup.machine = setup.machine.set("NO_PROXY", "*").set("no_proxy", "localhost,.anthropic.com");
    let script =
        format!("echo \"$no_proxy|$NO_PROXY\"; curl -sS -H '{}' {USAGE}", setup.authorization("main"));

    let ended = setup.run(&["/bin/sh", "-c", &script]);

    assert!(ended.stdout.starts_with("localhost|\n") && ended.stdout.contains("62.0"), "{ended:?}");
}

#[test]
fn the_exit_code_is_that_of_the_command() {
    let setup = Setup::new();
    let text = setup.machine.write("text", "hello");

    assert_eq!(setup.run(&["/bin/sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(setup.run(&["/bin/sh", "-c", "kill -KILL $$"]).code, Some(137));
    for (command, code) in [("no-such-command", 127), (argument(&text), 126)] {
        let ended = setup.run(&[command]);
        assert_eq!((ended.code, ended.stderr.lines().count()), (Some(code), 1), "{}", ended.stderr);
    }
    assert!(setup.files().is_empty());
}

#[test]
fn options_after_the_command_are_its_own() {
    let setup = Setup::new();
    let arguments = [
        "wrap",
        "--config",
        argument(&setup.config),
        "/bin/sh",
        "-c",
        "echo \"$@\"",
        "sh",
        "--config",
        "--",
        "-x",
    ];

    let ended = setup.machine.run(&arguments);

    assert_eq!((&*ended.stdout, ended.code), ("--config -- -x\n", Some(0)));
}

#[test]
fn a_signal_is_passed_on_and_everything_is_removed() {
    let setup = Setup::new();
    for (signal, code) in [("-TERM", 3), ("-INT", 4), ("-HUP", 5)] {
        let script = "trap 'exit 3' TERM; trap 'exit 4' INT; trap 'exit 5' HUP
            echo ${HTTPS_PROXY##*@}; while :; do read line || :; done";
        let running = setup.start(script);
        let address = running.line.clone();
        assert!(is_listening(&address) && setup.files().len() == 2, "{:?}", setup.files());

        running.signal(signal);

        assert_eq!(running.end().0, Some(code), "{signal}");
        assert!(!is_listening(&address) && setup.files().is_empty(), "{signal}");
    }
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    let setup = Setup::new();
    let script = "n=0; trap 'n=$((n + 1))' INT; echo ready
        while :; do read line && break; done; echo \"interrupted $n times\"";
    let wrapped = setup.wrapped(&["/bin/sh", "-c", script]);
    // Makes the terminal that of a new session, so that its keys send signals.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(wrapped.get_program()).args(wrapped.get_args());
    command.env_clear().current_dir(wrapped.get_current_dir().unwrap());
    command.envs(wrapped.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Pty::new(80, 24);
    let mut child = terminal.start(command);
    terminal.until("ready");

    terminal.press("\u{3}");
    terminal.until("^C");
    terminal.press("\n");

    terminal.until("interrupted 1 times");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_killed_command_leaves_no_file_and_no_listener() {
    let setup = Setup::new();
    let mut running = setup.start("echo $$ ${HTTPS_PROXY##*@}; read line");
    let (id, address) = running.line.split_once(' ').unwrap();
    let (id, address) = (id.to_owned(), address.to_owned());

    assert!(Command::new("kill").args(["-KILL", &id]).status().unwrap().success());

    assert_eq!(running.child.wait().unwrap().into_raw(), 137 << 8);
    assert!(!is_listening(&address) && setup.files().is_empty());
}

#[test]
fn the_files_of_a_killed_wrapper_are_removed_by_the_next() {
    let setup = Setup::new();
    let mut killed = setup.start("echo ${HTTPS_PROXY##*@}; read line");
    let running = setup.start("echo $NODE_EXTRA_CA_CERTS; read line; cat $NODE_EXTRA_CA_CERTS");
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    assert!(!is_listening(&killed.line));
    assert_eq!(setup.files().len(), 4);

    setup.run(&["/bin/true"]);

    assert_eq!(setup.files().len(), 2);
    assert!(running.end().1.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn a_proxy_that_is_not_http_is_refused() {
    let mut setup = Setup::new();
    setup.machine = setup.machine.set("HTTPS_PROXY", "socks5://user:secret@localhost:1");

    let ended = setup.run(&["/bin/echo", "ran"]);

    assert_eq!((ended.code, &*ended.stdout, ended.stderr.lines().count()), (Some(78), "", 1));
    assert!(ended.stderr.contains("HTTPS_PROXY") && !ended.stderr.contains("secret"), "{}", ended.stderr);
}

#[test]
fn a_folder_that_others_can_enter_is_not_used() {
    let setup = Setup::new();
    let folder = setup.machine.temp().join(format!("quota-{}", rustix::process::geteuid().as_raw()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();

    let ended = setup.run(&["/bin/echo", "ran"]);

    assert_eq!((ended.code, &*ended.stdout), (Some(74), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("could not write the certificates"), "{}", ended.stderr);
}
