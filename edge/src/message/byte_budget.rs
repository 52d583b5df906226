//! Bytes that may be held at once for one purpose, over the whole edge.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How many bytes may be held, and how many are.
#[derive(Debug)]
pub struct ByteBudget {
    most: AtomicU64,
    held: AtomicU64,
}

impl ByteBudget {
    /// Room for so many bytes.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most: AtomicU64::new(most), held: AtomicU64::new(0) })
    }

    /// So many from now on. What is held beyond that stays until it is given back.
    pub fn resize(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// Whether fewer are held than may be.
    pub fn has_room(&self) -> bool {
        self.held() < self.most()
    }

    /// Counts bytes that are held whether there is room for them or not.
    pub fn charge(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what [`charge`](Self::charge) has counted.
    pub fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Nothing yet, to grow within the budget.
    pub fn share(self: &Arc<Self>) -> ByteShare {
        ByteShare { budget: Arc::clone(self), bytes: 0 }
    }
}

/// Somebody's part of a budget. Dropped, it is given back.
#[derive(Debug)]
pub struct ByteShare {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl ByteShare {
    /// Takes so many bytes more, where there is room for them.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let most = self.budget.most();
        let more = |held: u64| held.checked_add(bytes).filter(|held| *held <= most);
        let grown = self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Gives back what it has.
    pub fn give_back(&mut self) {
        self.budget.give_back(mem::take(&mut self.bytes));
    }
}

impl Drop for ByteShare {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_within_the_budget_and_give_back_what_they_have() {
        let budget = ByteBudget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.grow(6) && other.grow(4) && !other.grow(1));
        assert!(!budget.has_room());
        drop(one);
        assert!(other.grow(6) && !other.grow(1));
        budget.resize(5);
        drop(other);
        assert_eq!(budget.held(), 0);
        assert!(!budget.share().grow(6), "the budget is smaller now");
    }
}
