//! Is a bad record kept whole while everything else goes on? (P7.)

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{ClickHouse, Up, Weir};

async fn send(up: &Up<'_>, token: &str, command: &str, user: &str, email: &str) {
    let event_type = if command == "RegisterUser" { EventType::UserRegistered } else { EventType::UserProfileUpdated };
    let mut data = samples::one(event_type);
    data["userId"] = json!(user);
    if command == "RegisterUser" {
        data["email"] = json!(email);
    } else {
        (data["changedFields"], data["newValues"]) = (json!(["lastName"]), json!({"lastName": "Later"}));
    }
    let request = Client::new().post(format!("{}/v1/commands/{command}", up.api)).bearer_auth(token).json(&data);
    assert_eq!(request.send().await.unwrap().status(), 201);
}

async fn letters_in_state(weir: &Weir, state: &str, count: usize) -> Vec<Value> {
    let started = std::time::Instant::now();
    loop {
        let letters = weir.json(&["dead-letters", "list"]);
        let found: Vec<Value> = letters.as_array().unwrap().iter().filter(|l| l["state"] == state).cloned().collect();
        if found.len() == count {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{letters}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_poison_event_parks_its_key_and_is_redriven_once() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "command,read");
    weir.owner()
        .await
        .batch_execute("ALTER TABLE user_read_model ADD CONSTRAINT no_poison CHECK (email <> 'poison')")
        .await
        .unwrap();
    for n in 0..5 {
        send(&up, &token, "RegisterUser", &format!("good{n}"), "fine").await;
    }
    send(&up, &token, "RegisterUser", "bad", "poison").await;
    // One of its key in the same batch, perhaps, and one long after it.
    send(&up, &token, "UpdateUserProfile", "bad", "").await;
    letters_in_state(&weir, "dead", 1).await;
    send(&up, &token, "UpdateUserProfile", "bad", "").await;
    send(&up, &token, "UpdateUserProfile", "good1", "").await;
    up.caught_up().await;

    // The key waits as a whole and in order; everything else went on, and verify counts them apart.
    let dead = letters_in_state(&weir, "dead", 1).await;
    assert!(dead[0]["reason"].as_str().unwrap().contains("no_poison"), "{dead:?}");
    assert_eq!(dead[0]["attempts"], 3);
    let waiting = letters_in_state(&weir, "parked", 2).await;
    assert_eq!((&waiting[0]["key"], &waiting[0]["attempts"]), (&json!("bad"), &json!(0)));
    let table = weir.verify();
    let users = table.as_array().unwrap().iter().find(|r| r["subject"] == "user_read_model").unwrap();
    assert_eq!((&users["sink_count"], &users["dead_letters"]), (&json!(5), &json!(3)));
    let shown = weir.ok(&["dead-letters", "show", &dead[0]["id"].to_string()]);
    assert!(shown.contains("\"email\":\"poison\""), "{shown}");

    // Its cause and correlation stand on the line about it.
    let log = weir.log();
    assert!(log.lines().any(|line| line.contains("parked") && line.contains("correlation_id=\"")), "{log}");

    // Redriven without the cause mended, it is dead again; mended, it and what waits behind it are applied once.
    weir.ok(&["dead-letters", "redrive"]);
    let started = std::time::Instant::now();
    while letters_in_state(&weir, "dead", 1).await[0]["attempts"] != 4 {
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    weir.owner().await.batch_execute("ALTER TABLE user_read_model DROP CONSTRAINT no_poison").await.unwrap();
    weir.ok(&["dead-letters", "redrive"]);
    letters_in_state(&weir, "parked", 0).await;
    letters_in_state(&weir, "dead", 0).await;
    let row = weir
        .owner()
        .await
        .query_one("SELECT email, last_name, version FROM user_read_model WHERE id = 'bad'", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, i64>(2)), ("poison", "Later", 3));
    up.terminate();
    weir.verify();
}

/// Behind the command side's back: a score beyond the maximum, which no contract lets in.
async fn intrude(weir: &Weir) {
    let insert = "INSERT INTO events (id, event_id, tenant, stream_id, version, event_type, schema_version, source, event_jsonb, \
        metadata, timestamp, recorded_at) SELECT max(id) + 1, gen_random_uuid(), 'default', 'Assessment-a1', 1, 'AssessmentCompleted', \
        '1.1.0', 'intruder', '{\"assessmentId\":\"a1\",\"userId\":\"u1\",\"score\":101,\"maxScore\":100,\"passed\":true,\
        \"timeSpent\":0,\"timestamp\":\"2024-01-01T00:00:00.000Z\"}', '{}', now(), now() FROM events";
    weir.owner().await.execute(insert, &[]).await.unwrap();
}

/// The bytes are mended in place, as a newer contract would do it; then a redrive is asked for.
async fn mend_and_redrive(weir: &Weir) {
    let owner = weir.owner().await;
    let event =
        "UPDATE events SET event_jsonb = jsonb_set(event_jsonb, '{score}', '99') WHERE stream_id = 'Assessment-a1'";
    owner.execute(event, &[]).await.unwrap();
    let letters =
        "UPDATE dead_letters SET payload = convert_to(replace(convert_from(payload, 'UTF8'), '101', '99'), 'UTF8')";
    owner.execute(letters, &[]).await.unwrap();
    weir.ok(&["dead-letters", "redrive"]);
}

#[tokio::test]
async fn a_record_that_is_no_event_is_a_dead_letter_of_every_lane_and_can_be_redriven() {
    let weir = Weir::new();
    let up = weir.up();
    let token = up.token("default", "command,read");
    send(&up, &token, "RegisterUser", "u1", "fine").await;
    intrude(&weir).await;
    send(&up, &token, "RegisterUser", "u2", "fine").await;
    up.caught_up().await;
    let letters = letters_in_state(&weir, "dead", 3).await;
    assert!(
        letters.iter().all(|l| l["reason"].as_str().unwrap().contains("/score: 101 is more than maxScore, 100")),
        "{letters:?}"
    );
    let table = weir.verify();
    let dead: i64 = table
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["lane"] == "history")
        .map(|r| r["dead_letters"].as_i64().unwrap())
        .sum();
    assert_eq!(dead, 1);

    // Mended, every lane takes it, once.
    mend_and_redrive(&weir).await;
    letters_in_state(&weir, "dead", 0).await;
    letters_in_state(&weir, "redrive", 0).await;
    let rows = weir.json(&["sql", "SELECT score FROM assessment_completed"]);
    assert_eq!(rows, json!([{"score": 99.0}]));
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_redrive_that_is_killed_after_its_commit_is_done_once() {
    let weir = Weir::new();
    let up = weir.up_until("history.after_redrive_commit");
    let token = up.token("default", "command,read");
    send(&up, &token, "RegisterUser", "u1", "fine").await;
    intrude(&weir).await;
    letters_in_state(&weir, "dead", 3).await;
    mend_and_redrive(&weir).await;
    up.dies();
    // In the table, and still a dead letter: verify knows which of the two it is.
    weir.verify();
    let up = weir.up();
    letters_in_state(&weir, "redrive", 0).await;
    up.terminate();
    assert_eq!(weir.json(&["sql", "SELECT score FROM assessment_completed"]), json!([{"score": 99.0}]));
    weir.verify();
}

/// ClickHouse has the record already, and its dead letter is still there: inserted again, it is one row.
#[tokio::test]
async fn a_redrive_into_clickhouse_that_is_killed_after_its_insert_is_done_once() {
    let server = ClickHouse::start();
    let weir = Weir::new().with_all(server.settings());
    let up = weir.up_until("clickhouse.after_redrive");
    let token = up.token("default", "command,read");
    send(&up, &token, "RegisterUser", "u1", "fine").await;
    intrude(&weir).await;
    letters_in_state(&weir, "dead", 4).await;
    mend_and_redrive(&weir).await;
    up.dies();
    weir.verify();
    let up = weir.up();
    letters_in_state(&weir, "redrive", 0).await;
    let sql = "SELECT count(), any(score) FROM weir.analytics_events WHERE event_type = 'AssessmentCompleted'";
    assert_eq!(server.sql(sql).await, "1\t99");
    up.terminate();
    weir.verify();
}

#[tokio::test]
async fn a_lane_beyond_its_cap_stops_alone_and_a_redrive_brings_it_back() {
    let weir = Weir::new().with("dead_letters.parked_max=3");
    let up = weir.up();
    let token = up.token("default", "command,read");
    let alter = |sql: &'static str| {
        let weir = &weir;
        async move { weir.owner().await.batch_execute(sql).await.unwrap() }
    };
    alter("ALTER TABLE user_read_model ADD CONSTRAINT no_poison CHECK (email <> 'poison')").await;
    send(&up, &token, "RegisterUser", "bad", "poison").await;
    letters_in_state(&weir, "dead", 1).await;
    for n in 0..6 {
        send(&up, &token, "UpdateUserProfile", "bad", &n.to_string()).await;
    }
    let admin = up.token("default", "admin");
    let ready = || async {
        let response = Client::new().get(format!("{}/readyz", up.api)).bearer_auth(&admin).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let started = std::time::Instant::now();
    loop {
        let (status, body) = ready().await;
        let trouble = body["lanes"]["read-models"]["trouble"].as_str().unwrap_or_default().to_owned();
        if status == 503 && trouble.contains("parked_max") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // P9: commands and the other lanes go on.
    send(&up, &token, "RegisterUser", "good", "fine").await;
    let started = std::time::Instant::now();
    loop {
        let (_, body) = ready().await;
        if ["metrics", "history"].iter().all(|lane| body["lanes"][lane]["nextOffset"] == 9) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{body}\n{}", weir.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    weir.verify();
    // It told the operator what to do; doing that is enough.
    alter("ALTER TABLE user_read_model DROP CONSTRAINT no_poison").await;
    weir.ok(&["dead-letters", "redrive"]);
    up.kill();
    let up = weir.up();
    up.caught_up().await;
    letters_in_state(&weir, "parked", 0).await;
    up.terminate();
    weir.verify();
}
