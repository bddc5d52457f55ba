//! Attempts at exams that come from several producers, in any order, some of them twice: is each counted, once, and is the sum the
//! same in whatever order they arrive?

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use weir_model::EventType;
use weir_model::wire::samples;
use weir_tests::{Kafka, Up, Weir, seed};

use super::{apply_topics, kcat, on, until};

/// One attempt, as its producer means it.
#[derive(Debug, Clone)]
struct Attempt {
    producer: &'static str,
    id: String,
    assessment: String,
    user: String,
    score: i64,
    /// Seconds since 2024-01-15T10:30:00Z, less than a minute.
    at: i64,
}

impl Attempt {
    fn passed(&self) -> bool {
        self.score >= 50
    }

    fn data(&self) -> Value {
        let mut data = samples::one(EventType::AssessmentCompleted);
        (data["assessmentId"], data["userId"]) = (json!(self.assessment), json!(self.user));
        (data["score"], data["maxScore"], data["passed"]) = (json!(self.score), json!(100), json!(self.passed()));
        data["timestamp"] = json!(format!("2024-01-15T10:30:{:02}Z", self.at));
        data
    }

    /// As another service sends it. Its `aggregateVersion` is its own count, which is nobody else's.
    fn record(&self) -> String {
        let data = self.data();
        json!({"eventId": self.id, "eventType": "AssessmentCompleted", "version": "1.0.0", "source": self.producer,
            "timestamp": data["timestamp"], "data": data, "aggregateVersion": 1})
        .to_string()
    }
}

const ASSESSMENTS: [&str; 3] = ["final-exam", "quiz/1", "50%"];

fn attempts(random: &mut StdRng, producer: &'static str, count: usize) -> Vec<Attempt> {
    let one = |n: usize, random: &mut StdRng| Attempt {
        producer,
        id: format!("{producer}-{n}"),
        assessment: ASSESSMENTS[random.random_range(0..3)].to_owned(),
        user: format!("user-{}", random.random_range(0..7)),
        score: random.random_range(0..=100),
        // Many at one time, so that the key has to tell them apart.
        at: random.random_range(0..40),
    };
    (0..count).map(|n| one(n, random)).collect()
}

/// Attempts, of those passed, best, first passed at, by assessment and learner.
type Results = BTreeMap<(String, String), (i64, i64, i64, Option<i64>)>;

fn results(attempts: &[Attempt]) -> Results {
    let mut results = Results::new();
    for attempt in attempts {
        let result = results.entry((attempt.assessment.clone(), attempt.user.clone())).or_default();
        result.0 += 1;
        result.2 = result.2.max(attempt.score);
        if attempt.passed() {
            result.1 += 1;
            result.3 = Some(result.3.map_or(attempt.at, |first| first.min(attempt.at)));
        }
    }
    results
}

/// What the database has of it.
async fn stored(weir: &Weir) -> Results {
    const SQL: &str = "SELECT assessment_id, user_id, attempts, passes, best_score_percent::bigint, \
         extract(epoch FROM first_passed_at - '2024-01-15T10:30:00Z')::bigint FROM assessment_results";
    let rows = weir.owner().await.query(SQL, &[]).await.unwrap();
    rows.iter().map(|r| ((r.get(0), r.get(1)), (r.get(2), r.get(3), r.get(4), r.get(5)))).collect()
}

