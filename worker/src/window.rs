//! The deliveries that wait for a slot, and which of them is next.

use std::sync::Arc;

use cipherscore_common::EvaluationKeyId;
use cipherscore_common::broker::Delivery;
use cipherscore_common::message::headers;
use cipherscore_common::topology::Lane;

use crate::slots::{Need, Slot, Slots};
use crate::validate::Rules;

/// How often a delivery is overtaken, for a slot that it could have had, before it goes first.
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
    need: Need,
    overtaken: u32,
}

impl Window {
    /// Adds a delivery. Whether it is quick is the word of what evaluates it, never its publisher's.
    pub(crate) fn push(&mut self, delivery: Delivery, is_quick: bool, rules: &Rules) {
        // Only for the order: what is not understood here is refused when its turn comes.
        let lane = delivery.message.text(headers::LANE).and_then(|lane| lane.parse().ok());
        let key = delivery.message.text(headers::KEY_ID).and_then(|id| id.parse().ok());
        let lane = lane.unwrap_or_default();
        let returned = rules.returned(&delivery.message, delivery.returned);
        let need = match rules.is_suspicious(returned) {
            true => Need::Alone,
            false if is_quick => Need::Quick,
            false => Need::Ordinary,
        };
        self.bytes += delivery.message.body.len();
        self.waiting.push(Waiting { delivery, lane, key, need, overtaken: 0 });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more may arrive; what does not is kept by the broker, or in the connection's bound.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < MAX_WAITING_BYTES
    }

    /// Takes the next one for which there is a slot: urgent ones first, then those whose key is here,
    /// then the oldest. Quick and long jobs do not wait for each other's slots. What runs alone does:
    /// when it is next, nothing else begins before it.
    pub(crate) fn take(
        &mut self,
        slots: &Arc<Slots>,
        is_here: IsHere<'_>,
    ) -> Option<(Delivery, Slot)> {
        let first = self.next(is_here, |_| true)?;
        let need = self.waiting[first].need;
        let other = match need {
            Need::Quick => Some(Need::Ordinary),
            Need::Ordinary => Some(Need::Quick),
            Need::Alone => None,
        };
        let (index, slot) = match (slots.take(need), other) {
            (Some(slot), _) => (first, slot),
            (None, None) => return None,
            (None, Some(other)) => (self.next(is_here, |need| need == other)?, slots.take(other)?),
        };
        for earlier in &mut self.waiting[..index] {
            earlier.overtaken += u32::from(slot.suits(earlier.need));
        }
        let delivery = self.waiting.remove(index).delivery;
        self.bytes -= delivery.message.body.len();
        Some((delivery, slot))
    }

