//! Fewer thresholds: decisions between two that become one may change.

use super::{Calibration, GRID_POINTS, threshold, thresholds};
use crate::trained::{Ensemble, Feature, TreeNode};

/// Thresholds that become one: where they go, and how many splits have them.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    threshold: f64,
    splits: usize,
}

/// Merges the thresholds of each feature to at most `bins`; categories stay as they are.
///
/// Two neighbours become the one that more splits have. Those are chosen first for which fewest
/// decisions change: splits that move, times calibration rows that lie in between (without
/// calibration thresholds are taken as equally far apart).
pub(crate) fn merge(
    ensemble: &mut Ensemble,
    features: &[Feature],
    bins: usize,
    calibration: Option<&Calibration>,
) {
    let rank = |feature: usize, thresholds: &[f64], threshold: f64| match calibration {
        Some(calibration) => calibration.rank(feature, threshold),
        None => thresholds.partition_point(|&other| other < threshold),
    };
    let merged: Vec<Vec<f64>> = thresholds(ensemble, features.len())
        .into_iter()
        .enumerate()
        .map(|(feature, splits)| {
            let mut distinct = splits.clone();
            distinct.dedup();
            let rank = |threshold| rank(feature, &distinct, threshold);
            merge_feature(&splits, bins.max(1), rank)
        })
        .collect();
    let rank = |feature: usize, t: f64| match calibration {
        Some(calibration) => calibration.rank(feature, t) as f64,
        None => t,
    };
    move_thresholds(ensemble, &merged, rank);
}

fn merge_feature(splits: &[f64], bins: usize, rank: impl Fn(f64) -> usize) -> Vec<f64> {
    let chunks = splits.chunk_by(|a, b| a == b);
    let mut clusters: Vec<Cluster> =
        chunks.map(|same| Cluster { threshold: same[0], splits: same.len() }).collect();
    while clusters.len() > bins {
        let cost = |pair: &[Cluster]| {
            let between = rank(pair[1].threshold) - rank(pair[0].threshold);
            pair[0].splits.min(pair[1].splits) * between
        };
        let costs = clusters.windows(2).map(cost).enumerate();
        let Some((first, _)) = costs.min_by_key(|&(_, cost)| cost) else { break };
        let second = clusters.remove(first + 1);
        let kept = &mut clusters[first];
        if second.splits > kept.splits {
            kept.threshold = second.threshold;
        }
        kept.splits += second.splits;
    }
    clusters.into_iter().map(|cluster| cluster.threshold).collect()
}

/// Moves all thresholds to a grid of quantiles; returns the grids of features that have any.
pub(crate) fn snap(
    ensemble: &mut Ensemble,
    features: &[Feature],
    calibration: &Calibration,
) -> Vec<Vec<f64>> {
    let used = thresholds(ensemble, features.len());
    let grid = |(feature, used): (usize, Vec<f64>)| match used.is_empty() {
        true => Vec::new(),
        false => quantiles(feature, &features[feature], calibration),
    };
    let grids: Vec<Vec<f64>> = used.into_iter().enumerate().map(grid).collect();
    move_thresholds(ensemble, &grids, |feature, t| calibration.rank(feature, t) as f64);
    grids
}

/// Midpoints of neighbouring values at equal distances of rank.
fn quantiles(feature: usize, described: &Feature, calibration: &Calibration) -> Vec<f64> {
    let count = calibration.values(feature).len();
    let points = (1..=GRID_POINTS).filter_map(|point| {
        let rank = (point * count / (GRID_POINTS + 1)).saturating_sub(1);
        let (below, above) = calibration.gap(feature, rank)?;
        // Where rounding takes it down to the value below, the value above does as well.
        let middle = described.rounded(f64::midpoint(below, above));
        Some(if middle > below { middle } else { above })
    });
    let mut points: Vec<f64> = points.collect();
    points.dedup();
    points
}

/// Moves each threshold of a feature to the nearest of its targets, by `position`.
fn move_thresholds(
    ensemble: &mut Ensemble,
    targets: &[Vec<f64>],
    position: impl Fn(usize, f64) -> f64,
) {
    for node in ensemble.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
        let TreeNode::Split { feature, values, .. } = node else { continue };
        let feature = *feature as usize;
        let (Some(from), [_, ..]) = (threshold(values), targets[feature].as_slice()) else {
            continue;
        };
        let to = nearest(&targets[feature], from, |t| position(feature, t));
        for (low, high) in &mut values.0 {
            for bound in [low, high] {
                *bound = if *bound == from { to } else { *bound };
            }
        }
    }
}

fn nearest(targets: &[f64], from: f64, position: impl Fn(f64) -> f64) -> f64 {
    let above = targets.partition_point(|&target| target < from);
    let around = &targets[above.saturating_sub(1)..(above + 1).min(targets.len())];
    let here = position(from);
    let distance = |target: f64| (position(target) - here).abs();
    match *around {
        [below, above] if distance(above) <= distance(below) => above,
        [only, ..] => only,
        [] => from,
    }
}
