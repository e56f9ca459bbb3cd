//! What an authenticated caller may do.

use delivery::publish::Publisher;
use protocol::{Channel, UserId};

use super::Pattern;
use super::api_key::EVERYTHING;

/// What a user's token grants, until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// Whose connection or request it is.
    pub user: UserId,
    /// When the grants end, in seconds since the Unix epoch: the token's
    /// `exp` plus the leeway, so that what was let in is not sent away in
    /// the same second.
    pub expires_s: u64,
    /// The token's `iat`, in seconds since the Unix epoch: a revocation of
    /// everything a user was issued before some time compares with this.
    pub issued_s: Option<u64>,
    /// The token's `jti`, by which it alone can be revoked.
    pub token_id: Option<Box<str>>,
    pub(super) inbox: Channel,
    pub(super) subscribe: Box<[Pattern]>,
    pub(super) publish: Box<[Pattern]>,
}

impl Grants {
    /// Whether the user may subscribe to, replay and read this channel. The
    /// own inbox is always among them.
    pub fn may_subscribe(&self, channel: &Channel) -> bool {
        *channel == self.inbox || any_matches(&self.subscribe, channel)
    }

    /// Whether the user may publish and signal to this channel. The own
    /// inbox is not among them unless the token says so.
    pub fn may_publish(&self, channel: &Channel) -> bool {
        any_matches(&self.publish, channel)
    }

    /// The user's inbox, `user:<id>`.
    pub fn inbox(&self) -> &Channel {
        &self.inbox
    }

    /// Whether the grants have ended.
    pub fn expired(&self, now_s: u64) -> bool {
        self.expires_s <= now_s
    }
}

/// What a service's API key grants. It does not expire; removing the key
/// from the configuration ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceGrants {
    /// The key's name; scopes the ids of the messages it publishes.
    pub name: Box<str>,
    /// May use the administrative endpoints.
    pub admin: bool,
    pub(super) publish: Scope,
    pub(super) read: Scope,
    pub(super) members: Scope,
}

impl ServiceGrants {
    /// The rooms whose members it may see and change, as patterns.
    pub fn manageable(&self) -> Vec<String> {
        self.members.patterns()
    }
}

/// The channels of an API key. A service may be trusted with all of them,
/// a token never is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    Everything,
    Patterns(Box<[Pattern]>),
}

impl Scope {
    fn allows(&self, channel: &Channel) -> bool {
        match self {
            Self::Everything => true,
            Self::Patterns(patterns) => any_matches(patterns, channel),
        }
    }

    fn patterns(&self) -> Vec<String> {
        match self {
            Self::Everything => vec![EVERYTHING.to_owned()],
            Self::Patterns(patterns) => written(patterns),
        }
    }
}

/// Who sends an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A user with a token.
    User(Grants),
    /// A service with an API key.
    Service(ServiceGrants),
}

impl Caller {
    /// Whether the caller may read this channel's messages.
    pub fn may_read(&self, channel: &Channel) -> bool {
        match self {
            Self::User(grants) => grants.may_subscribe(channel),
            Self::Service(grants) => grants.read.allows(channel),
        }
    }

    /// Whether the caller may publish to this channel.
    pub fn may_publish(&self, channel: &Channel) -> bool {
        match self {
            Self::User(grants) => grants.may_publish(channel),
            Self::Service(grants) => grants.publish.allows(channel),
        }
    }

    /// The channels that the caller may read, as patterns.
    pub fn readable(&self) -> Vec<String> {
        match self {
            Self::User(grants) => {
                let inbox = std::iter::once(grants.inbox.to_string());
                inbox.chain(written(&grants.subscribe)).collect()
            }
            Self::Service(grants) => grants.read.patterns(),
        }
    }

    /// The channels that the caller may publish to, as patterns.
    pub fn publishable(&self) -> Vec<String> {
        match self {
            Self::User(grants) => written(&grants.publish),
            Self::Service(grants) => grants.publish.patterns(),
        }
    }

    /// Whether the caller may see and change who is in this room.
    pub fn may_manage(&self, room: &Channel) -> bool {
        match self {
            Self::User(_) => false,
            Self::Service(grants) => grants.admin || grants.members.allows(room),
        }
    }

    /// Whether this is that user.
    pub fn is_user(&self, user: &UserId) -> bool {
        match self {
            Self::User(grants) => grants.user == *user,
            Self::Service(_) => false,
        }
    }

    /// Whether the caller may use the administrative endpoints.
    pub fn is_admin(&self) -> bool {
        match self {
            Self::User(_) => false,
            Self::Service(grants) => grants.admin,
        }
    }

    /// The scope of the ids of what this caller publishes.
    pub fn publisher(&self) -> Publisher {
        match self {
            Self::User(grants) => Publisher::User(grants.user.clone()),
            Self::Service(grants) => Publisher::Service(grants.name.clone()),
        }
    }

    /// The user its messages are shown as coming from.
    pub fn sender(&self) -> Option<UserId> {
        match self {
            Self::User(grants) => Some(grants.user.clone()),
            Self::Service(_) => None,
        }
    }
}

fn any_matches(patterns: &[Pattern], channel: &Channel) -> bool {
    patterns.iter().any(|pattern| pattern.matches(channel))
}

fn written(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(Pattern::to_string).collect()
}
