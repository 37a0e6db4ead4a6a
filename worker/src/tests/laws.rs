//! What holds in the small world, whatever happens.

use proptest::prelude::*;

use super::{Event, PREFETCH, WORKERS, World};
use crate::validate::BLAME;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..WORKERS).prop_map(Event::Deliver),
        8 => (0..WORKERS).prop_map(Event::Begin),
        16 => (0..WORKERS, 0..8_usize).prop_map(|(worker, run)| Event::Advance(worker, run)),
        2 => (0..WORKERS).prop_map(Event::Disconnect),
        2 => (0..WORKERS).prop_map(Event::Kill),
        1 => Just(Event::Forget),
        1 => (0..32_usize).prop_map(Event::PublishAgain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_is_lost_whatever_happens(
        poison in proptest::collection::vec(prop::bool::weighted(0.2), 1..12),
        events in proptest::collection::vec(event(), 0..400),
    ) {
        let mut world = World::new(&poison);
        for event in &events {
            world.happen(event);
            world.check();
        }
        world.rest();
        for job in &world.jobs {
            prop_assert!(job.replies > 0);
            prop_assert!(!job.poison || job.called_poison);
            // It ends as many workers as it may, and as many again each time the store forgets it.
            let most = (world.rules.max_returns + 1) * (1 + world.forgotten);
            prop_assert!(job.killed <= most, "{} workers killed by one job", job.killed);
        }
        prop_assert!(world.workers.iter().all(|worker| worker.table.len() == 0));
    }
}

/// Whoever waits beside a job that kills comes back as often as it does.
#[test]
fn bystanders_of_a_killer_are_answered() {
    for position in 0..PREFETCH {
        let mut poison = [false; 2 * PREFETCH];
        poison[position] = true;
        let mut world = World::new(&poison);
        world.rest();
        for (index, job) in world.jobs.iter().enumerate() {
            assert_eq!(job.called_poison, index == position);
        }
        assert_eq!(world.jobs[position].killed, world.rules.max_returns + 1);
    }
}

/// Orderly stops, lost connections and deaths after the evaluation say nothing against a job: where a
/// worker survives it each time, it takes eight times as many to be called poison.
#[test]
fn who_is_survived_is_hardly_blamed() {
    let survivals = u64::from(BLAME) * 2;
    for (deadly, most) in [(true, 2), (false, survivals)] {
        let mut world = World::new(&[false]);
        let mut begun_alone = 0;
        while !world.jobs[0].called_poison {
            world.deliver(0);
            world.begin(0);
            begun_alone += u64::from(world.workers[0].runs.iter().any(|run| run.blamed));
            if world.workers[0].runs.iter().any(|run| run.accused) {
                world.rest();
            } else if deadly {
                world.kill(0);
            } else {
                world.advance(0, 0);
                world.kill(0);
            }
        }
        assert_eq!(begun_alone, most);
    }
}
