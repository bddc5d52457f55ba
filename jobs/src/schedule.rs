//! Jobs by their schedules: of all processes that run the schedule, one runs a job at a moment, and every moment is seen to once.
//!
//! Up to where a job's schedule was seen to stands in Postgres, and never goes back: a clock that was set back runs nothing twice, and what
//! passed while no process was there is skipped or made up for, as `catchup` says. A moment that comes while the job still runs is left out, or
//! run behind it, as `overlap` says.

use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use weir_engine::BoxError;
use weir_engine::retry::{Backoff, chain};
use weir_postgres::Database;
use weir_postgres::job_runs::{self, Outcome};

use crate::attached::Attached;
use crate::cron::{next, parse, zone};
use crate::job::Job;
use crate::runner::{Ask, Ran, Runner};
use crate::settings::{self, Catchup, Overlap};
use crate::show::Show;

/// Sleeps are cut, so that a clock that was set is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// A moment that passed so recently is the one that a process waited for: none was missed.
const ON_TIME: Duration = Duration::from_secs(90);

/// Between two attempts of one moment, times the attempt.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Between two looks at a run of another process.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Attempts of one moment, those whose process died included.
const ATTEMPTS_MAX: i32 = 20;

/// The outcome of a run whose process died.
const ABANDONED: &str = "abandoned";

/// Moments that are made up for at most, where all are.
const CATCHUP_MAX: usize = 100;

/// A job's schedule, read.
struct Plan {
    job: Job,
    cron: Cron,
    zone: TimeZone,
    settings: settings::Job,
}

/// Runs what is due, until told to stop.
pub(crate) fn start(attached: &Attached, stop: &CancellationToken) -> tokio::task::JoinSet<()> {
    let runner = Runner::new(attached);
    let mut followed = tokio::task::JoinSet::new();
    for job in Job::ALL {
        let Some(plan) = plan(job, &attached.settings) else { continue };
        let (runner, stop, database) = (runner.clone(), stop.clone(), attached.database.clone());
        followed.spawn(async move {
            let mut backoff = Backoff::default();
            while !stop.is_cancelled() {
                match follow(&runner, &database, &plan, &stop).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(%job, error = chain(error.as_ref()), "the schedule of a job waits");
                        backoff.wait(&stop).await;
                    }
                }
            }
        });
    }
    followed
}

fn plan(job: Job, settings: &settings::Settings) -> Option<Plan> {
    let settings = settings.jobs.get(job.name())?.clone();
    let (cron, zone) = (parse(&settings.schedule).ok()?, zone(&settings.time_zone).ok()?);
    Some(Plan { job, cron, zone, settings })
}

/// The moments after one and up to another, in order; the newest of them where there are too many.
fn passed(plan: &Plan, after: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let mut moments = std::collections::VecDeque::new();
    let mut at = after;
    while let Some(moment) = next(&plan.cron, &plan.zone, at).filter(|moment| *moment <= now) {
        if moments.len() == CATCHUP_MAX {
            moments.pop_front();
        }
        moments.push_back(moment);
        at = moment;
    }
    moments.into()
}

/// Which of the moments that passed are run.
fn chosen(passed: &[Timestamp], now: Timestamp, was_running: bool, settings: &settings::Job) -> Vec<Timestamp> {
    let Some(last) = passed.last() else { return Vec::new() };
    if was_running {
        return if settings.overlap == Overlap::Queue { vec![*last] } else { Vec::new() };
    }
    let is_on_time = now.duration_since(*last) <= jiff::SignedDuration::try_from(ON_TIME).unwrap_or_default();
    match settings.catchup {
        Catchup::All => passed.to_vec(),
        Catchup::Once => vec![*last],
        Catchup::Skip if is_on_time => vec![*last],
        Catchup::Skip => Vec::new(),
    }
}

