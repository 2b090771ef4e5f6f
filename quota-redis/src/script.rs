//! The value stored under a key, the two scripts that read and write it, and their replies.
//! `connection` sends them.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use quota_core::store::{Document, Notice, StoreRead, Version};
use redis::{Cmd, Script, Value, cmd};

use crate::error::Error;
use crate::key::Key;

/// Returns the value and the server's time.
const READ: &str = r"
local found = redis.pcall('GET', KEYS[1])
if type(found) == 'table' then return found end
local now = redis.call('TIME')
return {found, now[1] * 1000 + math.floor(now[2] / 1000)}
";

/// Writes ARGV[2] if the version is still ARGV[1] (`-`: if there is no value), for ARGV[3] milliseconds. Then publishes the new
/// value, or only its version if the value is longer than ARGV[6], by ARGV[4] (PUBLISH or SPUBLISH) on the channel ARGV[5].
/// Redis does not roll back a script that fails halfway. So each command that the server may reject runs by pcall, and either
/// precedes the write or may fail without harm.
const SWAP: &str = r"
local found = redis.pcall('GET', KEYS[1])
if type(found) == 'table' then return found end
local version = string.sub(ARGV[2], 1, 16)
local current = '-'
if found then current = string.sub(found, 1, 16) end
if current == version then return 2 end
if current ~= ARGV[1] then
  local now = redis.call('TIME')
  return {found, now[1] * 1000 + math.floor(now[2] / 1000)}
end
local set = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if set.err then return set end
local notice = ARGV[2]
if #notice > tonumber(ARGV[6]) then notice = version end
local published = redis.pcall(ARGV[4], ARGV[5], notice)
if type(published) == 'table' then return 0 end
return 1
";

/// The scripts, with their hashes.
#[derive(Debug)]
pub(crate) struct Scripts {
    read: Script,
    swap: Script,
}

/// One operation on a key.
#[derive(Debug)]
pub(crate) enum Command {
    /// Read the document.
    Read,
    /// Write a value of this version if the current version is the expected one.
    Swap { expected: Option<Version>, version: Version, value: Bytes, ttl_ms: u64 },
    /// Read only the version.
    Version,
}

/// The parsed reply to a [`Command`].
#[derive(Debug)]
pub(crate) enum Reply {
    /// The current document.
    Current(StoreRead),
    /// The current version.
    Version(Option<Version>),
    /// The write is applied. `published` is true if this call published the notice.
    Applied { published: bool },
}

impl Command {
    /// A write with a new version, drawn at random from 64 bits.
    pub(crate) fn swap(expected: Option<Version>, body: &[u8], ttl: Duration) -> Self {
        let version = Version::random();
        let mut value = Vec::with_capacity(VERSION_DIGITS + 1 + body.len());
        value.extend_from_slice(hex(version).as_bytes());
        value.push(b' ');
        value.extend_from_slice(body);
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_TTL_MS);
        Self::Swap { expected, version, value: value.into(), ttl_ms }
    }

    /// The version that a swap writes.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Swap { version, .. } => Some(*version),
            Self::Read | Self::Version => None,
        }
    }
}

/// A hundred years. Redis rejects an expiry that overflows its milliseconds.
const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
const VERSION_DIGITS: usize = 16;

/// A longer value is not published. The server copies a notice for each subscriber, and holds the copies until they are sent.
const MAX_NOTICE: usize = 16 * 1024;

impl Scripts {
    pub(crate) fn new() -> Self {
        Self { read: Script::new(READ), swap: Script::new(SWAP) }
    }

    /// Encodes a command: with the hash of its script, or with the whole text, which makes the server cache it.
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
                request.arg(&value[..]).arg(*ttl_ms).arg(publish).arg(&*key.channel).arg(MAX_NOTICE);
                request
            }
        }
    }

    /// # Errors
    ///
    /// [`Error::ForeignValue`] if quota-redis did not write the value, [`Error::Lost`] if the reply does not fit the command.
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

fn reading(parts: Vec<Value>) -> Result<StoreRead, Error> {
    let Ok([found, Value::Int(now)]) = <[Value; 2]>::try_from(parts) else { return Err(Error::Lost) };
    let now = Timestamp::from_millisecond(now).map_err(|_| Error::Lost)?;
    let document = match found {
        Value::Nil => None,
        Value::BulkString(value) => Some(document(value.into()).ok_or(Error::ForeignValue)?),
        _ => return Err(Error::Lost),
    };
    Ok(StoreRead::new(document, now))
}

/// Parses the 16 digits of the version, a space and the body.
fn document(value: Bytes) -> Option<Document> {
    let version = version(value.get(..VERSION_DIGITS)?)?;
    (value.get(VERSION_DIGITS) == Some(&b' '))
        .then(|| Document::new(version, value.slice(VERSION_DIGITS + 1..)))
}

/// Parses a message on the channel of a document: its value, or only the version if the value is long.
pub(crate) fn notice(message: Bytes) -> Option<Notice> {
    match message.len() {
        VERSION_DIGITS => version(&message).map(Notice::of_version),
        _ => document(message).map(Notice::of_document),
    }
}

/// Parses a version as values and notices contain it.
fn version(digits: &[u8]) -> Option<Version> {
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
    fn a_value_of_another_format_is_foreign() {
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
    fn a_message_is_a_value_or_a_version() {
        let version = Version::new(0x0123_4567_89ab_cdef);
        let parsed = |message: &str| notice(Bytes::copy_from_slice(message.as_bytes()));

        assert_eq!(parsed("0123456789abcdef"), Some(Notice::of_version(version)));
        let document = Document::new(version, Bytes::from_static(b"body"));
        assert_eq!(parsed("0123456789abcdef body"), Some(Notice::of_document(document)));
        for unreadable in ["", "?", "0123456789abcde", "0123456789abcdef-x", "0000000000000000"] {
            assert_eq!(parsed(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn every_ttl_is_clamped_to_what_redis_accepts() {
        for (ttl, expected) in [(Duration::ZERO, 1), (Duration::MAX, MAX_TTL_MS)] {
            let Command::Swap { ttl_ms, .. } = Command::swap(None, b"", ttl) else { panic!("it is a swap") };
            assert_eq!(ttl_ms, expected);
        }
    }

    proptest! {
        #[test]
        fn no_reply_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), now: i64) {
            let swap = Command::swap(None, b"", Duration::ZERO);
            for command in [&Command::Read, &Command::Version, &swap] {
                let _ = notice(bytes.clone().into());
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
