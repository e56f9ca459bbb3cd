//! A row of the archive as a message.

use std::collections::HashMap;

use bytes::Bytes;
use delivery::Message;
use protocol::{Channel, Cursor, Epoch, UserId};
use uuid::Uuid;

use super::epochs::seq_from_sql;
use super::ids::StoredId;

/// The columns of a message, in the order in which every query names them.
#[derive(Debug)]
pub(super) struct MessageRow {
    pub(super) seq: i64,
    pub(super) time_ms: i64,
    pub(super) id_key: Option<Uuid>,
    pub(super) id: Option<String>,
    pub(super) kind: String,
    pub(super) sender: Option<String>,
    pub(super) traceparent: Option<String>,
    pub(super) data: Vec<u8>,
}

impl MessageRow {
    pub(super) fn into_message(
        self,
        channel: &Channel,
        epoch: Epoch,
        names: &mut Names,
    ) -> Message {
        Message {
            channel: channel.clone(),
            position: Cursor::new(epoch, seq_from_sql(self.seq)),
            prev: 0,
            id: self
                .id_key
                .and_then(|key| StoredId::id(key, self.id.as_deref())),
            kind: self.kind.into(),
            sender: self.sender.and_then(|sender| names.user(sender)),
            time_ms: self.time_ms,
            data: Bytes::from(self.data),
            traceparent: self.traceparent.map(String::into_boxed_str),
        }
    }
}

/// The senders of one page, each allocated once.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<String, UserId>,
}

impl Names {
    fn user(&mut self, text: String) -> Option<UserId> {
        if let Some(user) = self.users.get(&text) {
            return Some(user.clone());
        }
        let user = UserId::parse(&text).ok()?;
        self.users.insert(text, user.clone());
        Some(user)
    }
}
