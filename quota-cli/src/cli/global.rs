//! The options `--store`, `--config` and `--json`, which may be given before or after the command.
//!
//! They are arguments of each command that uses them. With clap's `global = true` they would appear in the help of every command, and
//! a value after the command would silently replace one before it.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error, value_parser};

/// The values of the global options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GlobalOptions {
    pub(crate) store: Option<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) json: bool,
}

/// A global option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GlobalOption {
    Store,
    Config,
    Json,
}

impl GlobalOption {
    pub(super) const ALL: [Self; 3] = [Self::Store, Self::Config, Self::Json];
    /// The options of commands that write no JSON.
    pub(super) const STORE_AND_CONFIG: [Self; 2] = [Self::Store, Self::Config];

    fn id(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Config => "config",
            Self::Json => "json",
        }
    }

    fn arg(self) -> Arg {
        let arg = Arg::new(self.id()).long(self.id()).help_heading("Global options");
        match self {
            Self::Store => {
                arg.value_name("URL").help("Shared store URL [default: $QUOTA_STORE, else a per-user file]")
            }
            Self::Config => arg
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file [default: ~/.config/quota/config.toml]"),
            Self::Json => arg.action(ArgAction::SetTrue).help("Output JSON"),
        }
    }

    /// The error text for a command that does not accept the option.
    fn not_used(self) -> &'static str {
        match self {
            Self::Store => "this command does not use a store; remove --store",
            Self::Config => "this command does not read a configuration file; remove --config",
            Self::Json => "this command does not support --json; remove it",
        }
    }
}

/// The arguments of a command that uses these options.
pub(super) fn args<const N: usize>(options: [GlobalOption; N]) -> [Arg; N] {
    options.map(GlobalOption::arg)
}

impl GlobalOptions {
    /// Collects the options from the program's arguments and those of its subcommands.
    ///
    /// # Errors
    ///
    /// A usage error if an option is not used by the command, was given twice, or conflicts with another argument.
    pub(super) fn collect(program: &mut Command, matches: &ArgMatches) -> Result<Self, Error> {
        let mut levels = vec![matches];
        let mut command = &*program;
        while let Some((name, matches)) = levels[levels.len() - 1].subcommand() {
            command = command.find_subcommand(name).expect("clap has found it");
            levels.push(matches);
        }
        let (given, rejected) = Self::of_levels(command, &levels);
        match rejected {
            None => Ok(given),
            Some((kind, text)) => Err(program.error(kind, text)),
        }
    }

    /// The given options, and the usage error if one of them is not accepted.
    fn of_levels(command: &Command, levels: &[&ArgMatches]) -> (Self, Option<(ErrorKind, String)>) {
        let mut given = Self::default();
        for option in GlobalOption::ALL {
            let id = option.id();
            let mut with_value = levels.iter().filter(|matches| is_given(matches, id));
            let Some(matches) = with_value.next() else { continue };
            if with_value.next().is_some() {
                let text = format!("--{id} was given twice; remove one of them");
                return (given, Some((ErrorKind::ArgumentConflict, text)));
            }
            if !command.get_arguments().any(|arg| arg.get_id() == id) {
                return (given, Some((ErrorKind::UnknownArgument, option.not_used().to_owned())));
            }
            if let Some(other) = conflict(command, levels[levels.len() - 1], id) {
                let text = format!("the argument '--{id}' cannot be used with '--{other}'");
                return (given, Some((ErrorKind::ArgumentConflict, text)));
            }
            match option {
                GlobalOption::Store => given.store = matches.get_one(id).cloned(),
                GlobalOption::Config => given.config = matches.get_one(id).cloned(),
                GlobalOption::Json => given.json = true,
            }
        }
        (given, None)
    }
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).unwrap_or(false) && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// A given argument that conflicts with this option. Clap itself compares only arguments of the same command level.
fn conflict<'a>(command: &'a Command, matches: &ArgMatches, id: &str) -> Option<&'a str> {
    let conflicts = |arg: &&Arg| command.get_arg_conflicts_with(arg).iter().any(|other| other.get_id() == id);
    let given = command.get_arguments().filter(|arg| is_given(matches, arg.get_id().as_str()));
    given.filter(conflicts).find_map(Arg::get_long)
}

#[cfg(test)]
mod tests {
    use super::super::Arguments;

    fn read(line: &str) -> Result<String, String> {
        let arguments = Arguments::read(["quota"].into_iter().chain(line.split(' ')));
        arguments.map(|arguments| format!("{arguments:?}")).map_err(|error| error.to_string())
    }

    #[test]
    fn options_before_and_after_the_command_are_equivalent() {
        for command in [
            "status",
            "statusline",
            "guard",
            "pick",
            "explain",
            "accounts list",
            "pace",
            "budget",
            "events",
            "doctor",
        ] {
            let after = read(&format!("{command} --config x --json --store y")).unwrap();

            assert_eq!(read(&format!("--config x --json --store y {command}")).unwrap(), after, "{command}");
            assert_eq!(read(&format!("--json {command} --store y --config x")).unwrap(), after, "{command}");
        }
        assert_eq!(read("--config x --json init"), read("init --config x --json"));
        for command in ["watch", "run -- true", "accounts disable a"] {
            let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
            let after = match name {
                "watch" => read("watch --config x"),
                "run" => read("run --config x -- true"),
                _ => read("accounts disable --config x a"),
            };

            assert!(after.is_ok(), "{command}");
            assert_eq!(read(format!("--config x {name} {rest}").trim_end()), after, "{command}");
        }
        assert_eq!(read("--json demo"), read("demo --json"));
    }

    #[test]
    fn accounts_list_accepts_its_options_in_every_position() {
        let list = read("accounts list --json --config x");

        assert!(list.is_ok());
        for line in [
            "accounts --json --config x list",
            "--json accounts list --config x",
            "accounts --json list --config x",
        ] {
            assert_eq!(read(line), list, "{line}");
        }
        assert_eq!(read("accounts --json --config x"), read("--config x --json accounts"));
    }

    #[test]
    fn an_option_that_would_be_ignored_is_rejected() {
        for (line, expected) in [
            ("--json watch", "this command does not support --json; remove it"),
            ("--json run -- true", "this command does not support --json; remove it"),
            ("accounts --json disable a", "this command does not support --json; remove it"),
            ("--config x sim", "this command does not read a configuration file; remove --config"),
            ("--store x demo", "this command does not use a store; remove --store"),
            ("--store x accounts order a", "this command does not use a store; remove --store"),
            ("--config x status --config y", "--config was given twice; remove one of them"),
            ("--store x status --store y", "--store was given twice; remove one of them"),
            ("--json statusline --format x", "'--json' cannot be used with '--format'"),
            ("--json statusline --preset plain", "'--json' cannot be used with '--preset'"),
            ("--json pace --plot", "'--json' cannot be used with '--plot'"),
            ("--json init --print", "'--json' cannot be used with '--print'"),
        ] {
            let error = read(line).unwrap_err();

            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
