//! The lane `metrics`: committed totals in Postgres, and their exposition. Every process shows the same totals, because all
//! of them read the same rows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use tokio_postgres::GenericClient;
use weir_engine::Located;
use weir_model::Event;
use weir_model::project::{self, COUNTERS, EXECUTION_TIME, MetricKey, Units};

use crate::error::{DbError, During, ErrorKind};
use crate::projection::{ApplyError, Projection};

/// The lane `metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetricsProjection {
    /// The units in which producers send durations.
    pub units: Units,
}

#[async_trait]
impl Projection for MetricsProjection {
    fn fingerprint(&self) -> Option<String> {
        Some(project::fingerprint::of_metrics(self.units))
    }

    fn depends_on_order(&self, _: &Event) -> bool {
        false
    }

    async fn apply(&self, transaction: &Transaction<'_>, events: &[&Located]) -> Result<(), ApplyError> {
        let mut totals = MetricTotals::default();
        for located in events {
            totals.count(&located.event, self.units);
        }
        totals.add_to(transaction).await?;
        Ok(())
    }
}

/// Counters and histogram buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricTotals {
    /// By name and label value.
    pub counters: BTreeMap<(String, String), i64>,
    /// By name and bucket: observations and their sum in microseconds.
    pub buckets: BTreeMap<(String, usize), (i64, i128)>,
}

impl MetricTotals {
    /// Counts one event.
    pub fn count(&mut self, event: &Event, units: Units) {
        for MetricKey { name, label } in project::counted(event) {
            *self.counters.entry((name.to_owned(), label)).or_default() += 1;
        }
        if let Some(observation) = project::observed(event, units) {
            let (observations, sum) =
                self.buckets.entry((EXECUTION_TIME.name.to_owned(), observation.bucket)).or_default();
            *observations += 1;
            *sum += i128::from(observation.micros);
        }
    }

    pub(crate) async fn add_to(&self, transaction: &Transaction<'_>) -> Result<(), DbError> {
        const ACTION: &str = "adding to the metrics";
        const COUNT: &str = "INSERT INTO metric_counters AS m (name, label, value) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) \
             ON CONFLICT (name, label) DO UPDATE SET value = m.value + excluded.value";
        const OBSERVE: &str = "INSERT INTO metric_histogram_buckets AS m (name, bucket, observations, sum_micros) \
             SELECT n, b, o, s::numeric FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[]) AS x(n, b, o, s) \
             ON CONFLICT (name, bucket) DO UPDATE SET observations = m.observations + excluded.observations, \
               sum_micros = m.sum_micros + excluded.sum_micros";
        let names: Vec<&str> = self.counters.keys().map(|(name, _)| name.as_str()).collect();
        let labels: Vec<&str> = self.counters.keys().map(|(_, label)| label.as_str()).collect();
        let values: Vec<i64> = self.counters.values().copied().collect();
        let statement = transaction.prepare_cached(COUNT).await.during(ACTION)?;
        transaction.execute(&statement, &[&names, &labels, &values]).await.during(ACTION)?;
        if self.buckets.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.buckets.keys().map(|(name, _)| name.as_str()).collect();
        let indexes: Vec<i32> = self.buckets.keys().map(|(_, b)| i32::try_from(*b).unwrap_or(i32::MAX)).collect();
        let observations: Vec<i64> = self.buckets.values().map(|(o, _)| *o).collect();
        let sums: Vec<String> = self.buckets.values().map(|(_, sum)| sum.to_string()).collect();
        let statement = transaction.prepare_cached(OBSERVE).await.during(ACTION)?;
        transaction.execute(&statement, &[&names, &indexes, &observations, &sums]).await.during(ACTION)?;
        Ok(())
    }

    /// The committed totals, from one snapshot: one statement, so no commit falls between two of its rows.
    pub async fn read(client: &impl GenericClient) -> Result<Self, DbError> {
        const ACTION: &str = "reading the metrics";
        const SQL: &str = "SELECT name, label, NULL::integer AS bucket, value, NULL::text AS sum FROM metric_counters \
             UNION ALL SELECT name, '', bucket, observations, sum_micros::numeric(40, 0)::text FROM metric_histogram_buckets";
        let mut totals = Self::default();
        for row in client.query(SQL, &[]).await.during(ACTION)? {
            let name: String = row.try_get(0).during(ACTION)?;
            let value: i64 = row.try_get(3).during(ACTION)?;
            match row.try_get::<_, Option<i32>>(2).during(ACTION)? {
                None => {
                    totals.counters.insert((name, row.try_get(1).during(ACTION)?), value);
                }
                Some(bucket) => {
                    let broken = |_| DbError::new(ACTION, ErrorKind::Permanent, "a histogram bucket is broken");
                    let sum: &str = row.try_get(4).during(ACTION)?;
                    let sum: i128 =
                        sum.parse().map_err(|_| DbError::new(ACTION, ErrorKind::Permanent, "a sum is broken"))?;
                    totals.buckets.insert((name, usize::try_from(bucket).map_err(broken)?), (value, sum));
                }
            }
        }
        Ok(totals)
    }