async fn send_command(up: &Up<'_>, token: &str, attempt: &Attempt) {
    let post = reqwest::Client::new().post(format!("{}/v1/commands/CompleteAssessment", up.api));
    let answer = post.bearer_auth(token).json(&attempt.data()).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

async fn arrive(weir: &Weir, expected: &Results) {
    until(weir, 90, async || {
        let found = stored(weir).await;
        if found == *expected { Ok(()) } else { Err((found, expected.clone())) }
    })
    .await;
}

async fn in_history(weir: &Weir, count: usize) {
    until(weir, 60, async || {
        let history = weir.json(&["sql", "SELECT count(*) AS n FROM assessment_completed"])[0]["n"].clone();
        let counted = "SELECT coalesce(sum(value), 0)::bigint FROM metric_counters WHERE label = 'AssessmentCompleted'";
        let counted: i64 = weir.owner().await.query_one(counted, &[]).await.unwrap().get(0);
        if history == json!(count) && counted == i64::try_from(count).unwrap() {
            Ok(())
        } else {
            Err((history, counted))
        }
    })
    .await;
}

/// The attempt numbers that the view gives are the ranks by (time, key), without a hole.
async fn ranks_hold(weir: &Weir, count: usize) {
    const SQL: &str = "SELECT assessment_id || ' ' || user_id, attempt, completed_at::text, key FROM assessment_attempts ORDER BY 1, 2";
    let rows = weir.owner().await.query(SQL, &[]).await.unwrap();
    assert_eq!(rows.len(), count, "each attempt is a row of its own");
    let mut before: Option<(String, i64, (String, String))> = None;
    for row in rows {
        let (take, attempt, place): (String, i64, (String, String)) =
            (row.get(0), row.get(1), (row.get(2), row.get(3)));
        match &before {
            Some((earlier, number, at)) if *earlier == take => {
                assert!(attempt == number + 1 && place > *at, "{take} {attempt}")
            }
            _ => assert_eq!(attempt, 1, "{take}"),
        }
        before = Some((take, attempt, place));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_three_producers_count_each_once_in_any_order() {
    let kafka = Kafka::start();
    let weir = on(&kafka);
    apply_topics(&weir);
    let mut random = StdRng::seed_from_u64(seed("kafka::attempts"));
    let ours = attempts(&mut random, "weir", 40);
    let mut theirs: Vec<Attempt> =
        [attempts(&mut random, "lms", 40), attempts(&mut random, "proctor", 40)].into_iter().flatten().collect();
    theirs.shuffle(&mut random);
    let up = weir.up();
    let token = up.token("default", "command,read");
    let mut all = ours.clone();
    all.extend(theirs.iter().cloned());
    // Any partition, and one in five a second time within the window: a retry, which does not count.
    let produce = |records: &[String], random: &mut StdRng| {
        let partition = random.random_range(0..12).to_string();
        kcat(&kafka, &["-P", "-t", "learning_events", "-p", &partition], &records.join("\n"));
    };
    for (ours, theirs) in ours.chunks(8).zip(theirs.chunks(16)) {
        let mut records: Vec<String> = theirs.iter().map(Attempt::record).collect();
        for repeated in theirs.iter().take(3) {
            records.insert(random.random_range(0..records.len()), repeated.record());
        }
        produce(&records, &mut random);
        for attempt in ours {
            send_command(&up, &token, attempt).await;
        }
    }
    arrive(&weir, &results(&all)).await;
    ranks_hold(&weir, all.len()).await;

    in_history(&weir, all.len()).await;
    // Ids that the window has let go of may come again, and each is another attempt: nothing is overwritten.
    let forget = "DELETE FROM dedup_runs; UPDATE dedup SET generation = generation + 1";
    weir.owner().await.batch_execute(forget).await.unwrap();
    let recurring: Vec<Attempt> =
        theirs.iter().take(10).map(|attempt| Attempt { score: 100 - attempt.score, ..attempt.clone() }).collect();
    produce(&recurring.iter().map(Attempt::record).collect::<Vec<_>>(), &mut random);
    all.extend(recurring);
    let expected = results(&all);
    arrive(&weir, &expected).await;
    ranks_hold(&weir, all.len()).await;

    const PROGRESS: &str =
        "SELECT user_id, attempts, assessments_taken, assessments_passed FROM learner_progress_read_model";
    let rows = weir.owner().await.query(PROGRESS, &[]).await.unwrap();
    let mut progress: BTreeMap<String, (i64, BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for ((assessment, user), (attempts, passes, ..)) in &expected {
        let learner = progress.entry(user.clone()).or_default();
        learner.0 += attempts;
        learner.1.insert(assessment);
        if *passes > 0 {
            learner.2.insert(assessment);
        }
    }
    for row in rows {
        let found: (i64, i64, i64) = (row.get(1), row.get(2), row.get(3));
        let (attempts, taken, passed) = &progress[row.get::<_, &str>(0)];
        assert_eq!(found, (*attempts, i64::try_from(taken.len()).unwrap(), i64::try_from(passed.len()).unwrap()));
    }
    // None of them holds a key up.
    assert_eq!(weir.json(&["dead-letters", "list"]), json!([]));
    in_history(&weir, all.len()).await;
    weir.verify();
    up.terminate();
    weir.verify();
}
