//! The options of many commands that may also be given before the command: `quota --json status`.
//! Behind the command, each command has its own.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _};

use super::{AccountsCommand, Arguments, Command};

/// Options in front of the command. They count as if they were behind it.
#[derive(Debug, Default, Args)]
pub(super) struct Before {
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Where a command keeps the options that may also be given before it; `None` where it has no such option.
#[derive(Debug, Default)]
struct Own<'a> {
    config: Option<&'a mut Option<PathBuf>>,
    json: Option<&'a mut bool>,
    /// An option that was given and contradicts --json.
    no_json: Option<&'static str>,
}

impl Arguments {
    /// The same with the options that were given before the command in their places behind it.
    ///
    /// # Errors
    ///
    /// A usage error if the command has no such option, it was given twice, or it contradicts another one.
    pub(super) fn settled(mut self) -> Result<Self, clap::Error> {
        let Before { config, json } = std::mem::take(&mut self.before);
        if let Command::Accounts { command, list } = &mut self.command {
            let list = std::mem::take(list);
            match command {
                None => *command = Some(AccountsCommand::List(list)),
                Some(command) => {
                    give(of_accounts(command), list.config, list.json)?;
                }
            }
        }
        give(self.command.own(), config, json)?;
        Ok(self)
    }
}

impl Arguments {
    /// The configuration that the command line names.
    pub(crate) fn named_config(&mut self) -> Option<PathBuf> {
        self.command.own().config.and_then(|config| config.clone())
    }
}

fn give(own: Own<'_>, config: Option<PathBuf>, json: bool) -> Result<(), clap::Error> {
    let error = |kind, text: &str| Arguments::command().error(kind, text);
    if let Some(config) = config {
        match own.config {
            None => {
                return Err(error(
                    ErrorKind::UnknownArgument,
                    "this command reads no configuration that is named; leave out --config",
                ));
            }
            Some(Some(_)) => {
                return Err(error(ErrorKind::ArgumentConflict, "--config is given twice; keep one of them"));
            }
            Some(place) => *place = Some(config),
        }
    }
    if json {
        match (own.json, own.no_json) {
            (None, _) => {
                return Err(error(
                    ErrorKind::UnknownArgument,
                    "this command writes no JSON; leave out --json",
                ));
            }
            (Some(_), Some(other)) => {
                let why = format!("the argument '--json' cannot be used with '{other}'");
                return Err(error(ErrorKind::ArgumentConflict, &why));
            }
            (Some(place), None) => *place = true,
        }
    }
    Ok(())
}

impl Command {
    fn own(&mut self) -> Own<'_> {
        let both = |config, json| Own { config: Some(config), json: Some(json), no_json: None };
        match self {
            Self::Status(options) => both(&mut options.config, &mut options.json),
            Self::Statusline(options) => {
                let no_json = match (&options.format, options.preset) {
                    (Some(_), _) => Some("--format"),
                    (_, Some(_)) => Some("--preset"),
                    _ => None,
                };
                Own { no_json, ..both(&mut options.config, &mut options.json) }
            }
            Self::Guard(options) => both(&mut options.config, &mut options.json),
            Self::Pick(options) => both(&mut options.request.config, &mut options.json),
            Self::Explain(options) => both(&mut options.request.config, &mut options.json),
            Self::Run(options) => Own { config: Some(&mut options.request.config), ..Own::default() },
            Self::Accounts { command, .. } => command.as_mut().map(of_accounts).unwrap_or_default(),
            Self::Watch(options) => Own { config: Some(&mut options.config), ..Own::default() },
            Self::Pace(options) => {
                let no_json = options.plot.then_some("--plot");
                Own { no_json, ..both(&mut options.shown.config, &mut options.shown.json) }
            }
            Self::Budget(options) => both(&mut options.shown.config, &mut options.shown.json),
            Self::Events(options) => both(&mut options.shown.config, &mut options.shown.json),
            Self::Doctor(options) => both(&mut options.config, &mut options.json),
            Self::Init(options) => {
                let no_json = options.print.then_some("--print");
                Own { no_json, ..both(&mut options.config, &mut options.json) }
            }
            Self::Demo(options) => Own { json: Some(&mut options.json), ..Own::default() },
            Self::RefreshDetached(options) => Own { config: Some(&mut options.config), ..Own::default() },
            Self::Parse(_) | Self::Sim(_) | Self::Completions { .. } => Own::default(),
        }
    }
}

fn of_accounts(command: &mut AccountsCommand) -> Own<'_> {
    use AccountsCommand::{Add, ClearHold, Disable, Enable, Import, List, Order, Remove, Set};
    match command {
        List(options) => {
            Own { config: Some(&mut options.config), json: Some(&mut options.json), no_json: None }
        }
        Remove(options) | Disable(options) | Enable(options) | Order(options) => {
            Own { config: Some(&mut options.config), ..Own::default() }
        }
        ClearHold(options) => Own { config: Some(&mut options.config), ..Own::default() },
        Add(options) => Own { config: Some(&mut options.config), ..Own::default() },
        Set(options) => Own { config: Some(&mut options.config), ..Own::default() },
        Import(options) => Own { config: Some(&mut options.config), ..Own::default() },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn read(line: &str) -> Result<String, String> {
        let arguments = Arguments::try_parse_from(["quota"].into_iter().chain(line.split(' ')));
        arguments
            .and_then(Arguments::settled)
            .map(|arguments| format!("{arguments:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn options_before_the_command_count_as_behind_it() {
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
            "init",
        ] {
            let behind = read(&format!("{command} --config x --json")).unwrap();

            assert_eq!(read(&format!("--config x --json {command}")).unwrap(), behind, "{command}");
            assert_eq!(read(&format!("--json {command} --config x")).unwrap(), behind, "{command}");
        }
        for command in ["watch", "run -- true", "accounts disable a"] {
            let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
            let behind = match name {
                "watch" => read("watch --config x"),
                "run" => read("run --config x -- true"),
                _ => read("accounts disable --config x a"),
            };

            assert_eq!(read(format!("--config x {name} {rest}").trim_end()), behind, "{command}");
        }
        assert_eq!(read("--json demo"), read("demo --json"));
    }

    #[test]
    fn the_list_of_accounts_takes_its_options_everywhere() {
        let list = read("accounts list --json --config x");

        for line in
            ["accounts --json --config x", "--json accounts --config x", "accounts --json list --config x"]
        {
            assert_eq!(read(line), list, "{line}");
        }
    }

    #[test]
    fn an_option_that_would_be_ignored_is_refused() {
        for (line, why) in [
            ("--json watch", "this command writes no JSON; leave out --json"),
            ("--json run -- true", "this command writes no JSON; leave out --json"),
            ("accounts --json disable a", "this command writes no JSON; leave out --json"),
            ("--config x sim", "this command reads no configuration that is named; leave out --config"),
            ("--config x status --config y", "--config is given twice; keep one of them"),
            ("--json statusline --format x", "'--json' cannot be used with '--format'"),
            ("--json statusline --preset plain", "'--json' cannot be used with '--preset'"),
            ("--json pace --plot", "'--json' cannot be used with '--plot'"),
            ("--json init --print", "'--json' cannot be used with '--print'"),
        ] {
            let told = read(line).unwrap_err();

            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