/// The longest time from one moment to the next within eight days, or from the next moment to the one after it: for who watches whether a job is
/// overdue. A schedule of working days pauses over the weekend.
fn interval(plan: &Plan, now: Timestamp) -> Option<Duration> {
    let end = now + jiff::SignedDuration::from_hours(8 * 24);
    let (mut at, mut longest) = (next(&plan.cron, &plan.zone, now)?, None);
    while let Some(following) = next(&plan.cron, &plan.zone, at) {
        longest = longest.max(Duration::try_from(following.duration_since(at)).ok());
        at = following;
        if at > end {
            break;
        }
    }
    longest
}

async fn follow(runner: &Runner, database: &Database, plan: &Plan, stop: &CancellationToken) -> Result<(), BoxError> {
    let mut was_running = false;
    // Workflows run when one of them is due, whatever the schedule.
    let interval = interval(plan, Timestamp::now()).filter(|_| plan.job != Job::Workflows);
    loop {
        let now = Timestamp::now();
        let seen_to = job_runs::scheduled_to(&**database.get().await?, plan.job.name(), now).await?;
        if let Some(interval) = interval {
            metrics::gauge!("weir_job_schedule_interval_seconds", "name" => plan.job.name())
                .set(interval.as_secs_f64());
        }
        let passed = passed(plan, seen_to, now);
        if let Some(last) = passed.last()
            && runner.can(plan.job).await?
        {
            let chosen = chosen(&passed, now, was_running, &plan.settings);
            if chosen.len() < passed.len() {
                tracing::warn!(job = %plan.job, left_out = passed.len() - chosen.len(), "moments of the schedule passed and are not made up for");
            }
            for due in &chosen {
                run(runner, database, plan, *due, stop).await?;
            }
            if stop.is_cancelled() {
                return Ok(());
            }
            job_runs::see_to(&**database.get().await?, plan.job.name(), *last).await?;
            // What comes due while a run goes on overlaps with it.
            was_running = !chosen.is_empty();
            continue;
        }
        was_running = false;
        let Some(due) = next(&plan.cron, &plan.zone, now) else { return Ok(()) };
        let left = Duration::try_from(Timestamp::now().duration_until(due)).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(left.min(SLEEP_MAX)) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// One moment, again as often as the settings say while it fails, and where a process died in the middle of it. Of several processes one runs it,
/// and the others wait for how that goes.
async fn run(
    runner: &Runner,
    database: &Database,
    plan: &Plan,
    due: Timestamp,
    stop: &CancellationToken,
) -> Result<(), BoxError> {
    let (job, settings) = (plan.job, &plan.settings);
    let timeout = (settings.timeout_s > 0).then(|| Duration::from_secs(settings.timeout_s));
    let (mut attempt, mut failures) = (1, 0);
    while failures <= settings.retries && attempt <= ATTEMPTS_MAX {
        let ask = Ask { job, due_at: Some(due), attempt, arguments: json!({}), run_key: None, timeout };
        let wait = match Box::pin(runner.run(ask, stop, &Show::Nothing)).await {
            Ok(Ran::Busy(run)) if run.due_at == Some(due) || settings.overlap == Overlap::Queue => BUSY_WAIT,
            Ok(Ran::Here(Outcome::Failed, _)) => {
                (attempt, failures) = (attempt + 1, failures + 1);
                RETRY_AFTER * failures
            }
            Ok(Ran::Known(run))
                if run.outcome.as_deref().is_some_and(|outcome| {
                    [ABANDONED, Outcome::Stopped.as_str(), Outcome::Failed.as_str()].contains(&outcome)
                }) =>
            {
                // A process that died, or was stopped in the middle of it, has not failed at it.
                failures += u32::from(run.outcome.as_deref() == Some(Outcome::Failed.as_str()));
                attempt += 1;
                Duration::ZERO
            }
            // It went well, or found a difference; or someone paused or cancelled it; or another moment's run goes on.
            Ok(_) => return Ok(()),
            // Its session may be gone with a Postgres that was restarted, or another run took its place: the rows will say how it went, once they
            // can be read again.
            Err(error) => return Err(error),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    if settings.pause_on_failure {
        let why = format!(
            "it failed for {due}; `weir jobs history --job {job}` says why, `weir jobs resume {job}` runs it by its schedule again"
        );
        job_runs::pause(&**database.get().await?, job.name(), &why).await?;
        tracing::error!(%job, "paused after a failure");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn plan_of(schedule: &str, time_zone: &str, overlap: Overlap, catchup: Catchup) -> Plan {
        let settings = settings::Job {
            schedule: schedule.to_owned(),
            time_zone: time_zone.to_owned(),
            overlap,
            catchup,
            timeout_s: 0,
            retries: 0,
            pause_on_failure: false,
        };
        Plan { job: Job::Verify, cron: parse(schedule).expect("cron"), zone: zone(time_zone).expect("zone"), settings }
    }

    #[test]
    fn what_passed_is_skipped_made_up_for_once_or_all() {
        let now = at("2026-03-04T12:00:00Z");
        let hours = |catchup| {
            let plan = plan_of("0 * * * *", "UTC", Overlap::Refuse, catchup);
            let passed = passed(&plan, at("2026-03-04T08:30:00Z"), at("2026-03-04T11:50:00Z"));
            chosen(&passed, now, false, &plan.settings)
        };
        assert_eq!(hours(Catchup::Skip), []);
        assert_eq!(hours(Catchup::Once), [at("2026-03-04T11:00:00Z")]);
        assert_eq!(hours(Catchup::All), ["09", "10", "11"].map(|hour| at(&format!("2026-03-04T{hour}:00:00Z"))));
        // The moment that a process waited for.
        let plan = plan_of("0 * * * *", "UTC", Overlap::Refuse, Catchup::Skip);
        let due = passed(&plan, at("2026-03-04T11:00:00Z"), now);
        assert_eq!(chosen(&due, now, false, &plan.settings), [now]);
        // While the job ran.
        assert_eq!(chosen(&due, now, true, &plan.settings), []);
        let plan = plan_of("0 * * * *", "UTC", Overlap::Queue, Catchup::Skip);
        assert_eq!(chosen(&due, now, true, &plan.settings), [now]);
    }

    #[test]
    fn both_changes_of_daylight_saving_run_a_nightly_job_once() {
        let moments = |schedule: &str, from: &str, to: &str| {
            let plan = plan_of(schedule, "Europe/Berlin", Overlap::Refuse, Catchup::All);
            passed(&plan, at(from), at(to)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        // 02:30 is not there on the last Sunday of March: the night has its run all the same, and no second one.
        let spring = moments("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        assert_eq!(spring.len(), 2, "{spring:?}");
        assert_eq!(spring[1], "2026-03-30T00:30:00Z");
        // It is there twice on the last Sunday of October.
        let autumn = moments("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(autumn.len(), 2, "{autumn:?}");
        assert_eq!(autumn[1], "2026-10-26T01:30:00Z");
    }

    #[test]
    fn a_clock_that_was_set_back_runs_nothing_again() {
        let plan = plan_of("0 * * * *", "UTC", Overlap::Refuse, Catchup::All);
        let seen_to = at("2026-03-04T11:00:00Z");
        assert!(passed(&plan, seen_to, at("2026-03-04T10:20:00Z")).is_empty());
        assert_eq!(passed(&plan, seen_to, at("2026-03-04T12:00:00Z")), [at("2026-03-04T12:00:00Z")]);
    }

    #[test]
    fn an_interval_is_the_longest_pause() {
        let hours = |cron: &str| {
            let plan = plan_of(cron, "UTC", Overlap::Refuse, Catchup::All);
            interval(&plan, at("2026-03-04T11:00:00Z")).unwrap().as_secs() / 3600
        };
        assert_eq!((hours("0 * * * *"), hours("0 9-17 * * *"), hours("20 4 * * 1-5")), (1, 16, 72));
        // From the first of April to the first of May.
        assert_eq!(hours("0 0 1 * *"), 30 * 24);
    }
}
