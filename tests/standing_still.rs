//! Is a run of a job that stands still for a minute replaced, and does it change nothing when it wakes?

use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use weir_tests::{Facts, Fixture, Postgres, Weir, seed};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Starts a command that stops at a failpoint, and waits until it stands there.
pub(crate) async fn stopped(weir: &Weir, args: &[&str], failpoint: &str) -> Child {
    let mut command = weir.command(args);
    let child = command.env("WEIR_FAILPOINT", format!("{failpoint}:1:stop")).stdout(Stdio::piped()).spawn().unwrap();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
    };
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while !is_stopped() {
        assert!(tokio::time::Instant::now() < until, "{failpoint}: {}", weir.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child
}

/// As if it had stood still for a minute.
async fn a_minute_passes(weir: &Weir) {
    let old = "UPDATE job_runs SET seen_at = now() - interval '61 s' WHERE ended_at IS NULL";
    assert_eq!(weir.owner().await.execute(old, &[]).await.unwrap(), 1);
}

fn import(weir: &Weir, fixture: &Fixture) {
    weir.ok(&["import", "oulad", fixture.arg()]);
    weir.ok(&["up", "--until-caught-up"]);
}

#[tokio::test]
async fn a_rebuilder_a_compactor_and_a_scheduler_are_replaced() {
    let fixture = Fixture::new(3000, seed("standing_still"));
    let facts = Facts::of_input(fixture.path());
    let postgres = Postgres::start();
    let weir = Weir::new()
        .on(&postgres.url())
        .with("lanes.history.records_max=400")
        .with("lanes.history.poll_records_max=400")
        .with("jobs.compact-history.schedule=\"0 4 * * *\"")
        .with("jobs.compact-history.catchup=once");
    import(&weir, &fixture);
    let answer = || {
        let sql = "SELECT event_type, count(*) AS n, count(DISTINCT event_id) AS ids FROM events GROUP BY 1 ORDER BY 1";
        weir.json(&["sql", sql])
    };
    let before = answer();
    for (args, failpoint) in
        [(["rebuild", "read-models"], "rebuild.before_commit"), (["compact", "history"], "compaction.before_commit")]
    {
        let mut standing = stopped(&weir, &args, failpoint).await;
        let busy = weir.run(&args);
        assert!(String::from_utf8_lossy(&busy.stderr).contains("runs already: run "), "{args:?}: {busy:?}");
        a_minute_passes(&weir).await;
        weir.ok(&args);
        let rows = weir.json(&["status"]);
        signal(&standing, Signal::CONT);
        assert!(!standing.wait().unwrap().success(), "{args:?} {rows}");
        assert_eq!(answer(), before, "{args:?}");
        weir.verify();
    }
    let up = weir.up();
    facts.hold(&weir, &up).await;
    up.terminate();
    a_scheduler_is_replaced(&weir).await;
}

/// The run that it began is made again by another process, and itself it goes on with the schedule.
async fn a_scheduler_is_replaced(weir: &Weir) {
    // Small files again.
    import(weir, &Fixture::new(1500, seed("standing_still_more")));
    let more = "INSERT INTO jobs (job, scheduled_to) VALUES ('compact-history', now() - interval '2 days') \
         ON CONFLICT (job) DO UPDATE SET scheduled_to = excluded.scheduled_to";
    weir.owner().await.execute(more, &[]).await.unwrap();
    let mut standing = stopped(weir, &["schedule"], "compaction.after_files").await;
    a_minute_passes(weir).await;
    let mut other = weir.start(&["schedule"]);
    weir.until(
        "SELECT count(*) = 1 FROM job_runs WHERE job = 'compact-history' AND due_at IS NOT NULL AND outcome = 'ok'",
    )
    .await;
    signal(&standing, Signal::CONT);
    weir.until("SELECT count(*) = 0 FROM job_runs WHERE ended_at IS NULL").await;
    let runs = "SELECT string_agg(outcome, ' ' ORDER BY id) FROM job_runs WHERE job = 'compact-history' AND due_at IS NOT NULL";
    let outcomes: String = weir.owner().await.query_one(runs, &[]).await.unwrap().get(0);
    assert_eq!(outcomes, "abandoned ok");
    for child in [&mut standing, &mut other] {
        signal(child, Signal::TERM);
        assert!(child.wait().unwrap().success(), "{}", weir.log());
    }
    weir.verify();
}
