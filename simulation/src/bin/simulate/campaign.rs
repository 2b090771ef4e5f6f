//! Runs many seeds on several threads. Records the results in a file, from which a later run of the same code continues.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::path::PathBuf;

use parking_lot::Mutex;
use quota_core::clock::{Clock, Instant};
use simulation::{Plan, run};

/// The seeds that one thread runs before it records their results.
const SHARD: u64 = 50;

/// Which seeds to run, and how.
#[derive(Debug)]
pub(crate) struct Campaign {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) jobs: usize,
    /// The file of the results, and the version of the code that they belong to.
    pub(crate) results: Option<(PathBuf, String)>,
    pub(crate) stop_at_violation: bool,
}

/// The combined results of the seeds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Summary {
    seeds: u64,
    pub(crate) failed: u64,
    events: usize,
    calls: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, failed, events, calls } = self;
        write!(f, "{seeds} seeds, {failed} failed, {events} events, {calls} calls")
    }
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.failed += other.failed;
        self.events += other.events;
        self.calls += other.calls;
    }

    /// The line of a shard in the file of the results.
    fn line(&self, first: u64) -> String {
        format!("shard {first} {} {} {} {}\n", self.seeds, self.failed, self.events, self.calls)
    }

    /// Reads a line of a shard.
    fn parse(line: &str) -> Option<(u64, Self)> {
        let mut words = line.strip_prefix("shard ")?.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let first = number()?;
        let (seeds, failed) = (number()?, number()?);
        let (events, calls) = (usize::try_from(number()?).ok()?, usize::try_from(number()?).ok()?);
        Some((first, Self { seeds, failed, events, calls }))
    }
}

/// The state that the threads share.
struct Progress {
    /// The first seeds of the shards that are left, last first.
    shards: Vec<u64>,
    file: Option<File>,
    summary: Summary,
    began: Instant,
    /// The seeds of this run, without those of the file.
    ran: u64,
}

impl Campaign {
    /// Runs the seeds and prints each violation.
    pub(crate) fn run(&self) -> io::Result<Summary> {
        let progress = Mutex::new(self.start()?);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.jobs).map(|_| scope.spawn(|| self.work(&progress))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a simulation does not panic"))
        })?;
        Ok(progress.into_inner().summary)
    }

    /// Opens the file of the results and finds the shards that are left.
    fn start(&self) -> io::Result<Progress> {
        let mut summary = Summary::default();
        let mut done = BTreeSet::new();
        let file = match &self.results {
            None => None,
            Some((path, code)) => {
                let header = format!("code {code}");
                let text = fs::read_to_string(path).unwrap_or_default();
                let is_same_code = text.lines().next() == Some(header.as_str());
                for (first, shard) in text.lines().filter(|_| is_same_code).filter_map(Summary::parse) {
                    if self.shards().any(|wanted| wanted == first) && done.insert(first) {
                        summary.add(shard);
                    }
                }
                Some(open(path, (!is_same_code).then_some(&header))?)
            }
        };
        let shards = self.shards().filter(|first| !done.contains(first)).rev().collect();
        Ok(Progress { shards, file, summary, began: Clock::system().instant(), ran: 0 })
    }

    fn shards(&self) -> impl DoubleEndedIterator<Item = u64> {
        (0..self.count.div_ceil(SHARD)).map(|shard| self.first + shard * SHARD)
    }

    fn work(&self, progress: &Mutex<Progress>) -> io::Result<()> {
        loop {
            let Some(first) = progress.lock().shards.pop() else {
                return Ok(());
            };
            let (summary, violations) = self.run_shard(first);
            let mut progress = progress.lock();
            progress.record(first, summary, &violations)?;
            if self.stop_at_violation && summary.failed > 0 {
                progress.shards.clear();
            }
            progress.show(self.count);
        }
    }

    fn run_shard(&self, first: u64) -> (Summary, String) {
        let (mut summary, mut violations) = (Summary::default(), String::new());
        for seed in first..(first + SHARD).min(self.first + self.count) {
            let report = run(&Plan::from_seed(seed), false);
            summary.add(Summary {
                seeds: 1,
                failed: u64::from(!report.violations.is_empty()),
                events: report.events,
                calls: report.calls,
            });
            for violation in &report.violations {
                violations.push_str(&format!("seed {seed}: {violation}\n"));
            }
            if self.stop_at_violation && summary.failed > 0 {
                break;
            }
        }
        (summary, violations)
    }
}

impl Progress {
    #[expect(clippy::print_stdout, reason = "a program prints its results")]
    fn record(&mut self, first: u64, summary: Summary, violations: &str) -> io::Result<()> {
        if io::stdout().is_terminal() && !violations.is_empty() {
            print!("\r\x1b[K");
        }
        print!("{violations}");
        self.summary.add(summary);
        self.ran += summary.seeds;
        match &mut self.file {
            // One write, so that an interrupted run leaves no half of it.
            Some(file) => file.write_all(format!("{violations}{}", summary.line(first)).as_bytes()),
            None => Ok(()),
        }
    }

    #[expect(clippy::print_stdout, reason = "a program prints its progress")]
    fn show(&self, count: u64) {
        let Summary { seeds, failed, .. } = self.summary;
        #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
        let rate = self.ran as f64 / Clock::system().instant().saturating_since(self.began).as_secs_f64();
        if io::stdout().is_terminal() {
            print!("\r{seeds}/{count} seeds, {failed} failed, {rate:.0}/s ");
            let _ = io::stdout().flush();
            if seeds == count {
                println!();
            }
        } else if seeds % 1_000 == 0 {
            println!("{seeds}/{count} seeds, {failed} failed, {rate:.0}/s");
        }
    }
}

/// Opens the file to append to it. With `header`, starts it over.
fn open(path: &Path, header: Option<&String>) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if let Some(header) = header {
        fs::write(path, format!("{header}\n"))?;
    }
    OpenOptions::new().append(true).open(path)
}
