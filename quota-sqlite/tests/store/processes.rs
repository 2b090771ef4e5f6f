//! Tests with other processes. This test program starts itself again, and each child runs the calls that it reads line by line. One store
//! forwards each call to a child. Many children count concurrently, while some of them are killed.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use quota_core::QuotaStore;
use quota_core::store::{CasOutcome, Document, Notice, StoreError, StoreKey, StoreRead, Version, WriteState};
use quota_sqlite::SqliteStore;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::env::{TTL, body, key, new_path, open, raw, read, write};

/// The variable with the file of the child. If it is set, this process is the child.
const FILE: &str = "QUOTA_TEST_SQLITE_FILE";
/// The prefix of a child's lines, because the test harness writes to standard output too.
const LINE_PREFIX: &str = "@ ";

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_another_process_is_read() {
    if let Some(path) = std::env::var_os(FILE) {
        return run_child(&PathBuf::from(path));
    }
    let (_folder, path) = new_path();
    let written = ChildStore::start(&path)
        .compare_and_swap(&key("main"), None, Bytes::from_static(b"theirs"), TTL)
        .await;

    let reading = read(&open(&path), "main").await.unwrap();

    assert_eq!(written.unwrap(), CasOutcome::Applied(reading.version().unwrap()));
    assert_eq!(body(reading).as_deref(), Some("theirs"));
}

#[tokio::test]
async fn a_wait_ends_when_another_process_writes() {
    let (_folder, path) = new_path();
    let (here, there) = (open(&path), ChildStore::start(&path));
    let first = there.compare_and_swap(&key("main"), None, Bytes::from_static(b"one"), TTL).await.unwrap();
    let CasOutcome::Applied(first) = first else { panic!("no other process writes: {first:?}") };

    let key = key("main");
    let wait = here.wait_for_change(&key, Some(first));
    let write = there.compare_and_swap(&key, Some(first), Bytes::from_static(b"two"), TTL);
    let (woken, _) = tokio::join!(wait, write);

    woken.unwrap();
    assert_eq!(body(read(&here, "main").await.unwrap()).as_deref(), Some("two"));
}

#[test]
fn eight_processes_count_exactly_in_20_rounds_while_some_are_killed() {
    const PROCESSES: usize = 8;
    const ROUNDS: usize = 20;
    let (_folder, path) = new_path();

    let kills: usize = std::thread::scope(|scope| {
        let counters: Vec<_> = (0..PROCESSES)
            .map(|number| {
                let path = &path;
                scope.spawn(move || count_in_processes(path, number, ROUNDS))
            })
            .collect();
        counters.into_iter().map(|counter| counter.join().expect("it counted")).sum()
    });

    let text: String =
        raw(&path).query_row("SELECT CAST(body AS TEXT) FROM document", (), |row| row.get(0)).unwrap();
    let mut marks: Vec<_> = text.split_whitespace().collect();
    marks.sort_unstable();
    marks.dedup();
    let counted = (marks.len(), text.split_whitespace().count());
    assert_eq!(counted, (PROCESSES * ROUNDS, PROCESSES * ROUNDS), "each once, with {kills} kills: {text}");
    let verdict: String = raw(&path).query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    assert!(kills > 0, "no process was killed");
}

/// Runs counting children one after another. Each is killed during a round, except the last.
fn count_in_processes(path: &Path, number: usize, rounds: usize) -> usize {
    for kills in 0.. {
        let mut other = ChildProcess::start(path);
        let _ = writeln!(other.stdin, "0 count {number} {rounds}");
        let kill_after = (kills < 3).then(|| fastrand::usize(0..rounds / 3));
        let mut lines = other.lines();
        if kill_after.is_some_and(|after| lines.by_ref().take(after + 1).count() > after) {
            // The next round has already started.
            continue;
        }
        lines.for_each(drop);
        return kills;
    }
    unreachable!("the number of kills is bounded");
}

pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program is a file")
}

/// Another process.
struct ChildProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: Option<ChildStdout>,
}

impl ChildProcess {
    fn start(path: &Path) -> Self {
        Self::by(Command::new(this_program()), path)
    }

