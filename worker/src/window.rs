//! The deliveries that wait for a slot, and which of them is next.

use cipherscore_common::EvaluationKeyId;
use cipherscore_common::broker::Delivery;
use cipherscore_common::message::headers;
use cipherscore_common::topology::Lane;

use crate::validate::Rules;

/// How often a delivery is overtaken before it goes first.
const MOST_OVERTAKEN: u32 = 16;
/// Bodies that wait, in bytes, from which on nothing more is taken.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Deliveries that have arrived and not begun; the broker's prefetch bounds their number.
#[derive(Default)]
pub(crate) struct Window {
    /// In the order of their arrival.
    waiting: Vec<Waiting>,
    /// Of all bodies.
    bytes: usize,
}

struct Waiting {
    delivery: Delivery,
    lane: Lane,
    key: Option<EvaluationKeyId>,
    /// Whether it runs alone.
    suspicious: bool,
    overtaken: u32,
}

impl Window {
    pub(crate) fn push(&mut self, delivery: Delivery, rules: &Rules) {
        // Only for the order: what is not understood here is refused when its turn comes.
        let lane = delivery.message.text(headers::LANE).and_then(|lane| lane.parse().ok());
        let key = delivery.message.text(headers::KEY_ID).and_then(|id| id.parse().ok());
        let lane = lane.unwrap_or_default();
        let suspicious = rules.is_suspicious(rules.returned(&delivery.message, delivery.returned));
        self.bytes += delivery.message.body.len();
        self.waiting.push(Waiting { delivery, lane, key, suspicious, overtaken: 0 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more may arrive; what does not is kept by the broker, or in the connection's bound.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < MAX_WAITING_BYTES
    }

    /// How many slots the next one needs, of all that there are.
    pub(crate) fn slots_of_next(&self, all: usize, is_here: IsHere<'_>) -> usize {
        let next = self.next(is_here).map(|index| &self.waiting[index]);
        match next.is_some_and(|next| next.suspicious) {
            true => all,
            false => 1,
        }
    }

    /// Takes the next one: urgent ones first, then those whose key is here, then the oldest. None if
    /// `held` slots are too few for it: which one is next may change while slots are waited for.
    pub(crate) fn take(
        &mut self,
        held: usize,
        all: usize,
        is_here: IsHere<'_>,
    ) -> Option<Delivery> {
        let index = self.next(is_here)?;
        if self.waiting[index].suspicious && held < all {
            return None;
        }
        self.waiting[..index].iter_mut().for_each(|earlier| earlier.overtaken += 1);
        let delivery = self.waiting.remove(index).delivery;
        self.bytes -= delivery.message.body.len();
        Some(delivery)
    }

    /// Takes all.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Delivery> {
        self.bytes = 0;
        self.waiting.drain(..).map(|waiting| waiting.delivery)
    }

    fn next(&self, is_here: IsHere<'_>) -> Option<usize> {
        let starved = self.waiting.iter().position(|one| one.overtaken >= MOST_OVERTAKEN);
        starved.or_else(|| {
            let rank = |one: &Waiting| {
                let tenant = || one.delivery.message.text(headers::TENANT).unwrap_or_default();
                let waits = one.key.is_some_and(|key| !is_here(tenant(), key));
                (one.lane, waits)
            };
            (0..self.waiting.len()).min_by_key(|index| rank(&self.waiting[*index]))
        })
    }
}

/// Whether a tenant's key is in the cache.
pub(crate) type IsHere<'a> = &'a dyn Fn(&str, EvaluationKeyId) -> bool;

#[cfg(test)]
mod tests {
    use cipherscore_common::Digest;
    use cipherscore_common::broker::{Disposition, Settle, Settled, Settlement, Settling};
    use cipherscore_common::message::Message;

    use super::*;
    use crate::validate::Tenants;

    fn rules() -> Rules {
        Rules {
            tenants: Tenants::ByUser,
            worker_users: vec!["worker".into()],
            max_job_rows: 1,
            max_job_bytes: 1,
            max_returns: 3,
        }
    }

    struct Nobody;

    impl Settle for Nobody {
        fn settle(self: Box<Self>, _: Disposition) -> Settling {
            Box::pin(async { Ok(Settled::Told) })
        }
    }

    fn delivery(name: &str, lane: Lane, key: Option<u8>, returned: u32) -> Delivery {
        let mut message = Message { message_id: Some(name.into()), ..Message::default() };
        message.set(headers::LANE, lane.to_string());
        message.set(headers::TENANT, "a");
        if let Some(key) = key {
            message.set(headers::KEY_ID, Digest::of(&[key]).to_string());
        }
        Delivery { message, queue: String::new(), returned, settlement: Settlement::new(Nobody) }
    }

    fn order(window: &mut Window, is_here: IsHere<'_>) -> String {
        let name = |delivery: Delivery| delivery.message.message_id.unwrap_or_default();
        std::iter::from_fn(|| window.take(1, 1, is_here).map(name)).collect()
    }

    #[test]
    fn urgent_jobs_come_first_then_those_whose_key_is_here() {
        let here = EvaluationKeyId::new(Digest::of(&[1]));
        let is_here = |tenant: &str, key| tenant == "a" && key == here;
        let mut window = Window::default();
        window.push(delivery("a", Lane::Normal, Some(2), 0), &rules());
        window.push(delivery("b", Lane::Normal, Some(1), 0), &rules());
        window.push(delivery("c", Lane::High, Some(2), 0), &rules());
        window.push(delivery("d", Lane::Normal, None, 0), &rules());
        window.push(delivery("e", Lane::Normal, Some(1), 0), &rules());
        assert_eq!(order(&mut window, &is_here), "cbdea");
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        let is_here = |_: &str, key| key == EvaluationKeyId::new(Digest::of(&[1]));
        let mut window = Window::default();
        window.push(delivery("old", Lane::Normal, Some(2), 0), &rules());
        for taken in 0.. {
            window.push(delivery("new", Lane::Normal, Some(1), 0), &rules());
            if window.take(1, 1, &is_here).unwrap().message.message_id.as_deref() == Some("old") {
                assert_eq!(taken, MOST_OVERTAKEN);
                break;
            }
        }
    }

    #[test]
    fn what_came_back_twice_runs_alone() {
        let is_here = |_: &str, _| false;
        let mut window = Window::default();
        window.push(delivery("a", Lane::Normal, None, 2), &rules());
        assert_eq!(window.slots_of_next(8, &is_here), 8);
        window.push(delivery("b", Lane::High, None, 1), &rules());
        assert_eq!(window.slots_of_next(8, &is_here), 1);
        // A tenant cannot claim it, a worker can.
        for (user, slots) in [("alice", 1), ("worker", 8)] {
            let mut claims = delivery("c", Lane::High, None, 0);
            claims.message.user_id = Some(user.into());
            claims.message.set(headers::RETURNED, 2_u32);
            let mut window = Window::default();
            window.push(claims, &rules());
            assert_eq!(window.slots_of_next(8, &is_here), slots, "{user}");
        }
    }
}
