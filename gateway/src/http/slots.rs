//! Room at each place we call: how many calls this runtime may have open there at once.
//!
//! The pool of connections has no bound of its own: a slow upstream would get one connection for each call that
//! waits for it, until one of us has no descriptors left. A call holds a [`Slot`] from before it is sent until its
//! answer's body is dropped; on HTTP/1 that is a connection, on HTTP/2 a stream.
//!
//! A connection of HTTP/2 takes as many streams as its server likes, often 100, and more wait in it unseen. So slots
//! are numbered, the lowest free number first, and every hundred of them have connections of their own.
//!
//! Kept beside the pool and, like it, one per runtime: taking a slot never wakes another core.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places remembered. An installation has a handful; those nobody uses go first when a reload brings others.
const PLACES_MAX: usize = 1_024;

/// Calls that share a connection on HTTP/2: what its standard asks servers to take at least.
const GROUP_CALLS: usize = 100;

/// The right to one call. Dropping it makes room for the next.
#[derive(Debug)]
pub struct Slot {
    number: usize,
    numbers: Arc<Mutex<Numbers>>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    /// The calls that may share a connection with this one have the same.
    pub fn group(&self) -> usize {
        self.number / GROUP_CALLS
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Before the permit, so that there are never more numbers than permits.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).free.push(Reverse(self.number));
    }
}

/// The numbers of a place's slots.
#[derive(Debug, Default)]
struct Numbers {
    free: BinaryHeap<Reverse<usize>>,
    /// The first that was never taken.
    next: usize,
}

impl Numbers {
    fn take(&mut self) -> usize {
        if let Some(Reverse(number)) = self.free.pop() {
            return number;
        }
        self.next += 1;
        self.next - 1
    }
}

/// Room by the place's name. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    places: Arc<Mutex<HashMap<Arc<str>, Place>>>,
}

#[derive(Debug)]
struct Place {
    max: usize,
    room: Arc<Semaphore>,
    numbers: Arc<Mutex<Numbers>>,
}

impl Slots {
    /// A slot, if there is one now.
    pub fn take_now(&self, place: &Arc<str>, max: usize) -> Option<Slot> {
        let (room, numbers) = self.room(place, max);
        Some(slot(room.try_acquire_owned().ok()?, numbers))
    }

    /// A slot, if one gets free within `wait`. Those who wait are served in order.
    pub async fn take(&self, place: &Arc<str>, max: usize, wait: Duration) -> Option<Slot> {
        let (room, numbers) = self.room(place, max);
        let permit = tokio::time::timeout(wait, room.acquire_owned()).await.ok()?;
        Some(slot(permit.ok()?, numbers))
    }

    /// A place whose maximum changed starts afresh: for as long as calls under the old one last, the two add up.
    fn room(&self, place: &Arc<str>, max: usize) -> (Arc<Semaphore>, Arc<Mutex<Numbers>>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = places.get(place).filter(|known| known.max == max) {
            return (Arc::clone(&known.room), Arc::clone(&known.numbers));
        }
        if places.len() >= PLACES_MAX {
            places.retain(|_, place| place.room.available_permits() < place.max);
        }
        let room = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        let numbers = Arc::<Mutex<Numbers>>::default();
        places.insert(Arc::clone(place), Place { max, room: Arc::clone(&room), numbers: Arc::clone(&numbers) });
        (room, numbers)
    }
}

fn slot(permit: OwnedSemaphorePermit, numbers: Arc<Mutex<Numbers>>) -> Slot {
    let number = numbers.lock().unwrap_or_else(PoisonError::into_inner).take();
    Slot { number, numbers, _permit: permit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_place_has_its_own_room() {
        let slots = Slots::default();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let held = slots.take_now(&one, 2).unwrap();
        let _second = slots.take_now(&one, 2).unwrap();
        assert!(slots.take_now(&one, 2).is_none());
        assert!(slots.take(&one, 2, Duration::from_secs(1)).await.is_none());
        assert!(slots.take_now(&other, 1).is_some());
        drop(held);
        assert!(slots.take(&one, 2, Duration::from_secs(1)).await.is_some());
    }

    #[tokio::test]
    async fn a_changed_maximum_holds_at_once() {
        let slots = Slots::default();
        let place: Arc<str> = "place".into();
        let _held = slots.take_now(&place, 1).unwrap();
        assert!(slots.take_now(&place, 1).is_none());
        assert!(slots.take_now(&place, 3).is_some());
    }

    #[test]
    fn the_lowest_number_that_is_free_is_taken_first() {
        let slots = Slots::default();
        let place: Arc<str> = "place".into();
        let mut held: Vec<Slot> = (0..250).filter_map(|_| slots.take_now(&place, 250)).collect();
        assert_eq!(
            held.iter().map(Slot::group).collect::<Vec<_>>(),
            [[0; 100].as_slice(), &[1; 100], &[2; 50]].concat()
        );
        held.drain(120..130);
        held.drain(10..20);
        let groups: Vec<_> = (0..20)
            .filter_map(|_| slots.take_now(&place, 250))
            .map(|slot| {
                let group = slot.group();
                held.push(slot);
                group
            })
            .collect();
        assert_eq!(groups, [[0; 10], [1; 10]].concat());
    }

    #[test]
    fn places_nobody_uses_are_forgotten() {
        let slots = Slots::default();
        let kept: Arc<str> = "kept".into();
        let _held = slots.take_now(&kept, 1).unwrap();
        for number in 0..3 * PLACES_MAX {
            drop(slots.take_now(&number.to_string().into(), 1));
        }
        assert!(slots.places.lock().unwrap().len() <= PLACES_MAX);
        assert!(slots.take_now(&kept, 1).is_none(), "a place in use was forgotten");
    }
}
