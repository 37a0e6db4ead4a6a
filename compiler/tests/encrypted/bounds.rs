//! How far scores may be from the library's, when raw outputs are off by the report's error.

use cipherscore_compiler::trained::Link;

/// The scores themselves, and how far each may be from those of the trained model.
pub(crate) struct Bounded {
    pub(crate) scores: Vec<f64>,
    pub(crate) bounds: Vec<f64>,
}

/// Links are monotone in each raw output: a score is largest and least where its own raw output is
/// at one end and all others are at the other.
pub(crate) fn scores(link: Link, raw: &[f64], errors: &[f64]) -> Bounded {
    let scores = link.apply(raw);
    let mut bounds = vec![0.0; scores.len()];
    for own in 0..raw.len() {
        for sign in [1.0, -1.0] {
            let sign_of = |output| if output == own { sign } else { -sign };
            let moved = raw.iter().zip(errors).enumerate();
            let moved: Vec<_> = moved.map(|(k, (raw, error))| raw + sign_of(k) * error).collect();
            for ((bound, score), moved) in bounds.iter_mut().zip(&scores).zip(link.apply(&moved)) {
                *bound = f64::max(*bound, (moved - score).abs());
            }
        }
    }
    Bounded { scores, bounds }
}

/// The first of the largest, and by how much it is larger than the next.
pub(crate) fn label(scores: &[f64]) -> (usize, f64) {
    let larger =
        |best: usize, index: usize| if scores[index] > scores[best] { index } else { best };
    let best = (0..scores.len()).reduce(larger).unwrap();
    let others = (0..scores.len()).filter(|&index| index != best).map(|index| scores[index]);
    (best, scores[best] - others.fold(f64::NEG_INFINITY, f64::max))
}

#[test]
fn bounds_are_those_of_the_largest_slope() {
    let bounded = scores(Link::Sigmoid { scale: 1.0 }, &[0.0], &[0.001]);
    assert!(bounded.bounds.iter().all(|bound| (bound / 0.001 - 0.25).abs() < 1e-6));
    let bounded = scores(Link::Softmax, &[0.0, 0.0], &[0.001, 0.001]);
    assert!(bounded.bounds.iter().all(|bound| (bound / 0.001 - 0.5).abs() < 1e-6));
    assert_eq!(label(&[0.25, 0.75, 0.5]), (1, 0.25));
}
