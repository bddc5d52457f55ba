//! Waiting between tries, with jitter, without end: a dependency that is down is waited for (P7).

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// An exponential backoff with jitter, from 50 ms to 5 s. Each trouble gets a new one, which begins with the shortest delay.
#[derive(Debug)]
pub struct Backoff {
    delays: ExponentialBackoff,
}

impl Default for Backoff {
    fn default() -> Self {
        let builder = ExponentialBuilder::new().with_min_delay(DELAY_MIN).with_max_delay(DELAY_MAX);
        Self { delays: builder.with_jitter().without_max_times().build() }
    }
}

impl Backoff {
    /// Waits its turn; `false` when `stop` came first.
    pub async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let delay = self.delays.next().unwrap_or(DELAY_MAX);
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }
}

/// An error and its causes on one line, each said once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
