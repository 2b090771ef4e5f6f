//! Programs that are started and waited for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use parking_lot::Mutex;

/// The programs that were copied to where they are run.
static INSTALLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A program with its arguments and variables.
#[derive(Debug, Clone)]
pub(super) struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Process {
    /// A program that was built together with this one, as it is once it is installed.
    ///
    /// It is a copy: what a linker has written here and there is in as many pieces in the page cache, which is no property of
    /// the program, and costs each start a third of its time.
    pub(super) fn beside<const N: usize>(name: &str, arguments: [&str; N]) -> Self {
        let here = std::env::current_exe().expect("this program is a file");
        let built = here.with_file_name(name);
        assert!(built.exists(), "{} is not built; run scripts/bench", built.display());
        let program = here.with_file_name("installed").join(name);
        let mut installed = INSTALLED.lock();
        // Once: while one thread writes a program, another that starts one would keep it from being run.
        if installed.insert(name.to_owned()) {
            let draft = program.with_file_name(format!("{name}.new"));
            std::fs::create_dir_all(draft.parent().expect("it is in a folder")).expect("there is room");
            std::fs::copy(&built, &draft).expect("there is room");
            // One that is still running cannot be written over, only replaced.
            std::fs::rename(&draft, &program).expect("the folder is ours");
        }
        Self::at(program, arguments)
    }

    /// A program of this machine; `None` if it is not there.
    pub(super) fn found<const N: usize>(name: &str, arguments: [&str; N]) -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        let program =
            std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())?;
        Some(Self::at(program, arguments))
    }

    fn at<const N: usize>(program: PathBuf, arguments: [&str; N]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { program, arguments, variables: Vec::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(super) fn start(&self) -> Child {
        self.command(&self.program).args(&self.arguments).spawn().expect("it can be started")
    }

    pub(super) fn time_ms(&self) -> f64 {
        let start = Instant::now();
        let ended = self.start().wait().expect("it can be waited for");
        let took = start.elapsed();
        assert!(ended.success(), "{self:?} ended with {ended}");
        took.as_secs_f64() * 1e3
    }

    /// The most memory it had, by time(1); `None` where that is not installed.
    pub(super) fn peak_memory_mib(&self) -> Option<f64> {
        // Started by something small: what its parent had counts until it has become the program.
        let time = Path::new("/usr/bin/time");
        if !time.is_file() {
            return None;
        }
        let mut command = self.command(time);
        command.args(["-f", "%M"]).arg(&self.program).args(&self.arguments).stderr(Stdio::piped());
        let said = command.output().ok()?.stderr;
        let kib: f64 = String::from_utf8_lossy(&said).lines().last()?.trim().parse().ok()?;
        Some(kib / 1024.0)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}
