//! `quota mcp` as a process that gets the raw messages of a client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use quota::AccountId;
use quota::record::Record;
use quota::store::StoreKey;
use quota_sim::{Account, Answer, Change, Phase, Script, Window};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::support::{Machine, Provider, argument};

/// A client with its server process, which is killed if the test fails.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Everything that the server wrote.
    transcript: String,
    next_id: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout, transcript: String::new(), next_id: 1 }
    }

    /// A client that has initialized the connection.
    fn connect(machine: &Machine, config: &str) -> Self {
        let mut client = Self::start(&mut machine.command(&["mcp", "--config", config]));
        client.request(
            "initialize",
            json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } }),
        );
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    fn write(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    fn send(&mut self, message: &Value) {
        self.write(message.to_string().as_bytes());
    }

    /// The next message of the server.
    fn receive(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the server ended: {}", self.stderr());
        self.transcript.push_str(&line);
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no message: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// Sends a request without waiting for the answer. Returns its id.
    fn begin(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// The answer to a request: all that comes before it is skipped.
    fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.receive();
            if message["id"] == id {
                return message;
            }
        }
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params);
        self.answer(id)
    }

    /// The result of a tool.
    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))["result"].take()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Closes standard input. Returns the exit code, and everything that the server wrote.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        let code = self.child.wait().unwrap().code();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (code, std::mem::take(&mut self.transcript) + &rest + &self.stderr())
    }
}

fn used(name: &str, percent: f64) -> Account {
    let window = Window::five_hour().used(percent).resets_in(Duration::from_secs(2 * 3600));
    Account::new(name).windows([window])
}

fn setup(accounts: impl IntoIterator<Item = Account>) -> (Provider, Machine, String) {
    setup_with_policy(accounts, "")
}

fn setup_with_policy(
    accounts: impl IntoIterator<Item = Account>,
    policy: &str,
) -> (Provider, Machine, String) {
    let provider = Provider::play(Script::new(accounts));
    let (machine, config) = provider.configure(Machine::new());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("[policy]\n", &format!("[policy]\n{policy}\n"), 1)).unwrap();
    (provider, machine, argument(&config).to_owned())
}

/// The document without what depends on the time of the command.
fn lasting(mut document: Value) -> Value {
    fn remove(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let is_momentary = |name: &str| name == "now" || name.ends_with("_seconds");
                fields.retain(|name, _| !is_momentary(name));
                fields.values_mut().for_each(remove);
            }
            Value::Array(values) => values.iter_mut().for_each(remove),
            _ => {}
        }
    }
    remove(&mut document);
    document
}

#[test]
fn the_server_names_itself_and_its_tools() {
    let (_provider, machine, config) = setup([used("main", 40.0)]);
    let mut client = Client::start(&mut machine.command(&["mcp", "--config", &config]));

    let info = client.request(
        "initialize",
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } }),
    );
    let tools = client.request("tools/list", json!({}));

    assert_eq!(info["result"]["serverInfo"]["name"], "quota");
    let tools = tools["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["quota_status", "quota_pick", "quota_explain", "quota_wait"]);
}

#[test]
fn the_documents_are_those_of_the_commands() {
    let (_provider, machine, config) = setup([used("main", 100.0), used("work", 40.0)]);
    let mut client = Client::connect(&machine, &config);

    for (tool, command) in [("quota_status", "status"), ("quota_pick", "pick"), ("quota_explain", "explain")]
    {
        let result = client.call(tool, json!({}));

        let printed = machine.run(&[command, "--json", "--config", &config]).json();
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "{tool}");
        assert_eq!(lasting(text), lasting(printed), "{tool}");
    }
}

#[test]
fn all_tools_together_call_the_provider_once() {
    let (provider, machine, config) = setup([used("main", 40.0)]);
    let mut client = Client::connect(&machine, &config);

    let tools = ["quota_status", "quota_pick", "quota_explain", "quota_wait"];
    let ids = tools.map(|tool| client.begin("tools/call", json!({ "name": tool, "arguments": {} })));
    for _ in ids {
        assert!(client.receive()["result"]["isError"] != json!(true));
    }

    assert_eq!(provider.simulator.ledger().calls(), 1);
}

#[test]
fn only_the_named_accounts_are_shown() {
    let (_provider, machine, config) = setup([used("main", 40.0), used("work", 1.0)]);
    let mut client = Client::connect(&machine, &config);

    let one = client.call("quota_status", json!({ "accounts": ["work"], "offline": true }));
    let unknown = client.call("quota_status", json!({ "accounts": ["absent"] }));

    let accounts = one["structuredContent"]["accounts"].as_array().unwrap();
    assert_eq!((accounts.len(), &accounts[0]["account"]), (1, &json!("anthropic/work")));
    assert_eq!(unknown["isError"], true, "{unknown}");
}

