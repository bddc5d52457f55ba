//! Histograms of what happens for each event and each request. The recorder of `metrics` keeps every observation until someone asks for it; these
//! count into their buckets at once, however many come and whether anyone asks or not.

use std::sync::LazyLock;

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec};

use crate::metric::{ALL, FRESHNESS, HTTP_SECONDS, SQL_SECONDS};

/// Around the objectives: five seconds for most lanes, thirty for history.
const FRESHNESS_BUCKETS: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];

const HTTP_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

const SQL_BUCKETS: [f64; 10] = [0.005, 0.025, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 600.0];

static OF_LANES: LazyLock<Option<HistogramVec>> = LazyLock::new(|| histogram(FRESHNESS, &FRESHNESS_BUCKETS));
static OF_REQUESTS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| histogram(HTTP_SECONDS, &HTTP_BUCKETS));

static OF_STATEMENTS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| histogram(SQL_SECONDS, &SQL_BUCKETS));

/// `None` for what is not declared: a test holds that none is.
fn histogram(name: &str, buckets: &[f64]) -> Option<HistogramVec> {
    let declared = ALL.iter().find(|metric| metric.name == name)?;
    let options = HistogramOpts::new(name, declared.help).buckets(buckets.to_vec());
    HistogramVec::new(options, declared.labels).ok()
}

/// Seconds from recording to commit, of each event of a lane's batch.
pub fn fresh(lane: &str, seconds: impl Iterator<Item = f64>) {
    let Some(histogram) = OF_LANES.as_ref() else { return };
    // Added up here, and to the shared counts once.
    let local = histogram.with_label_values(&[lane]).local();
    seconds.for_each(|seconds| local.observe(seconds));
    local.flush();
}

/// Seconds that a request took.
pub fn request(route: &str, seconds: f64) {
    if let Some(histogram) = OF_REQUESTS.as_ref() {
        histogram.with_label_values(&[route]).observe(seconds);
    }
}

/// Seconds that a statement of SQL took.
pub fn statement(seconds: f64) {
    if let Some(histogram) = OF_STATEMENTS.as_ref() {
        histogram.with_label_values::<&str>(&[]).observe(seconds);
    }
}

/// All of them, for exposition.
#[must_use]
pub fn families() -> Vec<MetricFamily> {
    let all = [OF_LANES.as_ref(), OF_REQUESTS.as_ref(), OF_STATEMENTS.as_ref()];
    all.into_iter()
        .flatten()
        .flat_map(|histogram| histogram.collect())
        .filter(|family| !family.get_metric().is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_declared_and_count_into_their_buckets() {
        fresh("a", [0.01, 0.2, 4.9, 99_999.0].into_iter());
        request("/v1/events", 0.002);
        let families = families();
        let names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, [FRESHNESS, HTTP_SECONDS]);
        let histogram = families[0].get_metric()[0].get_histogram();
        assert_eq!((histogram.get_sample_count(), histogram.get_bucket()[6].cumulative_count()), (4, 3));
    }
}
