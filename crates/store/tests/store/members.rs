//! Room members, and who hears of changes.

use std::time::Duration;

use delivery::members::{MemberEvent, MemberWatch, Members, StoreFailure};
use store::{MemberStore, Store};
use tokio::time::timeout;

use crate::world::{channel, config, store, user};

async fn next(watch: &mut Box<dyn MemberWatch>) -> MemberEvent {
    timeout(Duration::from_secs(10), watch.next())
        .await
        .unwrap()
}

#[tokio::test]
async fn members_come_and_go_and_every_watch_hears_of_it() {
    let store = store().await;
    let members = MemberStore::new(&store);
    let mut watches = [members.watch(), MemberStore::new(&store).watch()];
    for watch in &mut watches {
        assert_eq!(next(watch).await, MemberEvent::Resync);
    }
    let room = channel("room:1");
    let (ann, bob) = (user("ann"), user("bob"));
    let both = vec![bob.clone(), ann.clone(), ann.clone()];
    assert_eq!(members.add(room.clone(), both.clone()).await.unwrap(), 2);
    assert_eq!(members.add(room.clone(), both).await.unwrap(), 0, "again");
    assert!(members.contains(room.clone(), ann.clone()).await.unwrap());
    assert_eq!(
        members
            .remove(room.clone(), vec![ann.clone()])
            .await
            .unwrap(),
        1
    );
    assert!(!members.contains(room.clone(), ann.clone()).await.unwrap());
    assert!(members.contains(room.clone(), bob.clone()).await.unwrap());
    for watch in &mut watches {
        let added = [next(watch).await, next(watch).await];
        for user in [&ann, &bob] {
            let room = room.clone();
            let user = user.clone();
            assert!(
                added.contains(&MemberEvent::Added { room, user }),
                "{added:?}"
            );
        }
        let removed = MemberEvent::Removed {
            room: room.clone(),
            user: ann.clone(),
        };
        assert_eq!(next(watch).await, removed);
    }
}

#[tokio::test]
async fn lists_are_read_in_pieces() {
    let store = store().await;
    let members = MemberStore::new(&store);
    let users: Vec<_> = (0..25).map(|n| user(&format!("u{n:02}"))).collect();
    members
        .add(channel("room:big"), users.clone())
        .await
        .unwrap();
    for n in 0..25 {
        let room = channel(&format!("room:{n:02}"));
        members.add(room, vec![user("ann")]).await.unwrap();
    }
    let (mut read, mut rooms, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let part = members
            .members(channel("room:big"), after, 10)
            .await
            .unwrap();
        after = part.items.last().cloned();
        read.extend(part.items);
        if !part.more {
            break;
        }
    }
    assert_eq!(read, users);
    let mut after = None;
    loop {
        let part = members.rooms(user("ann"), after, 10).await.unwrap();
        after = part.items.last().cloned();
        rooms.extend(part.items);
        if !part.more {
            break;
        }
    }
    assert_eq!(rooms.len(), 25);
    assert!(rooms.is_sorted());
}

#[tokio::test]
async fn only_rooms_have_members() {
    let store = store().await;
    let members = MemberStore::new(&store);
    let inbox = channel("user:1");
    let refused = [
        members
            .add(inbox.clone(), vec![user("1")])
            .await
            .map(|_| ()),
        members
            .remove(inbox.clone(), vec![user("1")])
            .await
            .map(|_| ()),
        members.contains(inbox.clone(), user("1")).await.map(|_| ()),
        members.members(inbox, None, 10).await.map(|_| ()),
    ];
    for result in refused {
        assert!(
            matches!(result, Err(StoreFailure::Refused { .. })),
            "{result:?}"
        );
    }
}

/// A watch whose connection is cut says that it may have missed something.
#[tokio::test]
async fn a_watch_that_was_cut_off_says_so() {
    let postgres = devstack::Postgres::start(devstack::PostgresOptions::default())
        .await
        .unwrap();
    let store = Store::connect(config(postgres.url())).await.unwrap();
    let members = MemberStore::new(&store);
    let mut watch = members.watch();
    assert_eq!(next(&mut watch).await, MemberEvent::Resync);
    postgres.restart().await.unwrap();
    assert_eq!(next(&mut watch).await, MemberEvent::Resync);
    members
        .add(channel("room:1"), vec![user("ann")])
        .await
        .unwrap();
    assert!(matches!(next(&mut watch).await, MemberEvent::Added { .. }));
}
