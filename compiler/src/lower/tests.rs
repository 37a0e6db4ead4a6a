//! Programs against the plain meaning of the trees, row by row and integer by integer.

use std::ops::Range;

use cipherscore_engine::bulk::program::{ColumnSum, Node};
use cipherscore_engine::model::ScoreKind;
use cipherscore_engine::rows::parameters::{FloodWidth, RowKeyParameters, RowParameters};
use cipherscore_engine::rows::plan::{RowLimits, RowShape};
use cipherscore_engine::rows::program::{PathEdge, PathLeaf};
use proptest::prelude::*;

use super::*;
use crate::trained::{Body, Link, Missing, TrainedModel, Tree, TreeNode};

/// Values of every program's nodes and outputs, as their documentation says.
fn evaluate(program: &Program, bits: &[i64]) -> Vec<i64> {
    let affine = |affine: &ColumnSum| -> i64 {
        affine.constant
            + affine.terms.iter().map(|(column, c)| c * bits[*column as usize]).sum::<i64>()
    };
    let mut values: Vec<i64> = Vec::new();
    for node in &program.nodes {
        let value = match node {
            Node::Affine(node) => affine(node),
            Node::Select { base, products } => {
                let product = |product: &cipherscore_engine::bulk::program::Product| {
                    let indicator = affine(&product.indicator);
                    assert!((0..=1).contains(&indicator));
                    let minus = product.minus.map_or(0, |minus| values[minus as usize]);
                    indicator * (values[product.factor as usize] - minus)
                };
                base.map_or(0, |base| values[base as usize])
                    + products.iter().map(product).sum::<i64>()
            }
        };
        values.push(value);
    }
    let output = |output: &cipherscore_engine::bulk::program::Output| {
        output.constant + output.roots.iter().map(|root| values[*root as usize]).sum::<i64>()
    };
    program.outputs.iter().map(output).collect()
}

fn degree(program: &Program) -> usize {
    let mut degrees: Vec<usize> = Vec::new();
    for node in &program.nodes {
        let degree = match node {
            Node::Affine(affine) => usize::from(!affine.terms.is_empty()),
            Node::Select { base, products } => {
                let nodes = products.iter().flat_map(|p| [Some(p.factor), p.minus]).flatten();
                let products = nodes.map(|node| 1 + degrees[node as usize]);
                products.chain(base.map(|base| degrees[base as usize])).max().unwrap_or(0)
            }
        };
        degrees.push(degree);
    }
    let roots = program.outputs.iter().flat_map(|output| &output.roots);
    roots.map(|root| degrees[*root as usize]).max().unwrap_or(0)
}

/// Most distinct features on a path of a tree, reachable or not.
fn distinct_features(tree: &Tree, node: u32, path: &BTreeSet<u32>) -> usize {
    match &tree.nodes[node as usize] {
        TreeNode::Leaf(_) => path.len(),
        TreeNode::Split { feature, inside, outside, .. } => {
            let path = path.iter().copied().chain([*feature]).collect();
            let below = [*inside, *outside].map(|child| distinct_features(tree, child, &path));
            below[0].max(below[1])
        }
    }
}

fn model(ensemble: Ensemble, features: usize) -> TrainedModel {
    let feature = |index: usize| Feature::new(format!("f{index}"), index != 1);
    TrainedModel {
        class_name: "test".into(),
        features: (0..features).map(feature).collect(),
        body: Body::Ensemble(ensemble),
        link: Link::Identity,
        score_kind: ScoreKind::Predictions,
        classes: vec![],
        missing: Missing::OfInputs,
    }
}

/// Lowers the model and compares every row's integers with the sums of its rounded leaves.
fn check(model: &TrainedModel, rows: &[Vec<f64>], scale: f64) -> Option<Program> {
    model.validate().unwrap();
    let Body::Ensemble(ensemble) = &model.body else { unreachable!() };
    let outputs = ensemble.base.len();
    let lowered =
        match Lowered::of(ensemble, model.features.len(), Targets::POLYNOMIALS, |_| vec![]) {
            Ok(lowered) => lowered,
            Err(error) => {
                assert_eq!(error, LowerError::Constant);
                return None;
            }
        };
    let rounding = lowered.round(&vec![scale; outputs]);
    let program = lowered.program(&rounding);
    let predicates = lowered.predicates(&model.features);
    predicates.validate().unwrap();
    for row in rows {
        let atoms = predicates.atoms(row).unwrap();
        let bit = |p: &Predicate| i64::from(p.contains(atoms[p.feature as usize]));
        let bits: Vec<i64> = predicates.columns.iter().map(bit).collect();
        let integers = evaluate(&program, &bits);
        let mut expected = vec![0; outputs];
        let mut root = 0;
        for (tree, leaf) in ensemble.trees.iter().zip(model.leaves(row)) {
            let TreeNode::Leaf(values) = &tree.nodes[leaf] else { unreachable!() };
            for output in tree_outputs(tree) {
                let value = values.iter().find(|(at, _)| *at == output).map_or(0.0, |(_, v)| *v);
                expected[output as usize] += rounding.leaf(root, value);
                root += 1;
            }
        }
        assert_eq!(integers, expected, "{row:?}");
        for ((raw, output), integer) in model.raw(row).iter().zip(&rounding.outputs).zip(integers) {
            assert!((output.range.0..=output.range.1).contains(&integer));
            #[allow(clippy::cast_precision_loss, reason = "small integers")]
            let decoded = integer as f64 * output.scale.step + output.scale.offset;
            assert!((raw - decoded).abs() <= output.error + 1e-9, "{raw} {decoded}");
        }
    }
    check_paths(model, rows, scale);
    let path = |tree: &Tree| distinct_features(tree, 0, &BTreeSet::new());
    assert!(degree(&program) <= ensemble.trees.iter().map(path).max().unwrap_or(0));
    Some(program)
}

