//! Runs published programs, forty of each at once, against a simulated provider: those with a fixed address alone and under `quota wrap`,
//! and one that takes a base URL alone and through `quota serve`. `scripts/foreign-clients` installs the programs and calls this one with their folder and the program quota.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use quota_sim::{Account, Script, Simulator, TlsFront, Window};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

/// How many processes of a program run at once.
const PROCESSES: usize = 40;
/// What each program prints of the simulated usage.
const USED: &str = "37";
const TOKEN: &str = "sim-token-main";
const HOST: &str = "api.anthropic.com";

/// What Claude Code passes to a statusline.
const STATUSLINE_INPUT: &str = r#"{"session_id":"s","transcript_path":"/dev/null","cwd":"/","model":{"id":"m","display_name":"M"},"workspace":{"current_dir":"/","project_dir":"/"},"version":"2.0.0"}"#;
const STATUSLINE_SETTINGS: &str =
    r#"{"version":3,"lines":[[{"id":"1","type":"session-usage"}],[],[]],"flexMode":"full","colorLevel":0}"#;

/// A published program.
struct Client {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

fn clients(folder: &Path) -> [Client; 3] {
    let python = |name: &str| folder.join("venv/bin").join(name);
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let statusline = folder.join("node_modules/ccstatusline/dist/ccstatusline.js");
    [
        Client {
            name: "ccstatusline (npm)",
            program: "node".into(),
            arguments: vec![statusline.to_string_lossy().into_owned()],
        },
        Client {
            name: "ai-usage-cli (PyPI)",
            program: python("ai-usage"),
            arguments: text(&["-p", "claude", "--json"]),
        },
        Client {
            name: "ai-limit-checker (PyPI)",
            program: python("aichecker"),
            arguments: text(&["--claude", "--json", "--no-cache"]),
        },
    ]
}

/// What forty processes of a program did.
struct Outcome {
    calls: u64,
    refused: u64,
    shown: usize,
    example: String,
}

async fn run(client: &Client, quota: Option<&Path>) -> Result<Outcome, Box<dyn Error>> {
    let window = Window::five_hour().used(37.0);
    let script = Script::new([Account::new("main").windows([window, Window::seven_day().used(12.0)])]);
    let simulator = Simulator::builder(script).start().await?;
    let address = simulator.url().socket_addrs(|| None)?[0];
    let front = TlsFront::start([(HOST, address)], &["http/1.1"]).await?;
    let shared = tempfile::tempdir()?;
    let authority = shared.path().join("authority.pem");
    std::fs::write(&authority, front.certificate())?;

    let mut running = JoinSet::new();
    for _ in 0..PROCESSES {
        // As on forty machines: no program finds the cache of another process.
        let home = home()?;
        let mut command = match quota {
            Some(quota) => {
                let mut command = Command::new(quota);
                command.arg("wrap").arg("--").arg(&client.program);
                command.env("QUOTA_STORE", format!("sqlite://{}", shared.path().join("quota.db").display()));
                command
            }
            None => Command::new(&client.program),
        };
        command.args(&client.arguments).env("HOME", home.path()).current_dir(home.path());
        command.env("HTTPS_PROXY", front.proxy_url()).env_remove("https_proxy").env_remove("NO_PROXY");
        command.env("NODE_EXTRA_CA_CERTS", &authority).env("SSL_CERT_FILE", &authority);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        running.spawn(async move {
            if let Some(mut input) = child.stdin.take() {
                // Only the statusline reads it.
                let _ = input.write_all(STATUSLINE_INPUT.as_bytes()).await;
            }
            let ended = child.wait_with_output().await;
            drop(home);
            ended
        });
    }
    let (shown, example) = shown(running).await?;
    let ledger = simulator.stop().await;
    let refused = ledger.account("main").map_or(0, |account| account.answered(429));
    Ok(Outcome { calls: ledger.calls(), refused, shown, example })
}

/// Forty processes of keymeter, which reads the budget of a key at any base URL: that of the provider, or of `quota serve`.
async fn run_keymeter(
    folder: &Path,
    provider: &str,
    path: &str,
    quota: Option<&Path>,
) -> Result<Outcome, Box<dyn Error>> {
    let account = Account::new("main").provider(provider).windows([Window::five_hour().used(37.0)]);
    let script = Script::new([account]);
    let simulator = Simulator::builder(script.clone()).start().await?;
    let home = tempfile::tempdir()?;
    let mut url = simulator.url().to_string();
    let mut gateway = None;
    if let Some(quota) = quota {
        let config = home.path().join("config.toml");
        std::fs::write(&config, script.client_config(&simulator.url()))?;
        let mut command = Command::new(quota);
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        command.env("HOME", home.path()).env("QUOTA_SIM_MAIN", TOKEN).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the gateway has no output")?;
        let line = BufReader::new(output).lines().next_line().await?.ok_or("the gateway did not start")?;
        url = line.strip_prefix("Listening on ").ok_or(line.clone())?.to_owned();
        gateway = Some(child);
    }
    let mut running = JoinSet::new();
    for _ in 0..PROCESSES {
        let own = tempfile::tempdir()?;
        let mut command = Command::new(folder.join("venv/bin/keymeter"));
        command.args(["json", "--gateway", provider, "--url"]);
        command.arg(format!("{}{path}", url.trim_end_matches('/')));
        command.env("HOME", own.path()).env("KEYMETER_KEY", TOKEN).current_dir(own.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        running.spawn(async move {
            let ended = child.wait_with_output().await;
            drop(own);
            ended
        });
    }
    let (shown, example) = shown(running).await?;
    drop(gateway);
    let ledger = simulator.stop().await;
    let refused = ledger.account("main").map_or(0, |account| account.answered(429));
    Ok(Outcome { calls: ledger.calls(), refused, shown, example })
}

/// How many processes showed the usage, and what one of the others printed.
async fn shown(
    mut running: JoinSet<std::io::Result<std::process::Output>>,
) -> Result<(usize, String), Box<dyn Error>> {
    let (mut shown, mut example) = (0, String::new());
    while let Some(ended) = running.join_next().await {
        let ended = ended??;
        let text =
            format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        if text.contains(USED) {
            shown += 1;
        } else {
            example = text;
        }
    }
    Ok((shown, example))
}

/// A home directory with a login of Claude Code.
fn home() -> Result<TempDir, Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let write = |name: &str, text: &str| -> std::io::Result<()> {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(home.path()))?;
        std::fs::write(path, text)
    };
    let login = format!(
        r#"{{"claudeAiOauth":{{"accessToken":"{TOKEN}","refreshToken":"sk-ant-ort01-made-up","expiresAt":4102444800000,"scopes":["user:profile"],"subscriptionType":"max"}}}}"#
    );
    write(".claude/.credentials.json", &login)?;
    write(".config/ccstatusline/settings.json", STATUSLINE_SETTINGS)?;
    Ok(home)
}

