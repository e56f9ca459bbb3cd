//! Room members.

use std::sync::Arc;

use delivery::members::{Listing, MemberEvent, MemberWatch, Members, ROOM_NAMESPACE, StoreFailure};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use protocol::{Channel, UserId};

use crate::batch::Batcher;
use crate::connect::{Store, statement};
use crate::error::StoreError;
use crate::listen::{Listener, Notice};

/// The most users of one change.
const USERS_MAX: usize = 10_000;
/// The longest list.
const LIST_MAX: usize = 1_000;

/// Room members in Postgres; cheap to clone.
#[derive(Clone)]
pub struct MemberStore {
    store: Store,
    memberships: Arc<Batcher<(Channel, UserId), bool>>,
}

impl MemberStore {
    /// The members of this store. Must be called within a runtime.
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            memberships: Arc::new(Batcher::start(store, are_members)),
        }
    }
}

/// The id of a room, if the channel is one.
fn room_id(room: &Channel) -> Result<&str, StoreError> {
    if room.namespace() == ROOM_NAMESPACE {
        Ok(room.id())
    } else {
        Err(StoreError::refused("only rooms have members"))
    }
}

fn user_ids(users: &[UserId]) -> Result<Vec<&str>, StoreError> {
    if users.len() > USERS_MAX {
        return Err(StoreError::refused("at most 10,000 users at a time"));
    }
    // Ascending, so that concurrent changes wait for each other in one order.
    let mut ids: Vec<&str> = users.iter().map(UserId::as_str).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

async fn are_members(
    store: Store,
    questions: Vec<(Channel, UserId)>,
) -> Result<Vec<bool>, StoreError> {
    let rooms: Vec<&str> = questions.iter().map(|(room, _)| room.id()).collect();
    let users: Vec<&str> = questions.iter().map(|(_, user)| user.as_str()).collect();
    let answers = statement!(
        store,
        fetch_all,
        sqlx::query_scalar!(
            r#"SELECT m.room IS NOT NULL AS "member!"
           FROM unnest($1::text[], $2::text[]) WITH ORDINALITY r(room, user_id, ord)
           LEFT JOIN rejoin.members m ON m.room = r.room AND m.user_id = r.user_id
           ORDER BY r.ord"#,
            &rooms as &[&str],
            &users as &[&str],
        )
    );
    Ok(answers)
}

impl Members for MemberStore {
    fn add(&self, room: Channel, users: Vec<UserId>) -> BoxFuture<'_, Result<u64, StoreFailure>> {
        let query = async move {
            let added = statement!(
                self.store,
                execute,
                sqlx::query!(
                "INSERT INTO rejoin.members (room, user_id) SELECT $1, * FROM unnest($2::text[])
                 ON CONFLICT DO NOTHING",
                room_id(&room)?,
                &user_ids(&users)? as &[&str],
            )
            );
            Ok::<_, StoreError>(added.rows_affected())
        };
        async move { Ok(self.store.within(query).await?) }.boxed()
    }

    fn remove(
        &self,
        room: Channel,
        users: Vec<UserId>,
    ) -> BoxFuture<'_, Result<u64, StoreFailure>> {
        let query = async move {
            let removed = statement!(
                self.store,
                execute,
                sqlx::query!(
                    "DELETE FROM rejoin.members WHERE room = $1 AND user_id = ANY($2::text[])",
                    room_id(&room)?,
                    &user_ids(&users)? as &[&str],
                )
            );
            Ok::<_, StoreError>(removed.rows_affected())
        };
        async move { Ok(self.store.within(query).await?) }.boxed()
    }

    fn contains(&self, room: Channel, user: UserId) -> BoxFuture<'_, Result<bool, StoreFailure>> {
        async move {
            room_id(&room)?;
            Ok(self.memberships.ask((room, user)).await?)
        }
        .boxed()
    }

    fn members(
        &self,
        room: Channel,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing<UserId>, StoreFailure>> {
        let limit = limit.clamp(1, LIST_MAX);
        let query = async move {
            let ids = statement!(
                self.store,
                fetch_all,
                sqlx::query_scalar!(
                    "SELECT user_id FROM rejoin.members WHERE room = $1 AND user_id > $2
                 ORDER BY user_id LIMIT $3",
                    room_id(&room)?,
                    after.as_ref().map_or("", UserId::as_str),
                    limit as i64 + 1,
                )
            );
            Ok::<_, StoreError>(listing(ids, limit, |id| UserId::parse(id).ok()))
        };
        async move { Ok(self.store.within(query).await?) }.boxed()
    }

    fn rooms(
        &self,
        user: UserId,
        after: Option<Channel>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing<Channel>, StoreFailure>> {
        let limit = limit.clamp(1, LIST_MAX);
        let query = async move {
            let after = match after.as_ref() {
                Some(after) => room_id(after)?,
                None => "",
            };
            let ids = statement!(
                self.store,
                fetch_all,
                sqlx::query_scalar!(
                    "SELECT room FROM rejoin.members WHERE user_id = $1 AND room > $2
                 ORDER BY room LIMIT $3",
                    user.as_str(),
                    after,
                    limit as i64 + 1,
                )
            );
            Ok::<_, StoreError>(listing(ids, limit, |id| {
                Channel::from_parts(ROOM_NAMESPACE, id).ok()
            }))
        };
        async move { Ok(self.store.within(query).await?) }.boxed()
    }

    fn watch(&self) -> Box<dyn MemberWatch> {
        Box::new(Watch {
            listener: Listener::start(&self.store, "rejoin_members"),
        })
    }
}

/// The list without the one item more that was asked for to see whether there
/// is one. The table's checks let only valid names in.
fn listing<T>(ids: Vec<String>, limit: usize, parse: impl Fn(&str) -> Option<T>) -> Listing<T> {
    Listing {
        more: ids.len() > limit,
        items: ids.iter().take(limit).filter_map(|id| parse(id)).collect(),
    }
}

struct Watch {
    listener: Listener,
}

impl MemberWatch for Watch {
    fn next(&mut self) -> BoxFuture<'_, MemberEvent> {
        async move {
            loop {
                match self.listener.next().await {
                    Notice::Listening => return MemberEvent::Resync,
                    Notice::Payload(payload) => {
                        if let Some(event) = parse_change(&payload) {
                            return event;
                        }
                    }
                }
            }
        }
        .boxed()
    }
}

/// `+room user` or `-room user`, as the trigger on the table writes it.
fn parse_change(payload: &str) -> Option<MemberEvent> {
    let (room, user) = payload.get(1..)?.split_once(' ')?;
    let room = Channel::from_parts(ROOM_NAMESPACE, room).ok()?;
    let user = UserId::parse(user).ok()?;
    match payload.as_bytes().first()? {
        b'+' => Some(MemberEvent::Added { room, user }),
        b'-' => Some(MemberEvent::Removed { room, user }),
        _ => None,
    }
}
