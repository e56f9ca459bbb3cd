use super::*;
use crate::auth::{Authenticator, KeyConfig, Secret};

const NOW_S: u64 = 1_800_000_000;

fn key(secret: &str) -> KeyConfig {
    KeyConfig {
        alg: TokenAlgorithm::HS256,
        kid: None,
        secret: Some(Secret::new(secret)),
        secret_file: None,
        public_key_pem: None,
        public_key_pem_file: None,
    }
}

fn config(secret: &str) -> AuthConfig {
    AuthConfig {
        keys: vec![key(secret)],
        ..AuthConfig::default()
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

fn tickets(secret: &str) -> Tickets {
    Tickets::new(&config(secret)).unwrap().unwrap()
}

fn grants() -> Grants {
    let user = UserId::parse("42").unwrap();
    Grants {
        inbox: Channel::inbox(&user),
        user,
        expires_s: NOW_S + 3_600,
        issued_s: Some(NOW_S - 60),
        token_id: Some("t-1".into()),
        subscribe: Box::new([Pattern::parse("room:*").unwrap()]),
        publish: Box::new([Pattern::parse("room:*").unwrap()]),
    }
}

#[test]
fn a_ticket_grants_reading_once_on_an_edge_with_the_same_key() {
    let ticket = tickets(SECRET).issue(&grants(), NOW_S).unwrap();
    let there = tickets(SECRET);
    let taken = there.redeem(&ticket, NOW_S + 1).unwrap().grants;
    let expected = Grants {
        publish: Box::default(),
        ..grants()
    };
    assert_eq!(taken, expected);
    assert_eq!(there.redeem(&ticket, NOW_S + 1), Err(TicketError::Used));
}

#[test]
fn a_ticket_ends_with_its_time_or_its_token() {
    let ours = tickets(SECRET);
    let late = NOW_S + TICKET_TTL_S + config(SECRET).leeway_s;
    let ticket = ours.issue(&grants(), NOW_S).unwrap();
    assert_eq!(ours.redeem(&ticket, late), Err(TicketError::Expired));
    assert!(ours.redeem(&ticket, late - 1).is_ok());
    let short = Grants {
        expires_s: NOW_S + 5,
        ..grants()
    };
    let ticket = ours.issue(&short, NOW_S).unwrap();
    assert_eq!(ours.redeem(&ticket, NOW_S + 5), Err(TicketError::Expired));
}

#[test]
fn what_is_not_our_ticket_is_refused() {
    let ours = tickets(SECRET);
    let foreign = tickets(OTHER).issue(&grants(), NOW_S).unwrap();
    let ticket = ours.issue(&grants(), NOW_S).unwrap();
    let changed = format!("{}A", &ticket[..ticket.len() - 2]);
    for text in ["", "a.b.c", &foreign, &changed, &"x".repeat(20_000)] {
        assert_eq!(
            ours.redeem(text, NOW_S),
            Err(TicketError::Invalid),
            "{text}"
        );
    }
}

#[test]
fn tickets_and_tokens_are_not_taken_for_each_other() {
    let config = config(SECRET);
    let ours = tickets(SECRET);
    let auth = Authenticator::new(&config).unwrap();
    let ticket = ours.issue(&grants(), NOW_S).unwrap();
    assert!(auth.verify_token(&ticket, NOW_S).is_err());
    let claims = crate::auth::Claims {
        sub: UserId::parse("42").unwrap(),
        exp: NOW_S + 60,
        iat: None,
        nbf: None,
        jti: None,
        iss: None,
        aud: None,
        rejoin: Default::default(),
    };
    let token = crate::auth::mint(&config, &claims).unwrap();
    assert!(auth.verify_token(token.expose(), NOW_S).is_ok());
    assert_eq!(
        ours.redeem(token.expose(), NOW_S),
        Err(TicketError::Invalid)
    );
}

#[test]
fn used_tickets_are_forgotten_only_when_they_have_expired() {
    let ours = tickets(SECRET);
    for number in 0..USED_MAX {
        ours.take(number.to_string(), NOW_S + 30, NOW_S).unwrap();
    }
    let take = |id: &str, now_s| ours.take(id.to_owned(), now_s + 30, now_s);
    assert_eq!(take("new", NOW_S), Err(TicketError::Busy));
    assert_eq!(take("7", NOW_S), Err(TicketError::Used));
    assert_eq!(take("new", NOW_S + 30), Ok(()));
}

#[test]
fn without_a_shared_secret_there_are_no_tickets() {
    let none = AuthConfig::default();
    assert!(Tickets::new(&none).unwrap().is_none());
    let own = AuthConfig {
        ticket_key: Some(key(SECRET)),
        ..AuthConfig::default()
    };
    assert!(Tickets::new(&own).unwrap().is_some());
    let short = AuthConfig {
        ticket_key: Some(key("short")),
        ..AuthConfig::default()
    };
    assert_eq!(Tickets::new(&short).unwrap_err().field, "ticket_key");
}