async fn compare(folder: &Path, quota: &Path) -> Result<bool, Box<dyn Error>> {
    let mut report = format!(
        "{PROCESSES} processes at once, one login, a budget of 30 calls per hour\n\n{:<26} {:>7} {:>7} {:>7}\n",
        "", "calls", "429", "usage"
    );
    let mut is_good = true;
    for client in clients(folder) {
        for (how, quota) in [("alone", None), ("under quota wrap", Some(quota))] {
            let Outcome { calls, refused, shown, example } = run(&client, quota).await?;
            if quota.is_none() {
                report.push_str(&format!("{}\n", client.name));
            } else {
                is_good &= calls == 1 && shown == PROCESSES;
            }
            report.push_str(&format!("  {how:<24} {calls:>7} {refused:>7} {shown:>7}\n"));
            if shown == 0 || quota.is_some() && shown < PROCESSES {
                report.push_str(&format!("  a process without usage printed: {example}\n"));
            }
        }
    }
    for (provider, path) in [("litellm", ""), ("openrouter", "/api")] {
        report.push_str(&format!("keymeter (PyPI), {provider}\n"));
        for (how, quota) in [("alone", None), ("through quota serve", Some(quota))] {
            let Outcome { calls, refused, shown, example } =
                run_keymeter(folder, provider, path, quota).await?;
            is_good &= quota.is_none() || calls == 1 && shown == PROCESSES;
            report.push_str(&format!("  {how:<24} {calls:>7} {refused:>7} {shown:>7}\n"));
            if quota.is_some() && shown < PROCESSES {
                report.push_str(&format!("  a process without usage printed: {example}\n"));
            }
        }
    }
    report.push_str("\ncalls: received by the provider; 429: refused; usage: processes that showed it\n");
    let mut output = tokio::io::stdout();
    output.write_all(report.as_bytes()).await?;
    output.flush().await?;
    Ok(is_good)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(quota)) = (arguments.next(), arguments.next()) else {
        return Err("usage: foreign_clients FOLDER QUOTA".into());
    };
    // The processes run in other directories.
    let is_good = compare(&folder.canonicalize()?, &quota.canonicalize()?).await?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
