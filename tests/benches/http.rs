//! Commands over HTTP, against appends without HTTP, tokens, state and rules.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_engine::StatusBoard;
use weir_model::EventType;
use weir_model::TenantId;
use weir_model::wire::samples;
use weir_postgres::EventStore;
use weir_postgres::tokens::{self, Scope, Tokens};
use weir_tests::Postgres;

use crate::append::{commit_row, one_commit, rate_of_appends, service};
use crate::fill::{database, runtime};
use crate::measure::{median, pairs, quantile, round, row};

const CLIENTS: usize = 64;
const TURN: Duration = Duration::from_secs(4);
const TURNS: usize = 5;

/// None is asked for here.
struct NoJobs;

#[async_trait::async_trait]
impl weir_api::Jobs for NoJobs {
    fn listed(&self) -> Vec<weir_api::JobListed> {
        Vec::new()
    }

    async fn start(
        &self,
        job: &str,
        _: serde_json::Value,
        _: Option<String>,
    ) -> Result<(weir_postgres::job_runs::JobRun, bool), weir_api::NotStarted> {
        Err(weir_api::NotStarted::Unknown(job.to_owned()))
    }
}

/// Commands a second, and how long the slowest hundredth waits.
async fn commands(api: &str, token: &str) -> (f64, Duration) {
    // A connection each. Made before the clock starts: each client reads the certificates of the whole world.
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new()).collect();
    let started = Instant::now();
    let clients: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let (api, token) = (api.to_owned(), token.to_owned());
            tokio::spawn(async move {
                let url = format!("{api}/v1/commands/StartLearningSession");
                let mut data = samples::one(EventType::LearningSessionStarted);
                let mut taken = Vec::new();
                while started.elapsed() < TURN {
                    let key = uuid::Uuid::now_v7().to_string();
                    data["sessionId"] = json!(key);
                    let sent = Instant::now();
                    let request = client.post(&url).bearer_auth(&token).header("idempotency-key", &key).json(&data);
                    assert_eq!(request.send().await.unwrap().status(), 201);
                    taken.push(sent.elapsed());
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for client in clients {
        taken.extend(client.await.unwrap());
    }
    let rate = taken.len() as f64 / started.elapsed().as_secs_f64();
    (rate, quantile(&mut taken, 0.99))
}

pub(crate) fn run() {
    let runtime = runtime();
    let server = Postgres::start();
    let url = server.url();
    // The command side alone, without lanes: they have benchmarks of their own.
    let (service, api, token) = runtime.block_on(async {
        let database = database(&url).await;
        let client = database.get().await.unwrap();
        let token = tokens::create(&**client, &TenantId::default(), "bench", &[Scope::Command]).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let service = service(&database);
        let minute = Duration::from_secs(60);
        let handlers = weir_api::Api {
            commands: service.clone(),
            store: EventStore::new(database.clone()),
            tokens: Tokens::new(database.clone()),
            database: database.clone(),
            board: StatusBoard::default(),
            process_metrics: weir_api::exporter().unwrap(),
            limits: Arc::new(weir_api::Limits::new(NonZeroU32::MAX, 1000, minute, minute, 1 << 30, 1 << 30)),
            parts: Vec::new(),
            layout: weir_api::Layout::default(),
            scraped: weir_api::Scraped::default(),
            data_dir: std::env::temp_dir(),
            retention: Vec::new(),
            jobs: Arc::new(NoJobs),
        };
        tokio::spawn(weir_api::serve(listener, weir_api::Front::default(), handlers, CancellationToken::new()));
        (service, api, token)
    });
    let mut slowest = Vec::new();
    let rates = pairs(
        TURNS,
        || {
            let (rate, p99) = runtime.block_on(commands(&api, &token));
            slowest.push(p99.as_secs_f64() * 1000.0);
            rate
        },
        || runtime.block_on(rate_of_appends(&service)),
    );
    rates.row(&format!("HTTP commands, {CLIENTS} clients"), "commands/s", "the append benchmark beside it", "≥ 0.5");
    let commit = runtime.block_on(one_commit(&url));
    commit_row(commit);
    let p99 = median(slowest);
    let ratio = format!("{:.1}", p99 / commit);
    row(
        "HTTP commands, p99",
        &format!("{} ms", round(p99)),
        &format!("{} ms, one commit", round(commit)),
        &ratio,
        "≤ 3",
    );
}
