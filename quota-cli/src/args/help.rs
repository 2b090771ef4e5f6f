//! The long help texts. They are laid out for 80 columns.
//! The options themselves are told where they are defined, in `args`.

mod accounts;
mod journal;
mod look;
mod play;

pub(super) use self::accounts::{
    ACCOUNTS, ACCOUNTS_MORE, EXPLAIN, EXPLAIN_MORE, PICK, PICK_MORE, RUN, RUN_MORE,
};
pub(super) use self::journal::{BUDGET, BUDGET_MORE, EVENTS, EVENTS_MORE, PACE, PACE_MORE};
pub(super) use self::look::{
    DOCTOR, GUARD, GUARD_MORE, INIT, STATUS, STATUS_MORE, STATUSLINE, STATUSLINE_MORE, WATCH,
};
pub(super) use self::play::{DEMO, DEMO_MORE, PARSE, PARSE_MORE, SIM, SIM_MORE};

/// What follows the list of commands.
pub(super) const PROGRAM_MORE: &str = "\
Examples:
  quota status    the windows of every account
  quota statusline   one line, at once, for a prompt or a bar
  quota guard     whether enough is left, for scripts
  quota pick      which of several accounts to use now
  quota accounts  which accounts there are
  quota pace      how fast they are used, and when they are used up
  quota events    what happened
  quota doctor    whether everything is as it should be
  quota demo      what this is for, in ten seconds, without any account
  quota sim       a simulated provider to try things on

--store, --config and --json may stand before or behind the command.

Exit codes: 0 all went well, 1 some account has no number or no room, 3 no account was found or all are disabled, 64 the command line \
was not understood, 65 malformed input, 66 unreadable input, 69 it cannot be told or is not to be had, 78 broken configuration, 129, 130 and 143 ended by SIGHUP, Ctrl-C and SIGTERM.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_out_in_lines_fits_into_eighty_columns() {
        for text in [
            PROGRAM_MORE,
            PICK_MORE,
            EXPLAIN_MORE,
            RUN_MORE,
            ACCOUNTS_MORE,
            STATUS_MORE,
            STATUSLINE_MORE,
            GUARD_MORE,
            PACE_MORE,
            BUDGET_MORE,
            EVENTS_MORE,
            DEMO_MORE,
            PARSE_MORE,
            SIM_MORE,
        ] {
            let laid_out = text.lines().filter(|line| line.starts_with("  "));
            let long: Vec<_> = laid_out.filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{long:#?}");
        }
    }
}