#[test]
fn a_wait_ends_when_an_account_becomes_available() {
    let unavailable = used("main", 40.0).answers([Phase::new(Answer::Unavailable)]);
    let policy = "transient = { first = \"1s\", cap = \"1s\" }";
    let (provider, machine, config) = setup_with_policy([unavailable], policy);
    let mut client = Client::connect(&machine, &config);

    let id = client.begin(
        "tools/call",
        json!({ "name": "quota_wait", "arguments": {}, "_meta": { "progressToken": "waits" } }),
    );
    let progress = client.receive();
    provider.simulator.set("main", Change::answer(Answer::Ok)).unwrap();
    let picked = client.answer(id);

    let params = &progress["params"];
    assert_eq!(
        (&progress["method"], &params["progressToken"]),
        (&json!("notifications/progress"), &json!("waits"))
    );
    assert_eq!(params["total"], 50.0);
    assert!(params["message"].as_str().unwrap().starts_with("waiting: "), "{params}");
    let document = &picked["result"]["structuredContent"];
    assert_eq!((&document["outcome"], &document["account"]), (&json!("picked"), &json!("anthropic/main")));
    assert!(document["waited_seconds"].is_u64());
}

#[test]
fn a_wait_that_is_over_returns_the_reasons() {
    let (_provider, machine, config) = setup([used("main", 100.0)]);
    let mut client = Client::connect(&machine, &config);

    let result = client.call("quota_wait", json!({ "max_wait_seconds": 1 }));

    let document = &result["structuredContent"];
    assert_eq!(
        (&document["outcome"], &document["waited_seconds"]),
        (&json!("no_account_available"), &json!(1))
    );
    assert_eq!(document["accounts"][0]["reason"], "exhausted");
}

#[test]
fn a_cancelled_wait_is_not_answered() {
    let (_provider, machine, config) = setup([used("main", 100.0)]);
    let mut client = Client::connect(&machine, &config);

    let id = client.begin(
        "tools/call",
        json!({ "name": "quota_wait", "arguments": { "max_wait_seconds": 86_400 }, "_meta": { "progressToken": 1 } }),
    );
    client.receive();
    client.send(
        &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }),
    );
    client.request("ping", json!({}));

    let (code, output) = client.end();
    assert_eq!(code, Some(0));
    assert!(!output.contains(&format!("\"id\":{id},")), "{output}");
}

#[test]
fn the_end_of_the_input_ends_a_wait_with_its_answer() {
    let (_provider, machine, config) = setup([used("main", 100.0)]);
    let mut client = Client::connect(&machine, &config);

    client.begin(
        "tools/call",
        json!({ "name": "quota_wait", "arguments": { "max_wait_seconds": 86_400 }, "_meta": { "progressToken": 1 } }),
    );
    client.receive();

    let (code, output) = client.end();
    assert_eq!(code, Some(0));
    assert!(output.contains("\"outcome\":\"no_account_available\""), "{output}");
}

#[test]
fn sigterm_releases_the_lease_of_a_call_in_flight() {
    let (provider, machine, config) = setup([used("main", 1.0).answers([Phase::new(Answer::Hang)])]);
    let mut client = Client::connect(&machine, &config);
    client.begin("tools/call", json!({ "name": "quota_status", "arguments": {} }));
    while provider.simulator.ledger().calls() == 0 {
        std::thread::yield_now();
    }

    client.signal(Signal::TERM);
    let code = client.child.wait().unwrap().code();

    assert_eq!(code, Some(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let account: AccountId = "anthropic/main".parse().unwrap();
    let url = format!("sqlite://{}", machine.path(".local/state/quota/quota.db").display());
    let read = async { quota::open_store(&url).unwrap().read(&StoreKey::account(&account)).await.unwrap() };
    let document = runtime.block_on(read).document.expect("the call stored a record");
    assert!(Record::decode(&document.body).unwrap().lease().is_none());
}

#[test]
fn a_client_that_leaves_before_the_first_message_is_no_error() {
    let (_provider, machine, config) = setup([used("main", 1.0)]);

    let ended = machine.run(&["mcp", "--config", &config]);

    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "", ""));
}

