//! What one tenant and one client may use, so that none can use up what the others need.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use weir_model::TenantId;

use crate::Problem;
use crate::budget::Budget;
use crate::pace::Pace;

/// The limits, and how far each tenant is from its own.
pub struct Limits {
    /// Connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// A client has this long to send a request's head, and to be idle between two.
    pub header_timeout: Duration,
    /// A client has this long to send a request's body, and to take the next piece of an answer.
    pub body_timeout: Duration,
    /// Connections of one address at once; more are closed.
    pub connections_of_address_max: usize,
    pub(crate) budget: Arc<Budget>,
    pub(crate) pace: Pace,
    rates: DefaultKeyedRateLimiter<TenantId>,
    clock: DefaultClock,
}

impl Limits {
    /// `requests_per_second` of one tenant, of which one second's worth may come at once.
    #[must_use]
    pub fn new(
        requests_per_second: NonZeroU32,
        connections_max: usize,
        header_timeout: Duration,
        body_timeout: Duration,
        bodies_bytes_max: usize,
        body_bytes_per_second: usize,
    ) -> Self {
        let rates = RateLimiter::keyed(Quota::per_second(requests_per_second));
        Self {
            connections_max,
            header_timeout,
            body_timeout,
            connections_of_address_max: connections_max.div_ceil(2),
            budget: Budget::new(bodies_bytes_max),
            pace: Pace::new(body_bytes_per_second),
            rates,
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request of a tenant.
    pub(crate) fn take(&self, tenant: &TenantId) -> Result<(), Problem> {
        self.rates.check_key(tenant).map_err(|wait| Problem::too_many(wait.wait_time_from(self.clock.now())))
    }
}