/// A row program's parameters, as far as it is checked against them.
fn row_parameters(shape: RowShape) -> RowParameters {
    let RowShape { columns, regions, .. } = shape;
    RowParameters {
        keys: RowKeyParameters { ring_dimension: 8192, primes: 3, steps: vec![] },
        tag_modulus: 251,
        value_modulus: 1_000_003,
        tag_factors: 1,
        columns,
        group_columns: 1,
        regions,
        flood: [FloodWidth { factor: 1, bits: 0 }; 2],
        hide: 45,
        word_bits: 40,
    }
}

/// Lowers the model to paths as well. Every row has the integers of its polynomials, and bits that no
/// row has reach one leaf of each tree.
fn check_paths(model: &TrainedModel, rows: &[Vec<f64>], scale: f64) {
    let Body::Ensemble(ensemble) = &model.body else { unreachable!() };
    let outputs = ensemble.base.len();
    let features = model.features.len();
    let lowered =
        Lowered::of(ensemble, features, Targets::both(&RowLimits::LARGEST), |_| vec![]).unwrap();
    let rounding = lowered.round(&vec![scale; outputs]);
    let program = lowered.program(&rounding);
    let columns = program.columns;
    let trees = lowered.rows().unwrap();
    let parameters = row_parameters(trees.shape(columns));
    let centre = parameters.value_centre();
    let paths = trees.program(&rounding, columns, centre);
    let edges = paths.leaves().map(|leaf| leaf.path.len()).max();
    assert_eq!(
        edges.map(|edges| u32::try_from(edges).unwrap()),
        Some(trees.shape(columns).longest_path)
    );
    let paths = paths.validate(&parameters).unwrap();
    let predicates = lowered.predicates(&model.features);
    for (position, row) in rows.iter().enumerate() {
        let atoms = predicates.atoms(row).unwrap();
        let bit = |p: &Predicate| p.contains(atoms[p.feature as usize]);
        let mut bits: Vec<bool> = predicates.columns.iter().map(bit).collect();
        let integers: Vec<i64> = bits.iter().map(|&bit| i64::from(bit)).collect();
        let sums = paths.interpret(&bits).unwrap();
        let sums: Vec<i64> = sums.iter().map(|sum| sum - centre).collect();
        assert_eq!(sums, evaluate(&program, &integers), "{row:?}");
        let flipped = position % bits.len();
        bits[flipped] = !bits[flipped];
        paths.interpret(&bits).unwrap();
    }
}

fn tree_outputs(tree: &Tree) -> BTreeSet<u32> {
    let leaf = |node: &TreeNode| match node {
        TreeNode::Leaf(values) => values.iter().map(|value| value.0).collect(),
        TreeNode::Split { .. } => vec![],
    };
    tree.nodes.iter().flat_map(leaf).collect()
}

const LOW: f64 = f64::NEG_INFINITY;
const HIGH: f64 = f64::INFINITY;

/// Thresholds, their complements, intervals, categories, everything and nothing, of few values so
/// that they nest, touch and repeat.
fn value_set() -> impl Strategy<Value = ValueSet> {
    let t = || (0..5i8).prop_map(f64::from);
    prop_oneof![
        6 => t().prop_map(|t| ValueSet(vec![(LOW, t)])),
        2 => t().prop_map(|t| ValueSet(vec![(t, HIGH)])),
        1 => (t(), 1..3i8).prop_map(|(t, n)| ValueSet(vec![(t, t + f64::from(n))])),
        2 => prop::bits::u8::masked(0b101_0101).prop_map(|bits| {
            let category = |c: i8| (bits >> c & 1 == 1).then_some((f64::from(c), f64::from(c) + 1.0));
            ValueSet((0..8).filter_map(category).collect())
        }),
        1 => Just(ValueSet(vec![(LOW, HIGH)])),
        1 => Just(ValueSet(vec![])),
    ]
}

