//! One process of a herd: `herd-member STORE PROVIDER TASKS [FRESH]`. STORE is a URL, PROVIDER a loopback port, and FRESH the
//! max age in milliseconds.
//!
//! It prints `ready`. For each line of input, that many tasks at once get one account, which has no readings at first. The
//! program prints how many tasks got a reading, and the median and the longest wait in milliseconds. It exits at the end of its
//! input.
#![expect(clippy::print_stdout, reason = "the parent reads it")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads a clock, and the tasks are awaited")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quota_core::{
    AccountId, Credential, FetchError, Percent, Policy, ProviderId, QuotaManager, QuotaStore, UsageFetcher,
    UsageReport, WindowId, WindowReading,
};
use quota_redis::RedisStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

/// A provider that sends each call to the parent process, and returns its response.
#[derive(Debug)]
struct Parent {
    port: u16,
}

impl Parent {
    async fn call(&self) -> std::io::Result<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_u32(std::process::id()).await?;
        stream.read_u8().await
    }
}

#[async_trait]
impl UsageFetcher for Parent {
    fn provider(&self) -> ProviderId {
        ProviderId::from_static("bench")
    }

    async fn fetch(&self, _account: &AccountId, _credential: &Credential) -> Result<UsageReport, FetchError> {
        let used = self.call().await.map_err(|_| FetchError::unavailable("the parent process has exited"))?;
        let used = Percent::from_percent(f64::from(used)).expect("the percentage is finite");
        Ok(UsageReport::polled([WindowReading::new(WindowId::five_hour(), used)]))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, port, tasks, fresh) = match &arguments[..] {
        [url, port, tasks] => (url, port, tasks, None),
        [url, port, tasks, fresh] => (url, port, tasks, Some(Duration::from_millis(fresh.parse()?))),
        _ => return Err("usage: herd-member STORE PROVIDER TASKS [FRESH]".into()),
    };
    let (port, tasks): (u16, usize) = (port.parse()?, tasks.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut receiver) = unbounded_channel();
    // The thread ends with the input, and the process ends with the thread.
    std::thread::spawn(move || {
        stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    runtime.block_on(async {
        let store: Arc<dyn QuotaStore> = Arc::new(RedisStore::open(url)?);
        let mut policy = Policy::default().fetch_timeout(FETCH_TIMEOUT);
        if let Some(fresh) = fresh {
            policy = policy.max_age(fresh).full_refresh_interval(fresh);
        }
        let quota = QuotaManager::builder(store).fetcher(Parent { port }).policy(policy).build()?;
        let account = quota.account(&"bench/main".parse()?);
        println!("ready");
        while receiver.recv().await.is_some() {
            let start = Instant::now();
            let mut readers = JoinSet::new();
            for _ in 0..tasks {
                let account = account.clone();
                readers.spawn(async move { account.get().await.is_ok().then(|| start.elapsed()) });
            }
            let mut waits: Vec<Duration> = readers.join_all().await.into_iter().flatten().collect();
            waits.sort();
            let in_ms = |wait: Option<&Duration>| wait.map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3);
            println!("{} {} {}", waits.len(), in_ms(waits.get(waits.len() / 2)), in_ms(waits.last()));
        }
        Ok(())
    })
}

/// The lease of a process that is killed during a call lasts two seconds longer than this.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);
