//! A ticket opens one stream, on whichever edge.

use futures_util::future::join_all;

use super::{token, with_postgres};
use crate::harness::{Http, StackOptions};

async fn ticket(http: &Http, token: &str) -> String {
    let answer = http.post_as(token, "/v1/tickets", "").await;
    answer.body["ticket"].as_str().expect("a ticket").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_good_once_on_all_edges_together() {
    let (stack, postgres) = with_postgres(StackOptions::default()).await;
    let https: Vec<Http> = stack.edges.iter().map(|edge| edge.http()).collect();
    let token = token("42", "t-1");
    let open = async |http: &Http, ticket: &str| {
        let path = format!("/v1/events?channels=user:42&ticket={ticket}");
        http.open(None, &path).await.status().as_u16()
    };
    // One after the other.
    let first = ticket(&https[0], &token).await;
    assert_eq!(open(&https[1], &first).await, 200);
    for http in &https {
        assert_eq!(open(http, &first).await, 401);
    }
    // At once.
    for _ in 0..10 {
        let ticket = ticket(&https[0], &token).await;
        let opening = https.iter().chain(&https).map(|http| open(http, &ticket));
        let statuses = join_all(opening).await;
        let opened = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(opened, 1, "{statuses:?}");
    }
    // While nobody can tell, nobody is let in.
    let ticket = ticket(&https[0], &token).await;
    postgres.stop().await;
    for http in &https {
        assert_eq!(open(http, &ticket).await, 503);
    }
}
