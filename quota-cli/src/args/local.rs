//! The options of the commands that stand in prompts and scripts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use quota::RequestId;

use super::{one_account, percent, span};

/// The options of `quota statusline`.
#[derive(Debug, Args)]
pub(crate) struct StatuslineArgs {
    /// The line, with placeholders such as {five_hour.used}
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["preset", "json"])]
    pub(crate) format: Option<String>,
    /// A line that is there already [default: plain]
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub(crate) preset: Option<Preset>,
    /// The account [default: that of the session on standard input, else the first]
    #[arg(long, value_name = "NAME", value_parser = one_account)]
    pub(crate) account: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The options of `quota guard`.
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// The account [default: the first]
    #[arg(long, value_name = "NAME", value_parser = one_account)]
    pub(crate) account: Option<String>,
    /// How much must be left of each window that counts, in percent
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = percent)]
    pub(crate) min_remaining: f64,
    /// Only this window counts, such as five_hour
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) window: Option<String>,
    /// The windows of this model count as well, such as opus or claude-opus-4-5
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "window")]
    pub(crate) model: Option<String>,
    /// What to do if it cannot be told
    #[arg(long, value_name = "WHAT", default_value = "deny")]
    pub(crate) unknown: Unknown,
    /// Wait until enough is left
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most, such as 30m [default: for ever]
    #[arg(long, value_name = "SPAN", value_parser = span, requires = "wait")]
    pub(crate) timeout: Option<Duration>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Read this configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What to do if it cannot be told whether enough is left.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Unknown {
    /// Go on
    Allow,
    /// Do not
    Deny,
}

/// A line that is there already.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Preset {
    /// Text without colours
    Plain,
    /// Text with colours, and arrows of a powerline font
    Powerline,
    /// JSON for a custom module of Waybar
    Waybar,
    /// Text with tmux's colours
    Tmux,
}

/// The options of the process that a statusline starts.
#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// The holder of the claim to start it
    #[arg(long)]
    pub(crate) claim: RequestId,
    #[arg(long)]
    pub(crate) account: String,
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}
