//! The tables of a circuit, and what bootstraps read in them.

use std::collections::HashMap;

use super::index_of;

/// A table among those that are equal up to a turn.
#[derive(Clone, Copy)]
pub(super) struct Turned {
    /// Which of the distinct tables.
    pub(super) table: u32,
    /// None for the table of zeros.
    pub(super) class: Option<u32>,
    /// The table's entry `i` is the class's entry `i + turn`, modulo 2N.
    pub(super) turn: usize,
}

/// The tables of a circuit, equal ones merged.
pub(super) struct Tables {
    pub(super) distinct: Vec<Vec<u64>>,
    pub(super) images: Vec<Turned>,
}

impl Tables {
    pub(super) fn of(tables: &[Vec<u64>]) -> Self {
        let mut known: HashMap<&[u64], Turned> = HashMap::new();
        let mut classes: HashMap<Vec<u64>, u32> = HashMap::new();
        let mut distinct = Vec::new();
        let mut images = Vec::with_capacity(tables.len());
        for table in tables {
            images.push(*known.entry(table).or_insert_with(|| {
                distinct.push(table.clone());
                let index = index_of(distinct.len() - 1);
                if table.iter().all(|&entry| entry == 0) {
                    return Turned { table: index, class: None, turn: 0 };
                }
                let least = least_turn(table);
                let next = index_of(classes.len());
                let class = (0..table.len()).map(|entry| turned(table, least + entry)).collect();
                let class = Some(*classes.entry(class).or_insert(next));
                let turn = (2 * table.len() - least) % (2 * table.len());
                Turned { table: index, class, turn }
            }));
        }
        Self { distinct, images }
    }
}

/// Entry `index` of the table continued to 2N entries, its second half being its first negated,
/// and then repeated.
pub(super) fn turned(table: &[u64], index: usize) -> u64 {
    let index = index % (2 * table.len());
    match index.checked_sub(table.len()) {
        None => table[index],
        Some(beyond) => table[beyond].wrapping_neg(),
    }
}

/// From which entry on the continued table is least in lexicographic order.
///
/// Two candidates are compared; the one that loses after `same` equal entries is not least, nor are
/// the `same` candidates behind it, so that the time is linear. A table that is not zero has no
/// period below 2N, since half of 2N turns negates it and 2N is a power of two: only one is least.
fn least_turn(table: &[u64]) -> usize {
    let length = 2 * table.len();
    let (mut one, mut other, mut same) = (0, 1, 0);
    while one < length && other < length && same < length {
        let (a, b) = (turned(table, one + same), turned(table, other + same));
        if a == b {
            same += 1;
            continue;
        }
        if a > b {
            one += same + 1;
        } else {
            other += same + 1;
        }
        if one == other {
            other += 1;
        }
        same = 0;
    }
    one.min(other)
}

/// Bits of a phase below one of the 2N entries of a continued table.
pub(super) fn entry_bits(polynomial_size: usize) -> u32 {
    63 - polynomial_size.ilog2()
}

/// Which of the 2N entries a bootstrap of a trivial ciphertext of phase `body` reads: the body is
/// rounded to the 2N-th roots of unity.
pub(super) fn place(table: &[u64], body: u64) -> usize {
    let entry_bits = entry_bits(table.len());
    let rounded = body.wrapping_add(1 << (entry_bits - 1)) >> entry_bits;
    // At most 2N - 1, and tables have N words in memory.
    usize::try_from(rounded).expect("fits an index")
}

/// What a bootstrap of a trivial ciphertext of phase `body` returns, exactly: the accumulator's
/// polynomial is read at that power of X, modulo X^N + 1.
pub(super) fn lookup(table: &[u64], body: u64) -> u64 {
    turned(table, place(table, body))
}

/// For each of the 2N entries of the continued table, how many entries away the nearest one of
/// other content is; 2N, if there is none.
pub(super) fn margins(table: &[u64]) -> Vec<u32> {
    let entries = 2 * table.len();
    let most = index_of(entries);
    // The first time round finds what the second one begins with.
    let runs = |entry_at: &dyn Fn(usize) -> usize| -> Vec<u32> {
        let mut last = (turned(table, entry_at(0)), most);
        let runs = (0..2 * entries).map(|index| {
            let entry = turned(table, entry_at(index));
            let run = if entry == last.0 { most.min(last.1 + 1) } else { 1 };
            last = (entry, run);
            run
        });
        runs.skip(entries).collect()
    };
    let behind = runs(&|index| index);
    let ahead = runs(&|index| 2 * entries - 1 - index);
    behind.into_iter().zip(ahead.into_iter().rev()).map(|(one, other)| one.min(other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_are_distances_to_the_nearest_other_entry() {
        for table in [vec![1, 1, 1, 2], vec![5; 4], vec![0, 0, 3, 0], vec![1 << 63; 4]] {
            let entries = 2 * table.len();
            let slow = (0..entries).map(|entry| {
                let differs = |&distance: &usize| {
                    let sides = [entry + distance, entry + 2 * entries - distance];
                    sides.iter().any(|&side| turned(&table, side) != turned(&table, entry))
                };
                index_of((1..entries).find(differs).unwrap_or(entries))
            });
            assert_eq!(margins(&table), Vec::from_iter(slow), "{table:?}");
        }
    }
}
