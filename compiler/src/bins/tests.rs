use super::*;
use crate::lower::Column;
use crate::trained::{Feature, Tree};

/// Numbers from 0 to 1 that are the same in every run.
fn numbers(mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        f64::from(u32::try_from(seed >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

fn feature(single_precision: bool) -> Feature {
    Feature::new("x", single_precision)
}

/// Values as they are in practice: skewed, and with few decimals.
fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut next = numbers(seed);
    (0..count).map(|_| (next().powi(2) * 10_000.0).round() / 100.0).collect()
}

fn stumps(thresholds: &[f64]) -> Ensemble {
    let stump = |&threshold: &f64| {
        let values = ValueSet(vec![(f64::NEG_INFINITY, threshold)]);
        let root =
            TreeNode::Split { feature: 0, values, missing_inside: true, inside: 1, outside: 2 };
        Tree { nodes: vec![root, TreeNode::Leaf(vec![(0, threshold)]), TreeNode::Leaf(vec![])] }
    };
    Ensemble { base: vec![0.0], trees: thresholds.iter().map(stump).collect() }
}

fn columns(thresholds: &[f64]) -> Vec<Column> {
    let column = |&t: &f64| Column {
        feature: 0,
        values: ValueSet(vec![(f64::NEG_INFINITY, t)]),
        missing: true,
    };
    thresholds.iter().map(column).collect()
}

/// Thresholds as a trainer of single precision finds them in its rows: the middle of neighbours,
/// where the rows are.
fn trained(rows: &Calibration, count: usize, seed: u64, and_next: bool) -> Vec<f64> {
    let mut next = numbers(seed);
    let mut found = Vec::new();
    while found.len() < count {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (next() * rows.values(0).len() as f64) as usize;
        let Some((below, above)) = rows.gap(0, rank) else { continue };
        #[allow(clippy::cast_possible_truncation)]
        let middle = f64::midpoint(below, above) as f32;
        let threshold = f64::from(if and_next { middle.next_up() } else { middle });
        if !found.contains(&threshold) {
            found.push(threshold);
        }
    }
    found
}

/// Kolmogorov's and Smirnov's distance of two samples.
fn distance(a: &mut [f64], b: &mut [f64]) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let share = |of: &[f64], x: f64| of.partition_point(|&y| y <= x) as f64 / of.len() as f64;
    a.iter().chain(b.iter()).map(|&x| (share(a, x) - share(b, x)).abs()).fold(0.0, f64::max)
}

/// Tells decoys from real thresholds by where they are, how many bits they have, and how far their
/// neighbours are, over many models; and must not succeed.
#[test]
fn decoys_cannot_be_told_from_real_thresholds() {
    for and_next in [false, true] {
        let statistics: [fn(f64, &Calibration) -> f64; 3] = [
            |t, rows| rows.rank(0, t) as f64,
            |t, _| f64::from(u8::try_from(t.to_bits().trailing_zeros()).unwrap()),
            |t, rows| {
                let nearest = rows.values(0).iter().map(|value| (value - t).abs());
                nearest.fold(f64::INFINITY, f64::min)
            },
        ];
        for (index, statistic) in statistics.into_iter().enumerate() {
            let (mut real, mut fake) = (Vec::new(), Vec::new());
            for seed in 0..60 {
                let rows: Vec<_> = values(800, seed).into_iter().map(|x| vec![x]).collect();
                let features = [feature(true)];
                let rows = Calibration::of(&rows, &features);
                let thresholds = trained(&rows, 16, seed + 1000, and_next);
                let decoys = pad(&stumps(&thresholds), &features, &columns(&thresholds), &rows);
                assert_eq!(decoys.len(), 15);
                real.extend(thresholds.iter().map(|&t| statistic(t, &rows)));
                let decoys = decoys.iter().map(|column| column.threshold().unwrap());
                fake.extend(decoys.map(|t| statistic(t, &rows)));
            }
            // Samples of 960 and 900 of one distribution are further apart once in 10^4.
            let apart = distance(&mut real, &mut fake);
            assert!(apart < 0.105, "statistic {index}, {and_next}: {apart}");
        }
    }
}

#[test]
fn decoys_depend_on_the_model_alone_and_repeat_no_threshold() {
    let rows: Vec<_> = values(500, 3).into_iter().map(|x| vec![x]).collect();
    let features = [feature(false)];
    let rows = Calibration::of(&rows, &features);
    let thresholds = [1.0, 2.0, 30.0, 40.0];
    let draw = |of: &[f64]| pad(&stumps(of), &features, &columns(of), &rows);
    let decoys = draw(&thresholds);
    assert_eq!(decoys.len(), 3);
    assert_eq!(decoys, draw(&thresholds));
    assert_ne!(decoys, draw(&[1.0, 2.0, 30.0, 41.0]));
    let mut all: Vec<_> = decoys.iter().filter_map(Column::threshold).chain(thresholds).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    assert_eq!(all.len(), 7);
    // Two values have room for one threshold.
    let two = Calibration::of(&[vec![1.0], vec![2.0]], &features);
    assert!(pad(&stumps(&thresholds), &features, &columns(&thresholds), &two).len() <= 1);
}

#[test]
fn the_number_of_offered_thresholds_grows_in_steps() {
    let rows: Vec<_> = (0..3000).map(|x| vec![f64::from(x)]).collect();
    let features = [feature(true)];
    let rows = Calibration::of(&rows, &features);
    for (real, offered) in [(1, 1), (2, 3), (3, 3), (8, 15), (63, 63), (64, 64), (65, 128)] {
        let thresholds: Vec<f64> = (0..real).map(f64::from).collect();
        let decoys = pad(&stumps(&thresholds), &features, &columns(&thresholds), &rows).len();
        assert_eq!(thresholds.len() + decoys, offered, "{real}");
    }
}

fn thresholds_of(ensemble: &Ensemble) -> Vec<f64> {
    let mut thresholds = thresholds(ensemble, 1).remove(0);
    thresholds.dedup();
    thresholds
}

#[test]
fn merging_moves_few_splits_over_few_rows() {
    let rows: Vec<_> = (0..100).map(|x| vec![f64::from(x)]).collect();
    let features = [feature(true)];
    let rows = Calibration::of(&rows, &features);
    let splits = [10.0, 11.0, 11.0, 50.0, 90.0];
    let merged = |bins, rows| {
        let mut ensemble = stumps(&splits);
        merge(&mut ensemble, &features, bins, rows);
        thresholds_of(&ensemble)
    };
    assert_eq!(merged(4, Some(&rows)), [10.0, 11.0, 50.0, 90.0]);
    assert_eq!(merged(3, Some(&rows)), [11.0, 50.0, 90.0]);
    assert_eq!(merged(1, Some(&rows)).len(), 1);
    assert_eq!(merged(3, None).len(), 3);
}

#[test]
fn snapped_thresholds_are_on_the_grid() {
    let rows: Vec<_> = values(5000, 9).into_iter().map(|x| vec![x]).collect();
    let features = [feature(true)];
    let rows = Calibration::of(&rows, &features);
    let mut ensemble = stumps(&trained(&rows, 40, 5, true));
    let grids = snap(&mut ensemble, &features, &rows);
    assert_eq!(grids[0].len(), GRID_POINTS);
    assert!(thresholds_of(&ensemble).iter().all(|t| grids[0].contains(t)));
    let used = columns(&thresholds_of(&ensemble));
    assert_eq!(grid(&grids, &used).len() + used.len(), GRID_POINTS);
}