    /// A counter's value.
    #[must_use]
    pub fn counter(&self, name: &str, label: &str) -> i64 {
        self.counters.get(&(name.to_owned(), label.to_owned())).copied().unwrap_or(0)
    }

    /// Prometheus text format. Every declared series is there, zeros included.
    pub fn render(&self) -> Result<String, DbError> {
        let mut families: Vec<MetricFamily> = COUNTERS.iter().map(|counter| self.counter_family(counter)).collect();
        families.push(self.histogram_family(&EXECUTION_TIME));
        let mut text = Vec::new();
        let failed = |e: String| DbError::new("rendering the metrics", ErrorKind::Permanent, e);
        TextEncoder::new().encode(&families, &mut text).map_err(|e| failed(e.to_string()))?;
        String::from_utf8(text).map_err(|e| failed(e.to_string()))
    }

    fn counter_family(&self, counter: &project::Counter) -> MetricFamily {
        let (label, values) = counter.label.unwrap_or(("", &[""]));
        let metrics = values
            .iter()
            .map(|value| {
                let mut total = Counter::default();
                total.set_value(as_double(self.counter(counter.name, value).into()));
                let mut metric = Metric::default();
                metric.set_counter(total);
                if !label.is_empty() {
                    let mut pair = LabelPair::default();
                    pair.set_name(label.to_owned());
                    pair.set_value((*value).to_owned());
                    metric.set_label(vec![pair]);
                }
                metric
            })
            .collect();
        family(counter.name, counter.help, MetricType::COUNTER, metrics)
    }

    fn histogram_family(&self, declared: &project::Histogram) -> MetricFamily {
        let bucket = |index: usize| self.buckets.get(&(declared.name.to_owned(), index)).copied().unwrap_or_default();
        let (mut cumulative, mut sum, mut buckets) = (0_u64, 0_i128, Vec::new());
        for index in 0..=declared.bounds_micros.len() {
            let (observations, micros) = bucket(index);
            cumulative += u64::try_from(observations).unwrap_or(0);
            sum += micros;
            if let Some(bound) = declared.bounds_micros.get(index) {
                let mut bucket = Bucket::default();
                bucket.set_cumulative_count(cumulative);
                bucket.set_upper_bound(as_double((*bound).into()) / 1e6);
                buckets.push(bucket);
            }
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(cumulative);
        histogram.set_sample_sum(as_double(sum) / 1e6);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        family(declared.name, declared.help, MetricType::HISTOGRAM, vec![metric])
    }
}

#[allow(clippy::as_conversions, reason = "Prometheus values are doubles by definition")]
fn as_double(n: i128) -> f64 {
    n as f64
}

fn family(name: &str, help: &str, metric_type: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(metric_type);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_series_is_exposed_and_buckets_are_cumulative() {
        let mut totals = MetricTotals::default();
        totals.counters.insert(("tasks_completed_total".into(), "failed".into()), 3);
        totals.buckets.insert((EXECUTION_TIME.name.into(), 0), (2, 150_000));
        totals.buckets.insert((EXECUTION_TIME.name.into(), 14), (1, 7_200_000_000));
        let text = totals.render().expect("renders");
        for line in [
            "# TYPE events_applied_total counter",
            "events_applied_total{event_type=\"UserRegistered\"} 0",
            "users_registered_total 0",
            "tasks_completed_total{status=\"failed\"} 3",
            "tasks_execution_time_seconds_bucket{le=\"0.1\"} 2",
            "tasks_execution_time_seconds_bucket{le=\"3600\"} 2",
            "tasks_execution_time_seconds_bucket{le=\"+Inf\"} 3",
            "tasks_execution_time_seconds_sum 7200.15",
            "tasks_execution_time_seconds_count 3",
        ] {
            assert!(text.lines().any(|l| l == line), "`{line}` is missing in\n{text}");
        }
    }
}
