//! The commands, one file each. No command imports another one. Shared code is in the modules next to this one.

pub(crate) mod accounts;
pub(crate) mod background;
pub(crate) mod budget;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod guard;
pub(crate) mod init;
pub(crate) mod mcp;
pub(crate) mod pace;
pub(crate) mod parse;
pub(crate) mod pick;
pub(crate) mod providers;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod statusline;
pub(crate) mod watch;
pub(crate) mod wrap;