#[derive(Debug, Clone)]
enum Grown {
    Leaf(Vec<(u32, f64)>),
    Split(u32, ValueSet, bool, Box<Grown>, Box<Grown>),
}

fn grown(outputs: u32) -> impl Strategy<Value = Grown> {
    let values = prop::collection::vec(-40..40i8, outputs as usize);
    let leaf =
        (values, prop::bits::u32::between(0, outputs as usize)).prop_map(|(values, kept)| {
            let value = |(output, value): (u32, i8)| (output, f64::from(value) / 8.0);
            let values = (0..).zip(values).map(value);
            Grown::Leaf(values.filter(|(output, _)| kept >> output & 1 == 1).collect())
        });
    leaf.prop_recursive(6, 48, 2, |child| {
        (0..3u32, value_set(), any::<bool>(), child.clone(), child)
            .prop_map(|(f, set, missing, a, b)| Grown::Split(f, set, missing, a.into(), b.into()))
    })
}

fn plant(grown: &Grown, nodes: &mut Vec<TreeNode>) -> u32 {
    let at = nodes.len();
    nodes.push(TreeNode::Leaf(vec![]));
    nodes[at] = match grown {
        Grown::Leaf(values) => TreeNode::Leaf(values.clone()),
        Grown::Split(feature, values, missing_inside, inside, outside) => TreeNode::Split {
            feature: *feature,
            values: values.clone(),
            missing_inside: *missing_inside,
            inside: plant(inside, nodes),
            outside: plant(outside, nodes),
        },
    };
    u32::try_from(at).unwrap()
}

fn tree(grown: &Grown) -> Tree {
    let mut nodes = Vec::new();
    plant(grown, &mut nodes);
    Tree { nodes }
}

