//! The options of the commands that show what the journals hold.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

/// Which accounts are meant, and how they are shown: what most commands ask for.
#[derive(Debug, Args)]
pub(crate) struct Shown {
    /// Only these accounts: a,b or the option again
    #[arg(long = "account", value_name = "NAME", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota pace`.
#[derive(Debug, Args)]
pub(crate) struct PaceArgs {
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// Only this window, such as five_hour
    #[arg(long, value_name = "WINDOW", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) window: Option<String>,
    /// Draw each window's period
    #[arg(long, conflicts_with = "json")]
    pub(crate) plot: bool,
    /// Write the drawing to this file; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// The options of `quota budget`.
#[derive(Debug, Args)]
pub(crate) struct BudgetArgs {
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// The options of `quota events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// Go on telling what happens, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the last ones are shown
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
}
