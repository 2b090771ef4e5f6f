//! `quota serve` as a process with 20 accounts: the time until its first answer, and its memory once it is idle.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Instant;

use quota_sim::{Account, Script, Simulator, Window};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{Client, RUNS};
use crate::measure::median;
use crate::row::Row;

const ACCOUNTS: usize = 20;
const MAX_START_MS: f64 = 150.0;
const MAX_MEMORY_MIB: f64 = 24.0;

pub(super) async fn rows() -> Vec<Row> {
    let accounts = (0..ACCOUNTS)
        .map(|number| Account::new(format!("a{number}")).windows([Window::five_hour().used(10.0)]));
    let simulator = Simulator::builder(Script::new(accounts)).start().await.expect("a simulator");
    let (mut starts, mut memory) = (Vec::new(), Vec::new());
    for round in 0..=RUNS {
        // Each process begins without readings.
        let home = tempfile::tempdir().expect("a folder");
        let started_at = Instant::now();
        let (process, address) = start(&home, simulator.url().as_ref()).await;
        let mut client = Client::connect(address).await;
        client.get("/healthz", "").await;
        let start = started_at.elapsed().as_secs_f64() * 1e3;
        // After these answers each account has readings, and the process is idle.
        for number in 0..ACCOUNTS {
            client.get(&format!("/account/anthropic/a{number}/api/oauth/usage"), "").await;
        }
        drop(client);
        // The first round is a warm-up.
        if round > 0 {
            starts.push(start);
            memory.extend(resident_mib(&process));
        }
    }
    let start = median(starts);
    let start = Row::absolute("serve.start", (start, "ms"), "<= 150 ms", start <= MAX_START_MS);
    if memory.is_empty() {
        return vec![start];
    }
    let memory = median(memory);
    vec![start, Row::absolute("serve.memory", (memory, "MiB"), "<= 24 MiB", memory <= MAX_MEMORY_MIB)]
}

/// Starts the program that was built together with this one, and waits until it listens. It is killed when it is dropped.
async fn start(home: &TempDir, provider: &str) -> (Child, SocketAddr) {
    let program = std::env::current_exe().expect("this program is a file").with_file_name("quota");
    assert!(program.exists(), "{} is not built; run scripts/bench", program.display());
    let config = home.path().join("config.toml");
    let account = |number| {
        format!(
            "[[accounts]]\nid = \"anthropic/a{number}\"\nbase_url = \"{provider}\"\ntoken_env = \"TOKEN_{number}\"\n"
        )
    };
    // The provider accepts calls without a pause, so the accounts need not take turns for 20 seconds.
    let text: String = std::iter::once("[policy]\nmin_call_interval = \"1ms\"\n".to_owned())
        .chain((0..ACCOUNTS).map(account))
        .collect();
    std::fs::write(&config, text).expect("the disk has space");
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home.path()).arg("serve").arg("--config").arg(&config);
    command.args(["--listen", "127.0.0.1:0"]);
    command.envs((0..ACCOUNTS).map(|number| (format!("TOKEN_{number}"), format!("sim-token-a{number}"))));
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let line = lines.next_line().await.expect("a line").expect("the address");
    let address = line.strip_prefix("Listening on http://").expect("the address");
    (child, address.parse().expect("an address"))
}

/// The resident memory; `None` where the system has no `/proc`.
fn resident_mib(process: &Child) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()?)).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    Some(kib.trim().parse::<f64>().ok()? / 1024.0)
}