    /// Takes all.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Delivery> {
        self.bytes = 0;
        self.waiting.drain(..).map(|waiting| waiting.delivery)
    }

    /// The next one of those that need such slots.
    fn next(&self, is_here: IsHere<'_>, needs: impl Fn(Need) -> bool) -> Option<usize> {
        let all = || self.waiting.iter().enumerate().filter(|(_, one)| needs(one.need));
        let starved = all().find(|(_, one)| one.overtaken >= MOST_OVERTAKEN);
        let rank = |one: &Waiting| {
            let tenant = || one.delivery.message.text(headers::TENANT).unwrap_or_default();
            let waits = one.key.is_some_and(|key| !is_here(tenant(), key));
            (one.lane, waits)
        };
        let next = starved.or_else(|| all().min_by_key(|(_, one)| rank(one)));
        next.map(|(index, _)| index)
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
            gateway_users: Vec::new(),
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

    fn name(delivery: &Delivery) -> String {
        delivery.message.message_id.clone().unwrap_or_default()
    }

    /// The name of the next one, whose slot is given back at once.
    fn next(window: &mut Window, is_here: IsHere<'_>) -> Option<String> {
        window.take(&Arc::new(Slots::new(1)), is_here).map(|(delivery, _)| name(&delivery))
    }

    fn order(window: &mut Window, is_here: IsHere<'_>) -> String {
        std::iter::from_fn(|| next(window, is_here)).collect()
    }

    #[test]
    fn urgent_jobs_come_first_then_those_whose_key_is_here() {
        let here = EvaluationKeyId::new(Digest::of(&[1]));
        let is_here = |tenant: &str, key| tenant == "a" && key == here;
        let mut window = Window::default();
        window.push(delivery("a", Lane::Normal, Some(2), 0), false, &rules());
        window.push(delivery("b", Lane::Normal, Some(1), 0), false, &rules());
        window.push(delivery("c", Lane::High, Some(2), 0), false, &rules());
        window.push(delivery("d", Lane::Normal, None, 0), false, &rules());
        window.push(delivery("e", Lane::Normal, Some(1), 0), false, &rules());
        assert_eq!(order(&mut window, &is_here), "cbdea");
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        let is_here = |_: &str, key| key == EvaluationKeyId::new(Digest::of(&[1]));
        let mut window = Window::default();
        window.push(delivery("old", Lane::Normal, Some(2), 0), false, &rules());
        for taken in 0.. {
            window.push(delivery("new", Lane::Normal, Some(1), 0), false, &rules());
            if next(&mut window, &is_here).as_deref() == Some("old") {
                assert_eq!(taken, MOST_OVERTAKEN);
                break;
            }
        }
    }

    #[test]
    fn quick_jobs_pass_long_ones_that_wait_and_do_not_keep_them_from_their_slots() {
        let is_here = |_: &str, _| false;
        let slots = Arc::new(Slots::new(1));
        let mut window = Window::default();
        for name in ["long", "longer"] {
            window.push(delivery(name, Lane::Normal, None, 0), false, &rules());
        }
        let (_, first) = window.take(&slots, &is_here).unwrap();
        assert!(window.take(&slots, &is_here).is_none());
        for number in 0..=MOST_OVERTAKEN {
            let quick = format!("quick {number}");
            window.push(delivery(&quick, Lane::Normal, None, 0), true, &rules());
            let (taken, reserved) = window.take(&slots, &is_here).unwrap();
            assert_eq!(name(&taken), quick);
            window.push(delivery("late", Lane::Normal, None, 0), true, &rules());
            assert!(window.take(&slots, &is_here).is_none(), "there is one reserved slot");
            drop(reserved);
            assert_eq!(name(&window.take(&slots, &is_here).unwrap().0), "late");
        }
        // The reserved slot was never one for a long job, so that nobody has overtaken it: what is
        // urgent goes before it, among long jobs too.
        window.push(delivery("urgent", Lane::High, None, 0), false, &rules());
        drop(first);
        assert_eq!(name(&window.take(&slots, &is_here).unwrap().0), "urgent");
        // An ordinary slot is, and whatever quick jobs wait, it has one in the end.
        for _ in 1..MOST_OVERTAKEN {
            window.push(delivery("quick", Lane::High, None, 0), true, &rules());
            assert_eq!(name(&window.take(&slots, &is_here).unwrap().0), "quick");
        }
        window.push(delivery("quick", Lane::High, None, 0), true, &rules());
        assert_eq!(name(&window.take(&slots, &is_here).unwrap().0), "longer");
    }

    #[test]
    fn what_came_back_twice_runs_alone() {
        let is_here = |_: &str, _| false;
        let slots = Arc::new(Slots::new(8));
        let mut window = Window::default();
        window.push(delivery("a", Lane::Normal, None, 2), true, &rules());
        let other = slots.take(Need::Ordinary);
        assert!(window.take(&slots, &is_here).is_none());
        window.push(delivery("b", Lane::High, None, 1), false, &rules());
        assert_eq!(window.take(&slots, &is_here).map(|(one, _)| name(&one)), Some("b".into()));
        window.push(delivery("c", Lane::Normal, None, 0), true, &rules());
        assert!(window.take(&slots, &is_here).is_none(), "it is next, and nothing passes it");
        drop(other);
        assert_eq!(order(&mut window, &is_here), "ac");
        // A tenant cannot claim it, a worker can.
        let other = slots.take(Need::Ordinary);
        for (user, begins) in [("alice", true), ("worker", false)] {
            let mut claims = delivery("c", Lane::High, None, 0);
            claims.message.user_id = Some(user.into());
            claims.message.set(headers::RETURNED, 2_u32);
            let mut window = Window::default();
            window.push(claims, false, &rules());
            assert_eq!(window.take(&slots, &is_here).is_some(), begins, "{user}");
        }
        drop(other);
    }
}
