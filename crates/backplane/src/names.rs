//! Subjects and stream names. Everything that goes into one is valid before
//! it gets here, so that no client can choose a subject.

use protocol::Channel;

/// Builds and reads the names of one deployment.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    shards: u16,
}

impl Names {
    /// `prefix` is one valid token.
    pub(crate) fn new(prefix: &str, shards: u16) -> Self {
        Self {
            prefix: prefix.to_owned(),
            shards,
        }
    }

    pub(crate) fn stream(&self, shard: u16) -> String {
        format!("{}_{shard}", self.prefix.to_ascii_uppercase())
    }

    /// What a shard's stream captures.
    pub(crate) fn captured(&self, shard: u16) -> String {
        format!("{}.msg.{shard}.*.*", self.prefix)
    }

    /// Where a channel's messages are published.
    pub(crate) fn message(&self, channel: &Channel) -> String {
        let shard = channel.shard(self.shards);
        let (namespace, id) = (channel.namespace(), channel.id());
        format!("{}.msg.{shard}.{namespace}.{id}", self.prefix)
    }

    /// The channel of a stored message; `None` for a subject that no channel
    /// maps to: a foreign publisher can reach ids outside our alphabet, and
    /// shards in which nobody looks for the channel.
    pub(crate) fn channel(&self, subject: &str) -> Option<Channel> {
        let rest = subject.strip_prefix(self.prefix.as_str())?;
        let rest = rest.strip_prefix(".msg.")?;
        let (shard, rest) = rest.split_once('.')?;
        let (namespace, id) = rest.split_once('.')?;
        let channel = Channel::from_parts(namespace, id).ok()?;
        (shard.parse() == Ok(channel.shard(self.shards))).then_some(channel)
    }

    /// Where services and operators publish without knowing the shards; the
    /// server maps it to [`Self::message`].
    pub(crate) fn public(&self, channel: &Channel) -> String {
        let (namespace, id) = (channel.namespace(), channel.id());
        format!("{}.pub.{namespace}.{id}", self.prefix)
    }

    pub(crate) fn signal(&self, channel: &Channel) -> String {
        let (namespace, id) = (channel.namespace(), channel.id());
        format!("{}.sig.{namespace}.{id}", self.prefix)
    }

    pub(crate) fn signals(&self) -> String {
        format!("{}.sig.*.*", self.prefix)
    }

    pub(crate) fn signal_channel(&self, subject: &str) -> Option<Channel> {
        let rest = subject.strip_prefix(self.prefix.as_str())?;
        let (namespace, id) = rest.strip_prefix(".sig.")?.split_once('.')?;
        Channel::from_parts(namespace, id).ok()
    }

    pub(crate) fn control(&self, name: &str) -> String {
        format!("{}.ctl.{name}", self.prefix)
    }

    /// Where one of the edges answers for all of them.
    pub(crate) fn admin(&self, operation: &str) -> String {
        format!("{}.admin.{operation}", self.prefix)
    }

    /// Where an edge answers for itself.
    pub(crate) fn admin_edge(&self, edge: &str, operation: &str) -> String {
        format!("{}.admin.edge.{edge}.{operation}", self.prefix)
    }

    /// Where every edge answers for itself.
    pub(crate) fn admin_every(&self, operation: &str) -> String {
        format!("{}.admin.every.{operation}", self.prefix)
    }

    pub(crate) fn controls(&self) -> String {
        format!("{}.ctl.>", self.prefix)
    }

    pub(crate) fn control_name<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix(".ctl.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_round_trips() {
        let names = Names::new("rejoin", 4);
        let channel = Channel::parse("room:981").unwrap();
        let subject = names.message(&channel);
        assert_eq!(names.channel(&subject), Some(channel.clone()));
        let signal = names.signal(&channel);
        assert_eq!(names.signal_channel(&signal), Some(channel));
    }

    #[test]
    fn foreign_subjects_have_no_channel() {
        let names = Names::new("rejoin", 1);
        let foreign = [
            "rejoin.msg.0.room",
            "rejoin.msg.0.room.a.b",
            "rejoin.msg.0.room.é",
            "rejoiner.msg.0.room.1",
            "other.msg.0.room.1",
            "rejoin.msg.1.room.1",
        ];
        for subject in foreign {
            assert_eq!(names.channel(subject), None, "{subject}");
        }
    }
}
