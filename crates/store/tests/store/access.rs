//! API keys and revocations.

use store::access::{ApiKey, RevocationKind};

use crate::world::store;

#[tokio::test]
async fn a_key_works_until_it_is_revoked() {
    let store = store().await;
    let key = ApiKey {
        name: String::from("billing"),
        grants: serde_json::json!({"publish": ["user:*"]}),
    };
    store.put_api_key(&key, b"hash").await.unwrap();
    assert_eq!(store.api_key(b"hash").await.unwrap(), Some(key.clone()));
    store.put_api_key(&key, b"other").await.unwrap();
    assert_eq!(store.api_key(b"hash").await.unwrap(), None);
    store.revoke_api_key("billing").await.unwrap();
    assert_eq!(store.api_key(b"other").await.unwrap(), None);
}

#[tokio::test]
async fn a_revocation_only_grows() {
    let store = store().await;
    let revoked = || store.revoked_before_ms(RevocationKind::User, "42");
    assert_eq!(revoked().await.unwrap(), None);
    for (before_ms, expected) in [(100, 100), (50, 100), (200, 200)] {
        store
            .revoke(RevocationKind::User, "42", before_ms, 60_000)
            .await
            .unwrap();
        assert_eq!(revoked().await.unwrap(), Some(expected));
    }
    let session = store.revoked_before_ms(RevocationKind::Session, "42");
    assert_eq!(session.await.unwrap(), None);
}
