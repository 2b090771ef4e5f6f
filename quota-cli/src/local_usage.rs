//! Merges the usage that a provider's own program stored on this machine, if the stored readings are stale.

use quota::http::Provider;
use quota::local::LocalUsage;
use quota::{Account, AccountUsage};

use crate::config::{AccountSettings, LoginSource, Program};
use crate::detected_logins;

/// Reads the account's record. If its readings are stale, merges newer ones of the provider's own program, which cost no call.
pub(crate) async fn sync(account: &Account, settings: &AccountSettings) -> AccountUsage {
    let usage = account.sync().await;
    if settings.disabled || !usage.is_stale() || usage.is_record_damaged() {
        return usage;
    }
    let Some(local) = source(&settings.login) else { return usage };
    let mut has_changed = false;
    for report in local.read(account.id(), usage.snapshot(), usage.now()).await {
        let at = report.observed_at.unwrap_or(usage.now());
        // The manager rejects a reading if the account has another login in the meantime.
        has_changed |= usage.snapshot().is_changed_by(&report, at) && account.observe(&report).is_ok();
    }
    if has_changed { account.peek() } else { usage }
}

/// Where the program of this login stores its usage. A token in a variable, a file or a keyring does not belong to a
/// program.
pub(crate) fn source(login: &LoginSource) -> Option<LocalUsage> {
    let codex = |program: &Program| program.provider.id() == quota::codex::OPENAI;
    match login {
        LoginSource::ClaudeCode => Some(LocalUsage::claude_code(detected_logins::claude_code(None))),
        LoginSource::ClaudeConfigDir(dir) => {
            Some(LocalUsage::claude_code(detected_logins::claude_code(Some(dir))))
        }
        LoginSource::Program(program) if codex(program) => Some(LocalUsage::codex(program.login_file(None))),
        LoginSource::ProgramDir(program, dir) if codex(program) => {
            Some(LocalUsage::codex(program.login_file(Some(dir))))
        }
        _ => None,
    }
}

/// The usage files of this provider's program, in its default folder; `None` if it stores no usage.
pub(crate) fn place(provider: &Provider) -> Option<&'static str> {
    if provider.id() == quota::anthropic::ANTHROPIC {
        Some("cached usage of Claude Code (~/.claude.json)")
    } else if provider.id() == quota::codex::OPENAI {
        Some("sessions of Codex (~/.codex/sessions)")
    } else {
        None
    }
}
