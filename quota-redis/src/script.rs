//! What is kept under a key, and the two scripts that read and write it.
//! Sending them is in `wire`, and what an answer means for those who wait is in `board`.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::{Document, Reading, Version};
use redis::{Cmd, Script, Value, cmd};

use crate::failure::Failure;
use crate::key::Key;

/// Reads the value, and the time.
const READ: &str = r"
local found = redis.pcall('GET', KEYS[1])
if type(found) == 'table' then return found end
local now = redis.call('TIME')
return {found, now[1] * 1000 + math.floor(now[2] / 1000)}
";

/// Writes ARGV[2] if the version is still ARGV[1] ('-': if there is nothing), for ARGV[3] milliseconds, and tells the
/// new version by ARGV[4] (PUBLISH or SPUBLISH) on the channel ARGV[5]. Whatever may be refused is asked by pcall, and
/// comes before the write or does no harm after it: a script that fails halfway is not undone.
const SWAP: &str = r"
local found = redis.pcall('GET', KEYS[1])
if type(found) == 'table' then return found end
local version = string.sub(ARGV[2], 1, 16)
local stands = '-'
if found then stands = string.sub(found, 1, 16) end
if stands == version then return 2 end
if stands ~= ARGV[1] then
  local now = redis.call('TIME')
  return {found, now[1] * 1000 + math.floor(now[2] / 1000)}
end
local set = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if set.err then return set end
local told = redis.pcall(ARGV[4], ARGV[5], version)
if type(told) == 'table' then return 0 end
return 1
";

/// The scripts, with their hashes.
#[derive(Debug)]
pub(crate) struct Scripts {
    read: Script,
    swap: Script,
}

/// One thing to be done with a key.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read the document.
    Read,
    /// Write a value of this version if the expected one stands.
    Swap { expected: Option<Version>, version: Version, value: Bytes, keep_ms: u64 },
    /// Read the version alone.
    Look,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What stands.
    Stands(Reading),
    /// The version that stands.
    Version(Option<Version>),
    /// It was written; `told` if a notice was sent by this very call.
    Applied { told: bool },
}

impl Order {
    /// A write under a version that nobody has used: it is drawn from 64 bits.
    pub(crate) fn swap(expected: Option<Version>, body: &[u8], keep: Duration) -> Self {
        let version = Version::random();
        let mut value = Vec::with_capacity(VERSION_DIGITS + 1 + body.len());
        value.extend_from_slice(hex(version).as_bytes());
        value.push(b' ');
        value.extend_from_slice(body);
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_KEEP_MS);
        Self::Swap { expected, version, value: value.into(), keep_ms }
    }

    /// The version it would write.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Swap { version, .. } => Some(*version),
            Self::Read | Self::Look => None,
        }
    }
}

/// A hundred years. Redis refuses what ends beyond its last millisecond.
const LONGEST_KEEP_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
const VERSION_DIGITS: usize = 16;

impl Scripts {
    pub(crate) fn new() -> Self {
        Self { read: Script::new(READ), swap: Script::new(SWAP) }
    }

    /// The command for an order: by the script's hash, or with its whole text, which makes the server keep it.
    pub(crate) fn command(&self, order: &Order, key: &Key, publish: &str, with_text: bool) -> Cmd {
        match order {
            Order::Look => {
                let mut command = cmd("GETRANGE");
                command.arg(&*key.text).arg(0).arg(VERSION_DIGITS - 1);
                command
            }
            Order::Read => call(&self.read, READ, key, with_text),
            Order::Swap { expected, value, keep_ms, .. } => {
                let mut command = call(&self.swap, SWAP, key, with_text);
                match expected {
                    Some(expected) => command.arg(hex(*expected)),
                    None => command.arg("-"),
                };
                command.arg(&value[..]).arg(*keep_ms).arg(publish).arg(&*key.channel);
                command
            }
        }
    }