    fn by(mut command: Command, path: &Path) -> Self {
        let mut child = command
            .args(["processes::a_write_of_another_process_is_read", "--exact", "--nocapture"])
            .env(FILE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let stdin = child.stdin.take().expect("it was piped");
        let stdout = child.stdout.take();
        Self { child, stdin, stdout }
    }

    /// The child's lines, until it ends.
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let stdout = self.stdout.take().expect("it is read once");
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        // The harness writes progress without ending the line.
        lines.filter_map(|line| line.split_once(LINE_PREFIX).map(|(_, text)| text.to_owned()))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // SIGKILL, so the child cannot clean up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store that forwards each call to another process.
pub(crate) struct ChildStore {
    other: Mutex<ChildProcess>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<String>>>>,
    last: AtomicU64,
}

impl ChildStore {
    pub(crate) fn start(path: &Path) -> Self {
        Self::by(Command::new(this_program()), path)
    }

    /// Starts [`this_program`] with further arguments by this command.
    pub(crate) fn by(command: Command, path: &Path) -> Self {
        let mut other = ChildProcess::by(command, path);
        let waiting = Arc::new(Mutex::new(HashMap::<u64, oneshot::Sender<String>>::new()));
        let (lines, answers) = (other.lines(), Arc::clone(&waiting));
        std::thread::spawn(move || {
            for line in lines {
                let (number, answer) = line.split_once(' ').expect("an answer begins with its number");
                let waiting = number.parse().ok().and_then(|number| answers.lock().remove(&number));
                // The caller may be cancelled.
                let _ = waiting.map(|waiting| waiting.send(answer.to_owned()));
            }
            // No more replies will arrive.
            answers.lock().clear();
        });
        Self { other: Mutex::new(other), waiting, last: AtomicU64::new(0) }
    }

    async fn call(&self, request: String) -> Result<Vec<String>, StoreError> {
        let (sender, answered) = oneshot::channel();
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.waiting.lock().insert(number, sender);
        writeln!(self.other.lock().stdin, "{number} {request}").expect("the other process listens");
        let answer = answered.await.expect("the other process answers");
        let fields: Vec<_> = answer.split(' ').map(str::to_owned).collect();
        match &*fields[0] {
            "unavailable" => Err(StoreError::unavailable(WriteState::Unknown, answer)),
            "refused" => Err(StoreError::rejected(answer)),
            _ => Ok(fields),
        }
    }
}

impl std::fmt::Debug for ChildStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl QuotaStore for ChildStore {
    async fn read(&self, key: &StoreKey) -> Result<StoreRead, StoreError> {
        Ok(parsed_reading(&self.call(format!("read {key}")).await?[1..]))
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<Version>,
        body: Bytes,
        ttl: Duration,
    ) -> Result<CasOutcome, StoreError> {
        let (expected, body) = (format_version(expected), hex(&body));
        let fields = self.call(format!("swap {key} {expected} {} {body}", ttl.as_millis())).await?;
        Ok(match &*fields[0] {
            "applied" => {
                CasOutcome::Applied(parsed_version(&fields[1]).expect("an applied swap has a version"))
            }
            _ => CasOutcome::Conflict(parsed_reading(&fields[1..])),
        })
    }

    async fn wait_for_change(&self, key: &StoreKey, seen: Option<Version>) -> Result<Notice, StoreError> {
        self.call(format!("changed {key} {}", format_version(seen))).await.map(|_| Notice::default())
    }
}

fn run_child(path: &Path) {
    let store = open(path);
    let runtime = Handle::current();
    std::thread::scope(|scope| {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let (store, runtime) = (store.clone(), runtime.clone());
            scope.spawn(move || {
                let fields: Vec<_> = line.split(' ').collect();
                if fields[1] == "count" {
                    runtime.block_on(count(&store, fields[2], fields[3].parse().expect("a number")));
                    std::process::exit(0);
                }
                let answer = runtime.block_on(execute(&store, &fields[1..]));
                print_line(&format!("{} {answer}", fields[0]));
            });
        }
        // The parent is gone. Exit, because a wait would never end.
        std::process::exit(0);
    });
}

fn print_line(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{LINE_PREFIX}{text}").and_then(|()| stdout.flush());
}

async fn execute(store: &SqliteStore, fields: &[&str]) -> String {
    let key = StoreKey::account(&fields[1].parse().expect("a key of an account"));
    let done = match fields[0] {
        "read" => store.read(&key).await.map(|reading| format!("reading {}", format_reading(&reading))),
        "changed" => {
            store.wait_for_change(&key, parsed_version(fields[2])).await.map(|_| "changed".to_owned())
        }
        _ => {
            let (expected, ttl) =
                (parsed_version(fields[2]), Duration::from_millis(fields[3].parse().expect("ms")));
            store.compare_and_swap(&key, expected, unhex(fields[4]), ttl).await.map(|swap| match swap {
                CasOutcome::Applied(version) => format!("applied {}", format_version(Some(version))),
                CasOutcome::Conflict(reading) => format!("conflict {}", format_reading(&reading)),
                _ => "refused: unknown".to_owned(),
            })
        }
    };
    done.unwrap_or_else(|error| {
        let kind = if error.is_transient() { "unavailable" } else { "refused" };
        format!("{kind} {error}")
    })
}

/// Appends its tags, each exactly once, even if this process was killed before it received the reply to a write.
async fn count(store: &SqliteStore, number: &str, rounds: usize) {
    let key = key("counter");
    for round in 0..rounds {
        let tag = format!("{number}.{round} ");
        loop {
            let Ok(reading) = store.read(&key).await else { continue };
            let text = reading.document.as_ref().map(|document| document.body.clone()).unwrap_or_default();
            if String::from_utf8_lossy(&text).split_inclusive(' ').any(|found| found == tag) {
                break;
            }
            let body = [&text[..], tag.as_bytes()].concat().into();
            let _ = store.compare_and_swap(&key, reading.version(), body, TTL).await;
        }
        print_line(&tag);
    }
}

fn format_reading(reading: &StoreRead) -> String {
    let body = reading.document.as_ref().map(|document| hex(&document.body)).unwrap_or_default();
    format!("{} {} {body}", reading.now, format_version(reading.version()))
}

fn parsed_reading(fields: &[String]) -> StoreRead {
    let document = parsed_version(&fields[1]).map(|version| Document::new(version, unhex(&fields[2])));
    StoreRead::new(document, fields[0].parse::<Timestamp>().expect("a timestamp"))
}

fn format_version(version: Option<Version>) -> String {
    version.map_or_else(|| "-".to_owned(), |version| version.number().to_string())
}

fn parsed_version(text: &str) -> Option<Version> {
    text.parse().ok().map(Version::new)
}

fn hex(body: &[u8]) -> String {
    body.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[tokio::test]
async fn concurrent_reads_see_earlier_writes_in_200_rounds() {
    let (_folder, path) = new_path();
    let (theirs, ours) = (open(&path), open(&path));

    for round in 0..200 {
        let version = write(&theirs, "main", "one").await;

        let one = || async { read(&ours, "main").await.unwrap().version() };
        let (a, b, c, d) = tokio::join!(one(), one(), one(), one());

        assert_eq!([a, b, c, d], [Some(version); 4], "round {round}");
    }
}
