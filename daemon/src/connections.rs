//! How many connections may wait for their peers at the same time, in all and for one user.
//!
//! uid 0 is bounded by its own number alone: whoever fills the daemon with connections does not lock the administrator
//! out. And an eighth of the places is for users who have none: a few users who take all they can do not lock out the
//! others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    most: usize,
    most_per_uid: usize,
    taken: usize,
    taken_by: HashMap<u32, usize>,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    connections: Connections,
    uid: u32,
}

impl Connections {
    /// So many places in all and for one user.
    #[must_use]
    pub fn new(most: usize, most_per_uid: usize) -> Connections {
        Connections(Arc::new(Mutex::new(Places { most, most_per_uid, taken: 0, taken_by: HashMap::new() })))
    }

    /// Takes a place for `uid`, if there is one.
    #[must_use]
    pub fn admit(&self, uid: u32) -> Option<Permit> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = places.taken_by.get(&uid).copied().unwrap_or(0);
        let most = if own == 0 { places.most } else { places.most - places.most / 8 };
        if own >= places.most_per_uid || (places.taken >= most && uid != 0) {
            return None;
        }
        places.taken += 1;
        places.taken_by.insert(uid, own + 1);
        Some(Permit { connections: self.clone(), uid })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut places = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken -= 1;
        match places.taken_by.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(places.taken_by.remove(&self.uid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    #[test]
    fn a_user_has_a_bound_of_its_own_and_all_have_one_together() {
        let connections = Connections::new(3, 2);
        let first = connections.admit(1000).unwrap();
        let _second = connections.admit(1000).unwrap();
        assert!(connections.admit(1000).is_none());
        let _third = connections.admit(1001).unwrap();
        assert!(connections.admit(1002).is_none());
        drop(first);
        assert!(connections.admit(1002).is_some());
    }

    #[test]
    fn users_who_take_all_they_can_leave_an_eighth_for_those_who_have_none() {
        let connections = Connections::new(16, 12);
        let greedy: Vec<_> = [1000, 1001]
            .into_iter()
            .flat_map(|uid| iter::from_fn(|| connections.admit(uid)).collect::<Vec<_>>())
            .collect();
        assert_eq!(greedy.len(), 14);
        let _first = connections.admit(1002).unwrap();
        assert!(connections.admit(1002).is_none());
        let _second = connections.admit(1003).unwrap();
        assert!(connections.admit(1004).is_none());
    }

    #[test]
    fn root_gets_a_place_when_the_others_have_taken_all() {
        let connections = Connections::new(1, 2);
        let _other = connections.admit(1000).unwrap();
        assert!(connections.admit(0).is_some());
    }
}
