//! Which hooks run for what, and what they are told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use jiff::Timestamp;

use super::*;
use crate::happening::Direction;

fn account() -> AccountId {
    "anthropic/main".parse().expect("a valid name")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment")
}

fn passed(window: &str, threshold_bp: u32) -> Happening {
    let direction = Direction::Up;
    Happening::new(at(7), What::Threshold { window: window.into(), threshold_bp, used_bp: 8_050, direction })
}

fn hook(on: &'static str, action: Action) -> Hook {
    let timeout = Duration::from_secs(30);
    Hook { on: vec![on], accounts: Vec::new(), windows: Vec::new(), thresholds: Vec::new(), action, timeout }
}

fn shell(script: &str) -> Action {
    Action::Run { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] }
}

async fn run_one(hook: Hook) -> Vec<String> {
    let (secrets, new) = (["QUOTA_WORK".to_owned()], [passed("five_hour", 8_000)]);
    let failed = run_hooks(&[hook], &secrets, &account(), &new, &Clock::system()).await;
    failed.iter().map(ToString::to_string).collect()
}

#[test]
fn a_hook_is_for_what_it_names() {
    let mut hook = hook("threshold", shell("true"));
    hook.thresholds = vec![8_000];
    hook.windows = vec!["five_hour".into()];
    let is_for = |happening| hook.is_for(&account(), &happening);

    assert!(is_for(passed("five_hour", 8_000)));
    assert!(!is_for(passed("five_hour", 9_000)));
    assert!(!is_for(passed("seven_day", 8_000)));
    assert!(!is_for(Happening::new(at(7), What::Refreshed)));
}

#[test]
fn a_hook_for_other_accounts_is_not_for_this_one() {
    let mut hook = hook("refreshed", shell("true"));
    hook.accounts = vec!["anthropic/work".parse().unwrap()];

    assert!(!hook.is_for(&account(), &Happening::new(at(7), What::Refreshed)));
}

#[test]
fn a_note_has_every_field() {
    let account = account();
    let throttled = Happening::new(at(7), What::Throttled { until: at(67) });
    let notes =
        [passed("five_hour", 8_000), throttled].map(|happening| Note::of(&account, &happening).json());

    insta::assert_snapshot!(notes.join("\n"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_gets_the_note_on_its_input_and_in_its_environment() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let script = format!(
        "cat > '{0}'; echo \"$QUOTA_EVENT $QUOTA_WINDOW $QUOTA_USED_PERCENT\" >> '{0}'",
        told.display()
    );

    let troubles = run_one(hook("threshold", shell(&script))).await;

    assert_eq!(troubles, Vec::<String>::new());
    let told = std::fs::read_to_string(told).unwrap();
    assert!(
        told.starts_with(r#"{"version":1,"id":"anthropic/main:threshold-up:five_hour:8000@7000""#),
        "{told}"
    );
    assert!(told.ends_with("\nthreshold five_hour 80.5\n"), "{told}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_that_fails_is_told_without_what_it_wrote() {
    let troubles = run_one(hook("threshold", shell("echo secret >&2; exit 3"))).await;

    assert_eq!(troubles, ["hook 1 ended with exit status: 3 (for threshold of anthropic/main)"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_that_does_not_end_is_ended() {
    let mut endless = hook("threshold", shell("exec sleep 3600"));
    endless.timeout = Duration::from_millis(50);

    let troubles = run_one(endless).await;

    assert_eq!(troubles, ["hook 1 was ended after 0.05 s (for threshold of anthropic/main)"]);
}

#[cfg(unix)]
#[tokio::test]
async fn whatever_a_command_has_started_is_ended_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let script = format!("(echo begun; exec sleep 3600) > '{}' & wait", pipe.display());
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let reader = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(std::fs::File::open(pipe).unwrap()).lines();
        begun.send(lines.next().unwrap().unwrap()).unwrap();
        // A pipe ends with the last process that has it open for writing.
        lines.next().is_none()
    });

    tokio::select! {
        troubles = run_one(hook("threshold", shell(&script))) => panic!("it has ended: {troubles:?}"),
        line = has_begun => assert_eq!(line.unwrap(), "begun"),
    }

    assert!(reader.await.unwrap());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let action = Action::Run { program: "/nowhere/at-all".into(), arguments: Vec::new() };

    let failed = run_hooks(
        &[hook("threshold", action)],
        &[],
        &account(),
        &[passed("five_hour", 8_000)],
        &Clock::system(),
    )
    .await;

    let [HookError { failure: HookFailure::NotRun(cause), .. }] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(failed[0].to_string(), "hook 1 could not be run (for threshold of anthropic/main)");
}

/// Answers one request with `answer`, and gives what was asked.
fn answering(answer: &'static str) -> (Action, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let mut asked = Vec::new();
        let mut chunk = [0; 4096];
        while !asked.ends_with(b"}") {
            let read = stream.read(&mut chunk).expect("it can be read");
            assert!(read > 0, "it ended early");
            asked.extend_from_slice(&chunk[..read]);
        }
        stream.write_all(answer.as_bytes()).expect("it can be answered");
        String::from_utf8(asked).expect("it is text")
    });
    let url = format!("http://{address}/secret-path").parse().expect("it is a URL");
    (Action::Post(Address::new(url)), asked)
}

#[tokio::test]
async fn a_note_is_posted_as_json() {
    let (action, asked) = answering("HTTP/1.1 204 No Content\r\n\r\n");

    let troubles = run_one(hook("threshold", action)).await;

    let asked = asked.join().unwrap();
    assert_eq!(troubles, Vec::<String>::new());
    assert!(asked.starts_with("POST /secret-path HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("content-type: application/json\r\n") && asked.contains(r#""kind":"threshold""#),
        "{asked}"
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_address_not_told() {
    let (action, asked) = answering(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
    );

    let troubles = run_one(hook("threshold", action)).await;

    asked.join().unwrap();
    assert_eq!(troubles, ["hook 1 was answered with 307 (for threshold of anthropic/main)"]);
}
