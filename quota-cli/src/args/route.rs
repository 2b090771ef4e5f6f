//! The options of the commands that choose an account for a request.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Unknown;

/// What is known of the request.
#[derive(Debug, Default, Args)]
pub(crate) struct RequestArgs {
    /// The model it is for, as the provider is told it, such as claude-opus-4-5; windows of other models do not count
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model: Option<String>,
    /// The session it belongs to: where `mode` is sticky_balanced, it stays with its account
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) session: Option<String>,
    /// What to do with an account of which it cannot be told whether it has room [default: `when_unknown` of [routing], else
    /// deny]
    #[arg(long, value_name = "WHAT")]
    pub(crate) unknown: Option<Unknown>,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota pick`.
#[derive(Debug, Args)]
pub(crate) struct PickArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `quota explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The options of `quota run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
