//! A Postgres that answers late, not at all, or whose answers are lost.

use std::time::{Duration, Instant};

use weir_tests::postgres::url_at;
use weir_tests::{Postgres, Proxy, Weir};

use super::{sessions_are, start_session_at_last, waits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_commit_replies() {
    let server = Postgres::start();
    let proxy = Proxy::before(server.port()).await;
    let weir = Weir::new().on(&url_at(proxy.port()));
    let up = weir.up();
    let token = up.token("default", "command,read");
    // Of the lanes' transactions: the commit is done, nobody hears of it, and the same batch comes again.
    proxy.lose_replies_to("COMMIT", 12);
    for n in 0..40 {
        start_session_at_last(&up, &token, &format!("session-{n}")).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let lost = proxy.lost();
    assert!(lost >= 8, "only {lost} replies were lost");
    // Of the append itself: the command is stored, and its answer finds it.
    for n in 0..5 {
        let id = format!("lost-{n}");
        let before = proxy.lost();
        // Its event, which no question before the append speaks of.
        proxy.lose_replies_to(&format!("\"sessionId\":\"{id}\""), 1);
        let answer = start_session_at_last(&up, &token, &id).await;
        assert_eq!((&answer["version"], &answer["repeated"]), (&1.into(), &true.into()), "{answer}");
        assert_eq!(proxy.lost(), before + 1, "the reply to {id} was lost");
    }
    proxy.lose_replies_to("", 0);
    up.caught_up().await;
    sessions_are(&weir, 45).await;
    up.terminate();
    weir.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_slow() {
    let server = Postgres::start();
    let proxy = Proxy::before(server.port()).await;
    let weir = Weir::new().on(&url_at(proxy.port()));
    let up = weir.up();
    let token = up.token("default", "command,read");
    proxy.delay(Duration::from_secs(1));
    let sending = (0..8).map(|n| {
        let (up, token) = (&up, &token);
        async move { start_session_at_last(up, token, &format!("slow-{n}")).await }
    });
    futures::future::join_all(sending).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // So slow that a new connection takes longer than anyone waits for one: nobody's data is at fault, here neither.
    proxy.delay(Duration::from_secs(6));
    proxy.go_away();
    proxy.come_back();
    let (connecting, ()) = tokio::join!(start_session_at_last(&up, &token, "connecting"), async {
        waits(&up, "read-models").await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        proxy.delay(Duration::ZERO);
    });
    assert_eq!(connecting["version"], 1, "{connecting}");
    start_session_at_last(&up, &token, "fast-again").await;
    up.caught_up().await;
    sessions_are(&weir, 10).await;
    let letters = weir.json(&["dead-letters", "list"]);
    assert_eq!(letters.as_array().unwrap().len(), 0, "slowness is no record's fault: {letters}");
    up.terminate();
    weir.verify();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_gone_for_a_minute() {
    let server = Postgres::start();
    let proxy = Proxy::before(server.port()).await;
    let weir = Weir::new().on(&url_at(proxy.port())).with("append.give_up_after_ms=500");
    let up = weir.up();
    let token = up.token("default", "command,read");
    for n in 0..10 {
        start_session_at_last(&up, &token, &format!("before-{n}")).await;
    }
    proxy.go_away();
    let gone = Instant::now();
    waits(&up, "read-models").await;
    let ready = reqwest::get(format!("{}/readyz", up.api)).await.unwrap();
    assert_eq!(ready.status(), 503);
    let post = reqwest::Client::new().post(format!("{}/v1/commands/StartLearningSession", up.api));
    let refused = post.bearer_auth(&token).json(&serde_json::json!({})).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(gone.elapsed())).await;
    proxy.come_back();
    for n in 0..10 {
        start_session_at_last(&up, &token, &format!("after-{n}")).await;
    }
    up.caught_up().await;
    sessions_are(&weir, 20).await;
    let letters = weir.json(&["dead-letters", "list"]);
    assert_eq!(letters.as_array().unwrap().len(), 0, "absence is no record's fault: {letters}");
    up.terminate();
    weir.verify();
}
