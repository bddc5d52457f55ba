//! Memory for what clients send: one budget of the whole process, and of it a share for each tenant at most. Who would go beyond it is
//! told to come again; no request waits with what it holds already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_model::TenantId;

use crate::Problem;

/// What a value costs as a tree, at most, besides its text: a map of one member is a whole node of a B-tree.
pub(crate) const VALUE_COST: usize = 700;

/// The budget.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    /// Of one tenant.
    share_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    by_tenant: HashMap<TenantId, usize>,
}

impl Budget {
    /// Half of it is one tenant's at most.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, share_max: bytes_max.div_ceil(2), taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Numbers that are right after each step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing yet, for a request of a tenant.
    pub(crate) fn open(self: &Arc<Self>, tenant: &TenantId) -> Share {
        Share { budget: self.clone(), tenant: tenant.clone(), bytes: 0 }
    }
}

/// What one request holds of it, until dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    tenant: TenantId,
    bytes: usize,
}

impl Share {
    /// Takes more, or says who uses too much.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let mut taken = self.budget.taken();
        let of_tenant = taken.by_tenant.get(&self.tenant).copied().unwrap_or(0);
        // A request that needs more than there is at all would come again for ever.
        if self.bytes + bytes > self.budget.share_max {
            return Err(Problem::too_costly(self.budget.share_max));
        }
        if of_tenant + bytes > self.budget.share_max {
            return Err(Problem::tenant_busy());
        }
        if taken.bytes + bytes > self.budget.bytes_max {
            return Err(Problem::busy());
        }
        taken.bytes += bytes;
        taken.by_tenant.insert(self.tenant.clone(), of_tenant + bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.budget.taken();
        taken.bytes = taken.bytes.saturating_sub(self.bytes);
        let left = taken.by_tenant.get(&self.tenant).copied().unwrap_or(0).saturating_sub(self.bytes);
        if left == 0 {
            taken.by_tenant.remove(&self.tenant);
        } else {
            taken.by_tenant.insert(self.tenant.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_half_at_most_and_all_comes_back() {
        let budget = Budget::new(100);
        let [one, other] = ["one", "other"].map(|name| TenantId::new(name.to_owned()).expect("a name"));
        let (mut first, mut second) = (budget.open(&one), budget.open(&one));
        assert!(first.grow(40).is_ok() && second.grow(11).is_err() && second.grow(10).is_ok());
        let mut third = budget.open(&other);
        assert!(third.grow(51).is_err() && third.grow(50).is_ok() && budget.open(&other).grow(1).is_err());
        drop((first, third));
        assert_eq!(budget.taken().bytes, 10);
        drop(second);
        assert!(budget.taken().by_tenant.is_empty());
    }
}
