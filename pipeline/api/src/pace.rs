//! How fast large bodies of one tenant are read, and how many at once. What waits is not read, so that it costs the client's memory
//! and no processor time: beside a tenant that sends as much as the machine can copy, others would wait.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_model::TenantId;

/// Large bodies of a tenant that are read at once: as many as its share of the budget holds in the default settings.
const TURNS: usize = 4;

/// The pace of each tenant.
#[derive(Debug)]
pub(crate) struct Pace {
    /// KiB per second; a second's worth at once.
    rates: DefaultKeyedRateLimiter<TenantId>,
    burst: NonZeroU32,
    clock: DefaultClock,
    turns: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: usize) -> Self {
        let burst = u32::try_from(bytes_per_second >> 10).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self {
            rates: RateLimiter::keyed(Quota::per_second(burst)),
            burst,
            clock: DefaultClock::default(),
            turns: Mutex::default(),
        }
    }

    /// Waits until another large body of this tenant may be read.
    pub(crate) async fn turn(&self, tenant: &TenantId) -> Option<OwnedSemaphorePermit> {
        let turns = {
            // A map that is right after each step.
            let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let there = all.get(tenant).and_then(Weak::upgrade);
            there.unwrap_or_else(|| {
                all.retain(|_, turns| turns.strong_count() > 0);
                let turns = Arc::new(Semaphore::new(TURNS));
                all.insert(tenant.clone(), Arc::downgrade(&turns));
                turns
            })
        };
        turns.acquire_owned().await.ok()
    }

    /// Counts what was read, and waits as long as it was too much.
    pub(crate) async fn read(&self, tenant: &TenantId, bytes: usize) {
        let units = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        // More than the burst would never be let through.
        let Some(units) = NonZeroU32::new(units.min(self.burst.get())) else { return };
        while let Ok(Err(wait)) = self.rates.check_key_n(tenant, units) {
            tokio::time::sleep(wait.wait_time_from(self.clock.now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn one_tenant_waits_and_another_does_not() {
        let pace = Pace::new(1 << 20);
        let [one, other] = ["one", "other"].map(|name| TenantId::new(name.to_owned()).expect("a name"));
        let mut turns = Vec::new();
        for _ in 0..TURNS {
            turns.push(pace.turn(&one).await);
        }
        assert!(tokio::time::timeout(Duration::from_millis(50), pace.turn(&one)).await.is_err());
        assert!(pace.turn(&other).await.is_some());
        turns.pop();
        assert!(pace.turn(&one).await.is_some());

        let started = Instant::now();
        pace.read(&one, 1 << 20).await;
        pace.read(&other, 1 << 20).await;
        pace.read(&one, 256 << 10).await;
        // At least what the rate says; how much more is the machine's.
        assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    }
}
