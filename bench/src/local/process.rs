//! Starts programs and waits for them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use parking_lot::Mutex;

/// The programs that were installed so far.
static INSTALLED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A program with its arguments and variables.
#[derive(Debug, Clone)]
pub(super) struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Process {
    /// A program that was built together with this one, installed as a copy.
    ///
    /// The pages that a linker wrote are scattered in the page cache, which slows each start by a third. The pages of a copy
    /// are not.
    pub(super) fn built<const N: usize>(name: &str, arguments: [&str; N]) -> Self {
        let here = std::env::current_exe().expect("this program is a file");
        let built = here.with_file_name(name);
        assert!(built.exists(), "{} is not built; run scripts/bench", built.display());
        let program = here.with_file_name("installed").join(name);
        let mut installed = INSTALLED.lock();
        // Copy it only once, because a program cannot be run while another process has inherited its open file.
        if installed.insert(name.to_owned()) {
            let draft = program.with_file_name(format!("{name}.new"));
            std::fs::create_dir_all(draft.parent().expect("the path has a folder"))
                .expect("the disk has space");
            std::fs::copy(&built, &draft).expect("the disk has space");
            // A running program can be replaced, but not overwritten.
            std::fs::rename(&draft, &program).expect("this process owns the folder");
        }
        Self::at(program, arguments)
    }

    /// A program in `PATH`; `None` if it is not installed.
    pub(super) fn in_path<const N: usize>(name: &str, arguments: [&str; N]) -> Option<Self> {
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
        self.command(&self.program).args(&self.arguments).spawn().expect("the program can be started")
    }

    pub(super) fn time_ms(&self) -> f64 {
        let start = Instant::now();
        let ended = self.start().wait().expect("the process can be awaited");
        let took = start.elapsed();
        assert!(ended.success(), "{self:?} ended with {ended}");
        took.as_secs_f64() * 1e3
    }

    /// The peak memory, as time(1) reports it; `None` if that is not installed.
    pub(super) fn peak_memory_mib(&self) -> Option<f64> {
        // Start it from a small program, because the memory of the parent counts until the exec.
        let time = Path::new("/usr/bin/time");
        if !time.is_file() {
            return None;
        }
        let mut command = self.command(time);
        command.args(["-f", "%M"]).arg(&self.program).args(&self.arguments).stderr(Stdio::piped());
        let stderr = command.output().ok()?.stderr;
        let kib: f64 = String::from_utf8_lossy(&stderr).lines().last()?.trim().parse().ok()?;
        Some(kib / 1024.0)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}
