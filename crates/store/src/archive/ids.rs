//! The index key of a message id.

use protocol::MessageId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A message id as the archive stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredId {
    /// The id itself if it is a UUID in its usual form, else a hash of it.
    pub(super) key: Uuid,
    /// The id where the key does not tell it.
    pub(super) text: Option<Box<str>>,
}

impl StoredId {
    pub(super) fn of(id: &MessageId) -> Self {
        let text = id.as_str();
        if let Ok(uuid) = Uuid::try_parse(text)
            && uuid.hyphenated().to_string() == text
        {
            return Self {
                key: uuid,
                text: None,
            };
        }
        let hash = Sha256::digest(text.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self {
            key: uuid::Builder::from_custom_bytes(key).into_uuid(),
            text: Some(text.into()),
        }
    }

    pub(super) fn id(key: Uuid, text: Option<&str>) -> Option<MessageId> {
        match text {
            Some(text) => MessageId::parse(text).ok(),
            None => {
                MessageId::parse(key.hyphenated().encode_lower(&mut Uuid::encode_buffer())).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uuid_is_its_own_key_and_only_in_its_usual_form() {
        let usual = MessageId::parse("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").unwrap();
        assert_eq!(StoredId::of(&usual).text, None);
        for other in ["017F22E2-79B0-7CC3-98C4-DC0C0C07398F", "order-7"] {
            let id = MessageId::parse(other).unwrap();
            assert_eq!(StoredId::of(&id).text.as_deref(), Some(other));
        }
    }

    proptest! {
        #[test]
        fn ids_come_back_as_they_were(text in "[A-Za-z0-9_.:-]{1,128}") {
            let id = MessageId::parse(&text).unwrap();
            let stored = StoredId::of(&id);
            prop_assert_eq!(StoredId::id(stored.key, stored.text.as_deref()), Some(id));
        }
    }
}
