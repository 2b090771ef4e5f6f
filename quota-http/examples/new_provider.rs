//! A made-up provider: everything that a new provider states, in one file. It requests nothing: it parses a saved body.
//!
//! ```text
//! cargo run -p quota-http --example new_provider
//! ```

use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::Credits;
use quota_core::policy::Budget;
use quota_core::provider::ProgramLogin;
use quota_core::{Credential, Percent, WindowReading};
use quota_http::json::{Object, Value};
use quota_http::lenient::{Field, decimal, flag, number, text, timestamp};
use quota_http::{
    CommandEnvironment, OwnLogin, ParseError, Parsed, Provider, ReportBuilder, UsageRequest, json_object,
    window_of_length,
};

/// In quota-http, `lib.rs` names this module and `registry.rs` lists this value; no other line is needed.
static PROVIDER: Provider = Provider::new("acme", "Acme AI", request, parse)
    .aliases(&["acme-code"])
    .base_url("https://api.acme.example")
    .login(OwnLogin::File(LOGIN))
    .token_variables(&["ACME_API_KEY"])
    .command_environment(
        CommandEnvironment::new()
            .token("ACME_TOKEN", &[])
            .dir("ACME_HOME", ".acme")
            .remove(&["ACME_PROJECT"]),
    )
    .default_policy(|policy| policy.max_age(Duration::from_secs(600)).budget(Budget::new(12, 3)));

/// `acme login` writes `~/.acme/login.json`.
const LOGIN: ProgramLogin = ProgramLogin::new("Acme", "acme login", ".acme", &["login.json"])
    .dir_variable("ACME_HOME")
    .token(&["/session/token"])
    .account_id(&["/session/account"])
    .expires_at(&["/session/expires"]);

fn request(credential: &Credential) -> UsageRequest {
    UsageRequest::get("v2/limits").bearer(&credential.secret)
}

fn parse(body: &[u8], _now: Timestamp) -> Result<Parsed, ParseError> {
    let root = json_object(body)?;
    if let Some(code) = number(root.get("error_code")).ok() {
        // Acme reports errors with status 200.
        return Err(if code == 16.0 { ParseError::Unauthorized } else { ParseError::NoUsage });
    }
    let mut report = ReportBuilder::default();
    match root.get("limits") {
        None | Some(Value::Null) => {}
        Some(Value::Array(rows)) => {
            for (at, row) in rows.iter().enumerate() {
                add_window(row, format!("limits[{at}]"), &mut report);
            }
        }
        // Otherwise all cached windows would be removed.
        Some(_) => report.mark_unnamed("limits", "not a list"),
    }
    report.skip_unknown(&root, &["limits", "wallet", "tier"], "");
    let credits = wallet(&root, &mut report);
    let mut parsed = report.build(credits)?;
    parsed.usage.plan = text(root.get("tier")).ok().map(str::to_owned);
    Ok(parsed)
}

/// One limit: `{ "seconds": 18000, "used": "12.5", "resets": 1782907200 }`, with `used` in percent.
fn add_window(row: &Value<'_>, field: String, report: &mut ReportBuilder) {
    let length =
        number(row.get("seconds")).ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let Some((length, id)) = length.and_then(|length| Some((length, window_of_length(length)?))) else {
        return report.mark_unnamed(field, "its length is unclear");
    };
    match number(row.get("used")).and_then(Percent::from_percent) {
        Field::Present(used) => {
            let reading = WindowReading::new(id, used).length(length).resets_at(timestamp(row.get("resets")));
            report.add(reading, field);
        }
        Field::Absent => report.mark_unreadable(id, field, "it has no usage"),
        Field::Unreadable => report.mark_unreadable(id, field, "its usage is not a percentage up to 1,000 %"),
    }
}

/// The prepaid balance: `{ "balance": "14.50", "unlimited": false }`.
fn wallet(root: &Object<'_>, report: &mut ReportBuilder) -> Field<Credits> {
    let Some(wallet) = root.get("wallet").filter(|wallet| !wallet.is_null()) else { return Field::Absent };
    let (balance, unlimited) = (decimal(wallet.get("balance")), flag(wallet.get("unlimited")));
    if balance == Field::Unreadable || unlimited == Field::Unreadable {
        report.skip("wallet", "its amounts are invalid");
        return Field::Unreadable;
    }
    let mut credits = Credits::default();
    credits.balance = balance.ok().map(|amount| amount.extended(2).money("USD"));
    credits.unlimited = unlimited.ok();
    Field::Present(credits)
}

// A copy in quota-http ends here.

const SAVED: &str = r#"{
    "tier": "team",
    "limits": [
        { "seconds": 18000, "used": "12.5", "resets": 1782907200 },
        { "seconds": 604800, "used": "soon" }
    ],
    "wallet": { "balance": "14.5", "unlimited": false },
    "mascot": "owl"
}"#;

#[expect(clippy::print_stdout, reason = "it shows what the parser returns")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parsed = PROVIDER.parse(SAVED.as_bytes(), quota_core::Clock::system().now())?;
    for window in &parsed.usage.windows {
        println!("{}: {}", window.id, window.used);
    }
    if let Some(balance) = parsed.usage.credits.and_then(|credits| credits.balance) {
        println!("balance: {balance}");
    }
    for skipped in &parsed.skipped {
        println!("ignored {}: {}", skipped.field, skipped.reason);
    }
    // A manager calls it: QuotaManager::builder(store).provider(fetcher, LoginFile::new(PROVIDER.id(), LOGIN))
    let fetcher = quota_http::Fetcher::new(&PROVIDER);
    println!("{fetcher:?}");
    Ok(())
}
