//! Rows of the archive in Postgres' binary COPY format (documentation of
//! PostgreSQL, "COPY", section "Binary Format").

use delivery::archive::SourceMessage;
use protocol::UserId;

use super::epochs::seq_to_sql;
use super::ids::StoredId;

/// What a row takes beside its payload, roughly: for the first allocation.
const ROW_BYTES: usize = 300;
const COLUMNS: i16 = 12;

/// Rows on their way into the archive.
pub(super) struct CopyBuffer {
    bytes: Vec<u8>,
}

impl CopyBuffer {
    /// Names the columns in the order of [`CopyBuffer::push`].
    pub(super) const STATEMENT: &str = "COPY rejoin.messages
        (epoch_no, bucket, seq, time_ms, id_key, channel, id, scope, kind, sender, traceparent, data)
        FROM STDIN (FORMAT binary)";

    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut bytes = Vec::with_capacity(rows * ROW_BYTES);
        bytes.extend_from_slice(b"PGCOPY\n\xff\r\n\0");
        // No flags, no header extension.
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes }
    }

    pub(super) fn push(&mut self, epoch_no: i32, bucket: i32, source: &SourceMessage) {
        let message = &source.message;
        let id = message.id.as_ref().map(StoredId::of);
        self.bytes.extend_from_slice(&COLUMNS.to_be_bytes());
        self.field(&epoch_no.to_be_bytes());
        self.field(&bucket.to_be_bytes());
        self.field(&seq_to_sql(message.seq()).to_be_bytes());
        self.field(&message.time_ms.to_be_bytes());
        self.optional(id.as_ref().map(|id| id.key.as_bytes().as_slice()));
        self.text(Some(message.channel.as_str()));
        self.text(id.as_ref().and_then(|id| id.text.as_deref()));
        self.text(source.scope.as_deref());
        self.text(Some(&message.kind));
        self.text(message.sender.as_ref().map(UserId::as_str));
        self.text(message.traceparent.as_deref());
        self.field(&message.data);
    }

    /// The end of the format, and all of it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1i16).to_be_bytes());
        self.bytes
    }

    fn optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.field(value),
            None => self.bytes.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }

    /// Postgres' text holds no NUL, but a publisher past the edges may have
    /// sent one in a header: it must not stop the archive.
    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) if text.contains('\0') => self.field(text.replace('\0', "").as_bytes()),
            _ => self.optional(text.map(str::as_bytes)),
        }
    }

    fn field(&mut self, value: &[u8]) {
        // A message is bounded far below 2 GiB.
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
    }
}
