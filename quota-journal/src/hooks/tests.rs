//! Tests which hooks run for which event, and what they receive.

#[cfg(unix)]
use std::io::{BufRead, BufReader};
#[cfg(feature = "post")]
use std::{
    io::{Read, Write},
    net::TcpListener,
};

use jiff::Timestamp;

use super::*;
use crate::event::Direction;

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a valid timestamp")
}

fn crossed(window: &str, threshold_bp: u32) -> JournalEvent {
    let direction = Direction::Up;
    JournalEvent::new(
        at(7),
        EventKind::Threshold { window: window.into(), threshold_bp, used_bp: 8_050, direction },
    )
}

fn hook(on: &'static str, action: Action) -> Hook {
    let timeout = Duration::from_secs(30);
    Hook { on: vec![on], accounts: Vec::new(), windows: Vec::new(), thresholds: Vec::new(), action, timeout }
}

fn shell(script: &str) -> Action {
    Action::Run { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
}

async fn run_one(hook: Hook) -> Vec<String> {
    let (secrets, new) = (["QUOTA_WORK".to_owned()], [crossed("five_hour", 8_000)]);
    let failed = run_hooks(&[hook], &secrets, &account(), &new, &Clock::system()).await;
    failed.iter().map(ToString::to_string).collect()
}

#[test]
fn a_hook_runs_for_the_events_it_lists() {
    let mut hook = hook("threshold", shell("true"));
    hook.thresholds = vec![8_000];
    hook.windows = vec!["five_hour".into()];
    let matches = |event| hook.matches(&account(), &event);

    assert!(matches(crossed("five_hour", 8_000)));
    assert!(!matches(crossed("five_hour", 9_000)));
    assert!(!matches(crossed("seven_day", 8_000)));
    assert!(!matches(JournalEvent::new(at(7), EventKind::Refreshed)));
}

#[test]
fn a_hook_for_other_accounts_does_not_run() {
    let mut hook = hook("refreshed", shell("true"));
    hook.accounts = vec!["anthropic/work".parse().unwrap()];

    assert!(!hook.matches(&account(), &JournalEvent::new(at(7), EventKind::Refreshed)));
}

#[test]
fn a_payload_has_every_field() {
    let account = account();
    let throttled = JournalEvent::new(at(7), EventKind::Throttled { until: at(67) });
    let payloads =
        [crossed("five_hour", 8_000), throttled].map(|event| HookPayload::new(&account, &event).json());

    insta::assert_snapshot!(payloads.join("\n"));
}

#[test]
fn a_run_is_unchanged_by_json() {
    let hooks = [hook("threshold", shell("true"))];

    let runs = hook_runs(&hooks, &account(), &[crossed("five_hour", 8_000)]);
    let json = serde_json::to_string(&runs).unwrap();

    assert_eq!(serde_json::from_str::<Vec<HookRun>>(&json).unwrap(), runs);
    assert_eq!(runs.len(), 1);
}

#[cfg(feature = "post")]
#[test]
fn a_run_shows_its_url_only_in_its_json() {
    let url = "https://example.com/secret".parse().unwrap();
    let hooks = [hook("threshold", Action::Post(SecretUrl::new(url)))];

    let runs = hook_runs(&hooks, &account(), &[crossed("five_hour", 8_000)]);
    let json = serde_json::to_string(&runs).unwrap();

    assert!(json.contains("secret") && !format!("{runs:?}").contains("secret"));
    assert_eq!(serde_json::from_str::<Vec<HookRun>>(&json).unwrap(), runs);
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_gets_the_payload_on_stdin_and_in_its_environment() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("output");
    let script = format!(
        "cat > '{0}'; echo \"$QUOTA_EVENT $QUOTA_WINDOW $QUOTA_USED_PERCENT\" >> '{0}'",
        output.display()
    );

    let errors = run_one(hook("threshold", shell(&script))).await;

    assert_eq!(errors, Vec::<String>::new());
    let output = std::fs::read_to_string(output).unwrap();
    assert!(
        output.starts_with(r#"{"version":2,"id":"anthropic/main:threshold-up:five_hour:8000@7000""#),
        "{output}"
    );
    assert!(output.ends_with("\nthreshold five_hour 80.5\n"), "{output}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_error_of_a_command_does_not_repeat_its_output() {
    let errors = run_one(hook("threshold", shell("echo secret >&2; exit 3"))).await;

    assert_eq!(errors, ["hook 1 ended with exit status: 3 (for threshold of anthropic/main)"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_is_killed_after_its_timeout() {
    let mut endless = hook("threshold", shell("exec sleep 3600"));
    endless.timeout = Duration::from_millis(50);

    let errors = run_one(endless).await;

    assert_eq!(errors, ["hook 1 timed out after 0.05 s (for threshold of anthropic/main)"]);
}

#[cfg(unix)]
#[tokio::test]
async fn child_processes_of_a_command_are_killed_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let script = format!("(echo started; exec sleep 3600) > '{}' & wait", pipe.display());
    let (started, has_started) = tokio::sync::oneshot::channel();
    let reader = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(std::fs::File::open(pipe).unwrap()).lines();
        started.send(lines.next().unwrap().unwrap()).unwrap();
        // A pipe ends when the last process that has it open for writing ends.
        lines.next().is_none()
    });

    tokio::select! {
        errors = run_one(hook("threshold", shell(&script))) => panic!("the hook ended: {errors:?}"),
        line = has_started => assert_eq!(line.unwrap(), "started"),
    }

    assert!(reader.await.unwrap());
}

#[tokio::test]
async fn a_missing_program_is_an_error() {
    let action = Action::Run { program: "/nowhere/at-all".into(), arguments: Vec::new() };

    let failed = run_hooks(
        &[hook("threshold", action)],
        &[],
        &account(),
        &[crossed("five_hour", 8_000)],
        &Clock::system(),
    )
    .await;

    let [HookError { failure: HookFailure::NotStarted(cause), .. }] = &failed[..] else {
        panic!("{failed:?}")
    };
    assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(failed[0].to_string(), "hook 1 could not be run (for threshold of anthropic/main)");
}

/// Serves one request with `response`. The thread returns the request.
#[cfg(feature = "post")]
fn serving(response: &'static str) -> (Action, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("the socket is bound");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client connects");
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        while !request.ends_with(b"}") {
            let read = stream.read(&mut chunk).expect("the request can be read");
            assert!(read > 0, "the request ended early");
            request.extend_from_slice(&chunk[..read]);
        }
        stream.write_all(response.as_bytes()).expect("the response can be written");
        String::from_utf8(request).expect("the request is text")
    });
    let url = format!("http://{address}/secret-path").parse().expect("a valid URL");
    (Action::Post(SecretUrl::new(url)), server)
}

#[cfg(feature = "post")]
#[tokio::test]
async fn the_payload_is_posted_as_json() {
    let (action, server) = serving("HTTP/1.1 204 No Content\r\n\r\n");

    let errors = run_one(hook("threshold", action)).await;

    let request = server.join().unwrap();
    assert_eq!(errors, Vec::<String>::new());
    assert!(request.starts_with("POST /secret-path HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("content-type: application/json\r\n") && request.contains(r#""kind":"threshold""#),
        "{request}"
    );
}

#[cfg(feature = "post")]
#[tokio::test]
async fn a_redirect_is_not_followed_and_the_url_not_shown() {
    let (action, server) = serving(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
    );

    let errors = run_one(hook("threshold", action)).await;

    server.join().unwrap();
    assert_eq!(errors, ["hook 1 got HTTP status 307 (for threshold of anthropic/main)"]);
}
