//! What is kept under a key, and the two scripts that read and write it.
//! Sending them is in `connection`, and what an answer means for those who wait is in `subscriptions`.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::{Document, Reading, Version};
use redis::{Cmd, Script, Value, cmd};

use crate::error::Error;
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
pub(crate) enum Command {
    /// Read the document.
    Read,
    /// Write a value of this version if the expected one stands.
    Swap { expected: Option<Version>, version: Version, value: Bytes, ttl_ms: u64 },
    /// Read the version alone.
    Version,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Reply {
    /// What stands.
    Current(Reading),
    /// The version that stands.
    Version(Option<Version>),
    /// It was written; `told` if a notice was sent by this very call.
    Applied { published: bool },
}

impl Command {
    /// A write under a version that nobody has used: it is drawn from 64 bits.
    pub(crate) fn swap(expected: Option<Version>, body: &[u8], keep: Duration) -> Self {
        let version = Version::random();
        let mut value = Vec::with_capacity(VERSION_DIGITS + 1 + body.len());
        value.extend_from_slice(hex(version).as_bytes());
        value.push(b' ');
        value.extend_from_slice(body);
        let ttl_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_TTL_MS);
        Self::Swap { expected, version, value: value.into(), ttl_ms }
    }

    /// The version it would write.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Swap { version, .. } => Some(*version),
            Self::Read | Self::Version => None,
        }
    }
}

/// A hundred years. Redis refuses what ends beyond its last millisecond.
const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
const VERSION_DIGITS: usize = 16;

impl Scripts {
    pub(crate) fn new() -> Self {
        Self { read: Script::new(READ), swap: Script::new(SWAP) }
    }

    /// The command for an order: by the script's hash, or with its whole text, which makes the server keep it.
    pub(crate) fn encode(&self, command: &Command, key: &Key, publish: &str, with_text: bool) -> Cmd {
        match command {
            Command::Version => {
                let mut request = cmd("GETRANGE");
                request.arg(&*key.text).arg(0).arg(VERSION_DIGITS - 1);
                request
            }
            Command::Read => call(&self.read, READ, key, with_text),
            Command::Swap { expected, value, ttl_ms, .. } => {
                let mut request = call(&self.swap, SWAP, key, with_text);
                match expected {
                    Some(expected) => request.arg(hex(*expected)),
                    None => request.arg("-"),
                };
                request.arg(&value[..]).arg(*ttl_ms).arg(publish).arg(&*key.channel);
                request
            }
        }
    }

    /// # Errors
    ///
    /// [`Error::ForeignValue`] if the value is not ours, [`Error::Lost`] if the answer is none to this order.
    pub(crate) fn decode(command: &Command, response: Value) -> Result<Reply, Error> {
        match (command, response) {
            (Command::Version, Value::BulkString(digits)) if digits.is_empty() => Ok(Reply::Version(None)),
            (Command::Version, Value::BulkString(digits)) => match version(&digits) {
                Some(version) => Ok(Reply::Version(Some(version))),
                None => Err(Error::ForeignValue),
            },
            (Command::Swap { .. }, Value::Int(outcome @ 0..=2)) => {
                Ok(Reply::Applied { published: outcome == 1 })
            }
            (Command::Read | Command::Swap { .. }, Value::Array(parts)) => reading(parts).map(Reply::Current),
            _ => Err(Error::Lost),
        }
    }
}

fn call(script: &Script, text: &str, key: &Key, with_text: bool) -> Cmd {
    let mut request = if with_text { cmd("EVAL") } else { cmd("EVALSHA") };
    request.arg(if with_text { text } else { script.get_hash() }).arg(1).arg(&*key.text);
    request
}

fn reading(parts: Vec<Value>) -> Result<Reading, Error> {
    let Ok([found, Value::Int(now)]) = <[Value; 2]>::try_from(parts) else { return Err(Error::Lost) };
    let now = Timestamp::from_millisecond(now).map_err(|_| Error::Lost)?;
    let document = match found {
        Value::Nil => None,
        Value::BulkString(value) => Some(document(value.into()).ok_or(Error::ForeignValue)?),
        _ => return Err(Error::Lost),
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

    fn read(found: Value) -> Result<Reply, Error> {
        Scripts::decode(&Command::Read, Value::Array(vec![found, Value::Int(1000)]))
    }

    #[test]
    fn a_value_is_sixteen_digits_a_space_and_the_body() {
        let Command::Swap { value, version, .. } = Command::swap(None, b"body", Duration::from_secs(1))
        else {
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
            assert!(matches!(found, Err(Error::ForeignValue)), "{value}: {found:?}");
        }
    }

    #[test]
    fn any_time_to_keep_is_one_that_redis_takes() {
        for (keep, kept) in [(Duration::ZERO, 1), (Duration::MAX, MAX_TTL_MS)] {
            let Command::Swap { ttl_ms, .. } = Command::swap(None, b"", keep) else { panic!("it is a swap") };
            assert_eq!(ttl_ms, kept);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_server_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), now: i64) {
            let swap = Command::swap(None, b"", Duration::ZERO);
            for command in [&Command::Read, &Command::Version, &swap] {
                let _ = Scripts::decode(command, Value::BulkString(bytes.clone()));
                let _ = Scripts::decode(command, Value::Int(now));
                let _ = Scripts::decode(command, Value::Array(vec![Value::BulkString(bytes.clone()), Value::Int(now)]));
                if let Ok(response) = redis::parse_redis_value(&bytes) {
                    let _ = Scripts::decode(command, response);
                }
            }
        }
    }
}
