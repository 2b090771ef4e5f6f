//! Names in Redis: the key of a document, its channel, and their cluster slot.
//! `script` owns the stored value.

use std::sync::Arc;

use quota_core::store::StoreKey;

/// The format of the stored value. Each format has its own keys, so that old and new processes do not misread each other's
/// values.
const FORMAT: u8 = 1;

/// The names of one document.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// `<prefix>:1:{<name>}`. The braces keep key and channel in one slot.
    pub(crate) text: Arc<str>,
    /// Contains the key and the database, because all databases of a server share its channels.
    pub(crate) channel: Arc<str>,
}

impl Key {
    pub(crate) fn new(prefix: &str, database: u32, name: &StoreKey) -> Self {
        let text = format!("{prefix}:{FORMAT}:{{{name}}}");
        let channel = format!("{text}@{database}").into();
        Self { text: text.into(), channel }
    }

    /// The cluster slot of the key.
    pub(crate) fn slot(&self) -> usize {
        let tag = self
            .text
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or(&*self.text, |tag| tag.0);
        usize::from(crc16(tag.as_bytes()) % SLOTS)
    }
}

/// The number of slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// CRC-16/XMODEM, as the Redis cluster specification requires.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use quota_core::AccountId;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("quota", 3, &StoreKey::account(&name.parse::<AccountId>().unwrap()))
    }

    #[test]
    fn a_key_and_its_channel_are_named_after_the_account() {
        let key = key("anthropic/main");

        assert_eq!(&*key.text, "quota:1:{anthropic/main}");
        assert_eq!(&*key.channel, "quota:1:{anthropic/main}@3");
    }

    #[test]
    fn crc16_matches_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }
}
