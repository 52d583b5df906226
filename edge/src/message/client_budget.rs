//! Bytes that may be held at once for one purpose, over the whole edge and by each client.

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use super::byte_budget::ByteBudget;

/// A budget of which one client has a part at most. Asked by those only who hold more than is nobody's business.
#[derive(Debug)]
pub struct ClientBudget {
    all: Arc<ByteBudget>,
    /// What each client holds, by a number of its own: nobody is remembered who holds nothing.
    held: Mutex<HashMap<u128, u64, RandomState>>,
}

impl ClientBudget {
    /// Room for so many bytes.
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { all: ByteBudget::new(most), held: Mutex::default() })
    }

    /// So many from now on. What is held beyond that stays until it is given back.
    pub fn resize(&self, most: u64) {
        self.all.resize(most);
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.all.held()
    }

    /// Whether this client may hold more: `None` is many clients, with all that there is.
    pub fn has_room(&self, client: Option<u128>) -> bool {
        let held = client.map_or(0, |client| self.held.lock().get(&client).copied().unwrap_or_default());
        self.all.has_room() && held < self.all.most() / PARTS
    }

    /// Counts bytes that are held whether there is room for them or not.
    pub fn charge(&self, client: Option<u128>, bytes: u64) {
        self.all.charge(bytes);
        if let Some(client) = client {
            *self.held.lock().entry(client).or_default() += bytes;
        }
    }

    /// Gives back what [`charge`](Self::charge) has counted.
    pub fn give_back(&self, client: Option<u128>, bytes: u64) {
        self.all.give_back(bytes);
        let Some(client) = client else { return };
        let mut all = self.held.lock();
        if let Some(held) = all.get_mut(&client) {
            *held -= bytes;
            if *held == 0 {
                all.remove(&client);
            }
        }
    }
}

/// One client has one of so many.
const PARTS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_an_eighth_and_others_have_the_rest() {
        let budget = ClientBudget::new(80);
        budget.charge(Some(1), 10);
        assert!(!budget.has_room(Some(1)) && budget.has_room(Some(2)) && budget.has_room(None));
        budget.charge(None, 70);
        assert!(!budget.has_room(Some(2)) && !budget.has_room(None));
        budget.give_back(Some(1), 10);
        budget.give_back(None, 70);
        assert_eq!(budget.held(), 0);
        assert!(budget.held.lock().is_empty() && budget.has_room(Some(1)));
    }
}