/// Every combination of values that tells atoms apart, for three features.
fn all_rows() -> Vec<Vec<f64>> {
    let values: Vec<f64> = [LOW, HIGH, f64::NAN, -0.5]
        .into_iter()
        .chain((0..8).flat_map(|value: i8| [f64::from(value), f64::from(value) + 0.999_999_99]))
        .collect();
    let pick = |seed: usize| values[seed % values.len()];
    (0..values.len().pow(3)).map(|i| vec![pick(i), pick(i / 20), pick(i / 400)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn programs_equal_their_trees_on_every_row(
        trees in (1..3u32).prop_flat_map(|n| prop::collection::vec(grown(n), 1..4)),
        scale in 1..40i8,
    ) {
        let trees = trees.iter().map(tree).collect();
        let ensemble = Ensemble { base: vec![0.25, -1.0], trees };
        check(&model(ensemble, 3), &all_rows(), f64::from(scale) / 4.0);
    }
}

fn split(feature: u32, values: ValueSet, missing: bool, inside: Grown, outside: Grown) -> Grown {
    Grown::Split(feature, values, missing, inside.into(), outside.into())
}

fn leaf(value: f64) -> Grown {
    Grown::Leaf(vec![(0, value)])
}

/// Parent and child on one feature with all directions of what is missing, at once and with
/// another feature in between, against all rows.
#[test]
fn a_child_on_its_parents_feature_keeps_the_meaning_of_missing() {
    let below = |t: f64| ValueSet(vec![(LOW, t)]);
    let categories = |c: Range<i8>| ValueSet(vec![(f64::from(c.start), f64::from(c.end))]);
    let parents = [below(5.0), ValueSet(vec![(2.0, HIGH)]), categories(1..4)];
    let children = [below(3.0), below(6.0), categories(2..3), categories(3..6)];
    let rows = all_rows();
    for (parent, child) in parents.iter().flat_map(|p| children.iter().map(move |c| (p, c))) {
        for missing in 0..8 {
            let [first, second, inside] = [1, 2, 4].map(|bit| missing & bit != 0);
            let inner = split(0, child.clone(), second, leaf(1.0), leaf(2.0));
            let between = split(1, below(2.0), true, inner.clone(), leaf(7.0));
            for inner in [inner, between] {
                let (a, b) = if inside { (inner, leaf(4.0)) } else { (leaf(4.0), inner) };
                let trees = vec![tree(&split(0, parent.clone(), first, a, b))];
                let program = check(&model(Ensemble { base: vec![0.0], trees }, 3), &rows, 1.0);
                assert!(degree(&program.unwrap()) <= 2);
            }
        }
    }
}

#[test]
fn equal_trees_are_emitted_once() {
    let below = |t: f64| ValueSet(vec![(LOW, t)]);
    let inner = |a, b| split(1, below(2.0), true, leaf(a), leaf(b));
    let one = tree(&split(0, below(1.0), false, inner(1.0, 2.0), inner(3.0, 5.0)));
    let ensemble = Ensemble { base: vec![0.0], trees: vec![one.clone(), one] };
    let program = check(&model(ensemble, 3), &all_rows(), 2.0).unwrap();
    assert_eq!((program.columns, program.nodes.len()), (2, 3));
    assert_eq!(program.outputs[0].roots, [2, 2]);
}

#[test]
fn a_model_that_does_not_depend_on_its_features_is_refused() {
    let same = split(0, ValueSet(vec![(LOW, 1.0)]), true, leaf(1.0), leaf(1.0));
    let ensemble = Ensemble { base: vec![0.0], trees: vec![tree(&same)] };
    assert!(check(&model(ensemble, 3), &[], 1.0).is_none());
}

/// Numbers of trees and leaves are classes, and what is added changes no sum.
#[test]
fn sizes_are_padded_to_classes() {
    let below = |t: f64| ValueSet(vec![(LOW, t)]);
    let grow = |at: usize| {
        let t = |shift: usize| below(f64::from(u32::try_from((at + shift) % 7).unwrap()));
        let inner = split(1, t(1), true, leaf(1.0), leaf(at as f64 / 3.0));
        let inner = split(2, t(2), false, inner, leaf(-2.0));
        tree(&split(0, t(0), at.is_multiple_of(2), inner, leaf(4.5)))
    };
    let ensemble = Ensemble { base: vec![0.0], trees: (0..21).map(grow).collect() };
    let model = model(ensemble, 3);
    check(&model, &all_rows(), 8.0);
    let Body::Ensemble(ensemble) = &model.body else { unreachable!() };
    let lowered =
        Lowered::of(ensemble, 3, Targets::paths(&RowLimits::LARGEST), |_| vec![]).unwrap();
    let shape = lowered.rows().unwrap().shape(9);
    // 21 trees are 22, and 88 leaves with 8 canaries are 96.
    assert_eq!((shape.regions[0].trees, shape.regions[0].outputs), (22, 88));
    let program = lowered.rows().unwrap().program(&lowered.round(&[8.0]), 9, 0);
    let both_ways = |leaf: &&PathLeaf| {
        let opposite =
            |a: &PathEdge| leaf.path.iter().any(|b| a.column == b.column && a.wanted != b.wanted);
        leaf.path.iter().any(opposite)
    };
    let padding = program.leaves().filter(both_ways).count();
    let real: usize = program.leaves().count() - padding;
    assert!(real <= 88 && padding < 12, "{real} {padding}");
    // Shorter paths than the longest become longer.
    assert_eq!(shape.longest_path, 3);
    let again = Lowered::of(ensemble, 3, Targets::paths(&RowLimits::LARGEST), |_| vec![]).unwrap();
    assert_eq!(again.rows().unwrap().program(&again.round(&[8.0]), 9, 0), program);
}

/// An output that no row changes takes a tree that adds nothing.
#[test]
fn constant_outputs_have_a_tree() {
    let below = |t: f64| ValueSet(vec![(LOW, t)]);
    let leaf = |value: f64| Grown::Leaf(vec![(0, value), (1, 3.0)]);
    let trees = vec![tree(&split(0, below(1.0), true, leaf(1.0), leaf(2.0)))];
    let ensemble = Ensemble { base: vec![0.0, 0.0], trees };
    check(&model(ensemble.clone(), 3), &all_rows(), 4.0).unwrap();
    let lowered =
        Lowered::of(&ensemble, 3, Targets::paths(&RowLimits::LARGEST), |_| vec![]).unwrap();
    let trees: Vec<_> =
        lowered.rows().unwrap().shape(1).regions.iter().map(|region| region.trees).collect();
    assert_eq!(trees, [1, 1]);
}

/// Paths take more memory than trees, so they are counted before they are made.
#[test]
fn more_leaves_than_a_row_is_worth_are_no_paths() {
    let below = |t: f64| ValueSet(vec![(LOW, t)]);
    let stump = |at: u32| {
        tree(&split(at % 3, below(f64::from(at % 5 + 1)), true, leaf(f64::from(at)), leaf(-1.0)))
    };
    let ensemble = Ensemble { base: vec![0.0], trees: (0..10).map(stump).collect() };
    let of = |outputs| {
        let limits = RowLimits { outputs, ..RowLimits::DEFAULT };
        Lowered::of(&ensemble, 3, Targets::both(&limits), |_| vec![])
    };
    assert!(of(20).is_ok());
    assert_eq!(of(19).unwrap_err(), LowerError::TooManyLeaves { limit: 19 });
}
