//! Which tokens were revoked, in the memory of the edge: every token is held
//! against it, so that no query stands between a client and the edge.

use std::collections::HashMap;

use delivery::access::{Revocation, Revoked};
use parking_lot::RwLock;
use protocol::UserId;

use super::grants::Grants;

/// Why what a token grants does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It was revoked.
    Revoked,
    /// Not known yet: the edge has not read what is revoked.
    NotKnown,
}

/// Revocations below this many are looked through for expired ones whenever
/// one is added.
const SWEEP_LEAST: usize = 1_024;

/// What is revoked. As many as the store allows (a million), some 100 bytes
/// each, and no longer than the tokens they concern can live.
#[derive(Debug, Default)]
pub struct Revocations {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Set while it is not known what is revoked: nobody is let in then.
    awaited: bool,
    users: HashMap<UserId, Entry>,
    tokens: HashMap<Box<str>, Entry>,
    /// With this many entries, expired ones are looked for.
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    before_ms: i64,
    expires_ms: i64,
}

impl Revocations {
    /// From now on no token is accepted until [`Self::replace`]: this edge
    /// has records of what is revoked, and has not read them.
    pub fn await_all(&self) {
        self.state.write().awaited = true;
    }

    /// Whether what is revoked is known.
    pub fn is_known(&self) -> bool {
        !self.state.read().awaited
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let state = self.state.read();
        state.users.len() + state.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what it knew for everything that is revoked.
    pub fn replace(&self, all: impl IntoIterator<Item = Revocation>) {
        let mut state = State::default();
        for revocation in all {
            state.add(revocation);
        }
        state.sweep_at = (state.users.len() + state.tokens.len()) * 2;
        *self.state.write() = state;
    }

    /// One more; of two of the same, the later time counts.
    pub fn add(&self, revocation: Revocation, now_ms: i64) {
        let mut state = self.state.write();
        state.add(revocation);
        let count = state.users.len() + state.tokens.len();
        if count > state.sweep_at.max(SWEEP_LEAST) {
            state.users.retain(|_, entry| entry.expires_ms > now_ms);
            state.tokens.retain(|_, entry| entry.expires_ms > now_ms);
            state.sweep_at = (state.users.len() + state.tokens.len()) * 2;
        }
    }

    /// Takes one back.
    pub fn lift(&self, revoked: &Revoked) {
        let mut state = self.state.write();
        match revoked {
            Revoked::User(user) => state.users.remove(user),
            Revoked::Token(id) => state.tokens.remove(id),
        };
    }

    /// Whether what a token granted still counts. A token that does not say
    /// when it was issued was issued before everything.
    pub fn check(&self, grants: &Grants) -> Result<(), Refused> {
        let state = self.state.read();
        if state.awaited {
            return Err(Refused::NotKnown);
        }
        let by_id = |id: &str| state.tokens.contains_key(id);
        let by_user = |entry: &Entry| issued_ms(grants) < entry.before_ms;
        let revoked = grants.token_id.as_deref().is_some_and(by_id)
            || state.users.get(&grants.user).is_some_and(by_user);
        match revoked {
            true => Err(Refused::Revoked),
            false => Ok(()),
        }
    }
}

/// A token's time is in whole seconds: what was issued in the second of the
/// revocation counts as issued before it.
fn issued_ms(grants: &Grants) -> i64 {
    let issued_ms = grants.issued_s.unwrap_or(0).saturating_mul(1_000);
    i64::try_from(issued_ms).unwrap_or(i64::MAX)
}

impl State {
    fn add(&mut self, revocation: Revocation) {
        let new = Entry {
            before_ms: revocation.before_ms,
            expires_ms: revocation.expires_ms,
        };
        let entry = match revocation.revoked {
            Revoked::User(user) => self.users.entry(user).or_insert(new),
            Revoked::Token(id) => self.tokens.entry(id).or_insert(new),
        };
        entry.before_ms = entry.before_ms.max(new.before_ms);
        entry.expires_ms = entry.expires_ms.max(new.expires_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Channel;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn grants(name: &str, issued_s: Option<u64>, token_id: Option<&str>) -> Grants {
        Grants {
            user: user(name),
            expires_s: u64::MAX,
            issued_s,
            token_id: token_id.map(Into::into),
            inbox: Channel::inbox(&user(name)),
            subscribe: Box::default(),
            publish: Box::default(),
        }
    }

    fn of_user(name: &str, before_ms: i64) -> Revocation {
        Revocation {
            revoked: Revoked::User(user(name)),
            before_ms,
            expires_ms: NOW_MS + 60_000,
        }
    }

    fn of_token(id: &str, expires_ms: i64) -> Revocation {
        Revocation {
            revoked: Revoked::Token(id.into()),
            before_ms: NOW_MS,
            expires_ms,
        }
    }

    #[test]
    fn a_users_tokens_are_refused_up_to_the_time_and_nobody_elses() {
        let revocations = Revocations::default();
        revocations.add(of_user("42", 1_000_500), NOW_MS);
        let check = |name, issued_s| revocations.check(&grants(name, issued_s, None));
        assert_eq!(check("42", Some(999)), Err(Refused::Revoked));
        // In the same second: before or after cannot be told.
        assert_eq!(check("42", Some(1_000)), Err(Refused::Revoked));
        assert_eq!(check("42", Some(1_001)), Ok(()));
        assert_eq!(check("42", None), Err(Refused::Revoked));
        assert_eq!(check("43", None), Ok(()));
        // It only grows.
        revocations.add(of_user("42", 500), NOW_MS);
        assert_eq!(check("42", Some(999)), Err(Refused::Revoked));
    }

    #[test]
    fn a_token_is_refused_by_its_id_and_no_other() {
        let revocations = Revocations::default();
        revocations.add(of_token("t-1", NOW_MS + 1), NOW_MS);
        let check = |id| revocations.check(&grants("42", Some(2_000_000_000), id));
        assert_eq!(check(Some("t-1")), Err(Refused::Revoked));
        assert_eq!(check(Some("t-2")), Ok(()));
        assert_eq!(check(None), Ok(()));
        revocations.lift(&Revoked::Token("t-1".into()));
        assert_eq!(check(Some("t-1")), Ok(()));
    }

    #[test]
    fn nobody_is_let_in_until_it_is_known_what_is_revoked() {
        let revocations = Revocations::default();
        let check = || revocations.check(&grants("42", Some(1), None));
        assert_eq!(check(), Ok(()));
        revocations.await_all();
        assert_eq!(check(), Err(Refused::NotKnown));
        // One of them says nothing about the others.
        revocations.add(of_user("7", NOW_MS), NOW_MS);
        assert_eq!(check(), Err(Refused::NotKnown));
        revocations.replace([of_user("42", NOW_MS)]);
        assert_eq!(check(), Err(Refused::Revoked));
        revocations.replace([]);
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let revocations = Revocations::default();
        for number in 0..100_000_i64 {
            let now_ms = NOW_MS + number;
            revocations.add(of_token(&number.to_string(), now_ms + 100), now_ms);
        }
        assert!(revocations.len() <= SWEEP_LEAST, "{}", revocations.len());
    }
}