#[test]
fn hostile_messages_are_answered_with_protocol_errors() {
    let (_provider, machine, config) = setup([used("main", 40.0)]);
    let mut client = Client::connect(&machine, &config);
    let huge = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}", "x".repeat(4 << 20));
    let deep = "[".repeat(100_000);

    for (line, code) in [
        ("nonsense", -32700),
        (&*deep, -32700),
        (&*huge, -32600),
        ("[]", -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nonsense"}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":5}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"quota_pick","arguments":{"model":5}}}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"quota_pick","arguments":7}}"#,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}"#,
            -32002,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":7}}"#, -32602),
    ] {
        client.write(line.as_bytes());
        let answer = client.receive();
        assert_eq!(answer["error"]["code"], code, "{}: {answer}", &line[..line.len().min(120)]);
    }

    assert_eq!(client.call("quota_pick", json!({}))["structuredContent"]["outcome"], "picked");
}

#[test]
fn an_unusable_configuration_is_an_error_of_the_tool_until_it_is_repaired() {
    let (_provider, machine, config) = setup([used("main", 40.0)]);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, "nonsense = 1").unwrap();
    let mut client = Client::connect(&machine, &config);

    let broken = client.call("quota_pick", json!({}));
    std::fs::write(&config, text).unwrap();
    let repaired = client.call("quota_pick", json!({}));

    assert_eq!(broken["isError"], true, "{broken}");
    let line = broken["content"][0]["text"].as_str().unwrap();
    assert!(line.contains("nonsense") && !line.contains('\n'), "{line}");
    assert_eq!(repaired["structuredContent"]["outcome"], "picked");
}

#[test]
fn a_machine_without_a_login_gets_one_line_of_advice() {
    let machine = Machine::new();
    let mut client = Client::start(&mut machine.command(&["mcp"]));
    client.request(
        "initialize",
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } }),
    );

    let result = client.call("quota_status", json!({}));

    let line = result["content"][0]["text"].as_str().unwrap();
    assert!(line.starts_with("no account was found; ") && !line.contains('\n'), "{line}");
}

#[test]
fn the_events_are_those_of_the_command() {
    let (provider, machine, config) =
        setup_with_policy([used("main", 10.0), used("work", 1.0)], "freshness = \"2ms\"");
    let mut client = Client::connect(&machine, &config);
    client.call("quota_status", json!({}));
    provider.simulator.set("main", Change::used(Window::five_hour(), 100.0)).unwrap();
    client.call("quota_status", json!({}));

    let listed = client.request("resources/list", json!({}))["result"]["resources"].take();
    let uris: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap()).collect();
    let mut read = |uri: &str| {
        let result = client.request("resources/read", json!({ "uri": uri }));
        result["result"]["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
    };

    assert_eq!(uris, ["quota://events", "quota://events/anthropic/main", "quota://events/anthropic/work"]);
    let printed = machine.run(&["events", "--json", "--config", &config]).stdout;
    assert!(printed.contains("\"threshold\""), "{printed}");
    assert_eq!(read("quota://events"), printed);
    let of_main = read("quota://events/anthropic/main");
    assert!(!of_main.is_empty() && of_main.lines().all(|line| line.contains("anthropic/main")), "{of_main}");
}

#[test]
fn a_subscriber_is_notified_of_an_event_of_another_process() {
    let (provider, machine, config) = setup_with_policy([used("main", 10.0)], "freshness = \"2ms\"");
    let mut client = Client::connect(&machine, &config);
    client.call("quota_status", json!({}));
    let uri = "quota://events/anthropic/main";
    client.request("resources/subscribe", json!({ "uri": uri }));
    // The follower has read the journal when this was answered after it.
    client.request("resources/read", json!({ "uri": uri }));

    provider.simulator.set("main", Change::used(Window::five_hour(), 100.0)).unwrap();
    assert_eq!(machine.run(&["status", "--config", &config]).code, Some(0));

    let notice = client.receive();
    assert_eq!(
        (&notice["method"], &notice["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!(uri))
    );
}

#[test]
fn no_output_has_a_token() {
    let (provider, machine, config) = setup([used("main", 100.0), used("work", 40.0)]);
    let tokens =
        [provider.token_of("main"), provider.token_of("work"), "sk-ant-oat01-SECRET-SECRET".to_owned()];
    let mut client = Client::connect(&machine, &config);

    for tool in ["quota_status", "quota_pick", "quota_explain", "quota_wait"] {
        client.call(tool, json!({}));
        client.call(tool, json!({ "model": tokens[2], "session": tokens[2] }));
        client.call(tool, json!({ "accounts": [tokens[2]] }));
        client.request(
            "tools/call",
            json!({ "name": tokens[2], "arguments": { tokens[2].clone(): tokens[2] } }),
        );
    }
    for uri in [&tokens[2], "quota://events"] {
        client.request("resources/read", json!({ "uri": uri }));
    }
    client.request(&tokens[2].clone(), json!({}));

    let (_, output) = client.end();
    for token in tokens {
        assert!(!output.contains(&token), "{token}");
    }
}