    /// # Errors
    ///
    /// [`Failure::Foreign`] if the value is not ours, [`Failure::Lost`] if the answer is none to this order.
    pub(crate) fn outcome(order: &Order, answer: Value) -> Result<Outcome, Failure> {
        match (order, answer) {
            (Order::Look, Value::BulkString(digits)) if digits.is_empty() => Ok(Outcome::Version(None)),
            (Order::Look, Value::BulkString(digits)) => match version(&digits) {
                Some(version) => Ok(Outcome::Version(Some(version))),
                None => Err(Failure::Foreign),
            },
            (Order::Swap { .. }, Value::Int(told @ 0..=2)) => Ok(Outcome::Applied { told: told == 1 }),
            (Order::Read | Order::Swap { .. }, Value::Array(parts)) => reading(parts).map(Outcome::Stands),
            _ => Err(Failure::Lost),
        }
    }
}

fn call(script: &Script, text: &str, key: &Key, with_text: bool) -> Cmd {
    let mut command = if with_text { cmd("EVAL") } else { cmd("EVALSHA") };
    command.arg(if with_text { text } else { script.get_hash() }).arg(1).arg(&*key.text);
    command
}

fn reading(parts: Vec<Value>) -> Result<Reading, Failure> {
    let Ok([found, Value::Int(now)]) = <[Value; 2]>::try_from(parts) else { return Err(Failure::Lost) };
    let now = Timestamp::from_millisecond(now).map_err(|_| Failure::Lost)?;
    let document = match found {
        Value::Nil => None,
        Value::BulkString(value) => Some(document(value.into()).ok_or(Failure::Foreign)?),
        _ => return Err(Failure::Lost),
    };
    Ok(Reading::new(document, now))
}

/// Sixteen digits of the version, a space, the body.
fn document(value: Bytes) -> Option<Document> {
    let version = version(value.get(..VERSION_DIGITS)?)?;
    (value.get(VERSION_DIGITS) == Some(&b' '))
        .then(|| Document::new(version, value.slice(VERSION_DIGITS + 1..)))
}

/// Reads a version as it is written in values and notices.
pub(crate) fn version(digits: &[u8]) -> Option<Version> {
    let is_ours = digits.len() == VERSION_DIGITS
        && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    (is_ours && number != 0).then(|| Version::new(number))
}

fn hex(version: Version) -> String {
    format!("{:016x}", version.number())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(found: Value) -> Result<Outcome, Failure> {
        Scripts::outcome(&Order::Read, Value::Array(vec![found, Value::Int(1000)]))
    }

    #[test]
    fn a_value_is_sixteen_digits_a_space_and_the_body() {
        let Order::Swap { value, version, .. } = Order::swap(None, b"body", Duration::from_secs(1)) else {
            panic!("it is a swap");
        };

        assert_eq!(value, format!("{:016x} body", version.number()));
        assert_eq!(document(value), Some(Document::new(version, Bytes::from_static(b"body"))));
    }

    #[test]
    fn what_is_not_ours_is_foreign() {
        for value in [
            "",
            "x",
            "0123456789abcdef",
            "0123456789abcdef-x",
            "0123456789ABCDEF x",
            "0000000000000000 x",
            "+123456789abcdef x",
        ] {
            let found = read(Value::BulkString(value.into()));
            assert!(matches!(found, Err(Failure::Foreign)), "{value}: {found:?}");
        }
    }

    #[test]
    fn any_time_to_keep_is_one_that_redis_takes() {
        for (keep, kept) in [(Duration::ZERO, 1), (Duration::MAX, LONGEST_KEEP_MS)] {
            let Order::Swap { keep_ms, .. } = Order::swap(None, b"", keep) else { panic!("it is a swap") };
            assert_eq!(keep_ms, kept);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_server_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), now: i64) {
            let swap = Order::swap(None, b"", Duration::ZERO);
            for order in [&Order::Read, &Order::Look, &swap] {
                let _ = Scripts::outcome(order, Value::BulkString(bytes.clone()));
                let _ = Scripts::outcome(order, Value::Int(now));
                let _ = Scripts::outcome(order, Value::Array(vec![Value::BulkString(bytes.clone()), Value::Int(now)]));
                if let Ok(answer) = redis::parse_redis_value(&bytes) {
                    let _ = Scripts::outcome(order, answer);
                }
            }
        }
    }
}
