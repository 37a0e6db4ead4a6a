use cipherscore_engine::artifact::Kind;
use cipherscore_engine::bulk::artifact::{BulkClientArtifact, BulkServerArtifact};
use cipherscore_engine::compiled::{CompiledClientArtifact, CompiledServerArtifact};
use cipherscore_engine::model::ScoreKind;

use super::*;
use crate::trained::{Ensemble, Feature, Linear, Link, Missing, Tree, TreeNode, ValueSet};

/// Numbers from 0 to 1 that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (0..bound).rev().find(|&n| self.next() < 1.0 / f64::from(n + 1)).unwrap_or(0)
    }
}

fn rows(count: usize, features: usize) -> Vec<Vec<f64>> {
    let mut numbers = Numbers(7);
    let mut value = |missing: bool| match numbers.next() {
        x if missing && x < 0.03 => f64::NAN,
        x => (x * 1000.0).round() / 8.0,
    };
    (0..count).map(|_| (0..features).map(|feature| value(feature % 3 == 2)).collect()).collect()
}

fn grow(nodes: &mut Vec<TreeNode>, depth: u32, numbers: &mut Numbers, rows: &[Vec<f64>]) -> u32 {
    let at = nodes.len();
    nodes.push(TreeNode::Leaf(vec![(0, numbers.next() - 0.5)]));
    if depth > 0 {
        let feature = numbers.below(u32::try_from(rows[0].len()).unwrap()) as usize;
        let pick = |numbers: &mut Numbers| {
            rows[numbers.below(u32::try_from(rows.len()).unwrap()) as usize][feature]
        };
        let (a, b) = (pick(numbers), pick(numbers));
        let threshold = if a.is_nan() || b.is_nan() { 50.0 } else { f64::midpoint(a, b) };
        nodes[at] = TreeNode::Split {
            feature: u32::try_from(feature).unwrap(),
            values: ValueSet(vec![(f64::NEG_INFINITY, threshold)]),
            missing_inside: numbers.next() < 0.5,
            inside: grow(nodes, depth - 1, numbers, rows),
            outside: grow(nodes, depth - 1, numbers, rows),
        };
    }
    u32::try_from(at).unwrap()
}

fn features(count: usize) -> Vec<Feature> {
    // Values and thresholds have few bits, and are the same in both precisions.
    let feature = |index| Feature::new(format!("f{index}"), true);
    (0..count).map(feature).collect()
}

fn classifier(trees: usize, depth: u32, rows: &[Vec<f64>]) -> TrainedModel {
    let mut numbers = Numbers(1);
    let mut tree = || {
        let mut nodes = Vec::new();
        grow(&mut nodes, depth, &mut numbers, rows);
        Tree { nodes }
    };
    let trees = (0..trees).map(|_| tree()).collect();
    TrainedModel {
        class_name: "XGBClassifier".into(),
        features: features(rows[0].len()),
        body: Body::Ensemble(Ensemble { base: vec![0.1], trees }),
        link: Link::Sigmoid { scale: 1.0 },
        score_kind: ScoreKind::Probabilities,
        classes: vec!["no".into(), "yes".into()],
        missing: Missing::OfInputs,
    }
}

fn with_rows(rows: &[Vec<f64>]) -> CompileOptions {
    CompileOptions { calibration: Some(rows.to_vec()), ..CompileOptions::default() }
}

#[test]
fn an_ensemble_becomes_zips_that_answer_like_it() {
    let rows = rows(400, 6);
    let model = classifier(20, 3, &rows);
    for (bins, hide) in [(Bins::Used, false), (Bins::Used, true), (Bins::Padded, true)] {
        let options = CompileOptions { bins, hide, ..with_rows(&rows) };
        let compiled = compile(&model, &options).unwrap();
        assert_eq!(compiled, compile(&model, &options).unwrap());
        let server = BulkServerArtifact::open(&compiled.server_zip).unwrap();
        let client = BulkClientArtifact::open(&compiled.client_zip).unwrap();
        assert_eq!((server.kind, server.model_id), (Kind::Ensemble, compiled.model_id));
        assert_eq!((client.model_id, &client.specs), (compiled.model_id, &server.specs));
        assert_eq!((client.specs.hidden, client.specs.degree), (hide, 3));
        assert!(client.specs.log2_p_fail <= -128.0);
        let report = compiled.report;
        assert!(report.relative_error <= 1e-3, "{report:?}");
        // The sigmoid's slope is at most 1/4.
        let agreement = report.agreement.unwrap();
        assert_eq!((agreement.rows, agreement.refused), (400, 0));
        assert!(agreement.largest_difference <= report.raw_error[0] / 4.0 + 1e-12);
        assert!(agreement.same_label.unwrap() >= 398);
        let given: CompileReport = CompileReport::from_json(&client.report).unwrap();
        if hide {
            assert_says_no_more_than_rounded(&given, &report);
        } else {
            assert_eq!(given, CompileReport { noise_bits: vec![], ..report });
        }
    }
}

/// What is exact would count the products and leaves of a hidden model.
fn assert_says_no_more_than_rounded(given: &CompileReport, exact: &CompileReport) {
    let figures = |report: &CompileReport| {
        let agreement = report.agreement.unwrap();
        [
            report.microseconds_per_row,
            report.relative_error,
            report.raw_error[0],
            agreement.largest_difference,
        ]
    };
    for (given, exact) in figures(given).into_iter().zip(figures(exact)) {
        assert!(exact <= given && given < 2.0 * exact, "{given} {exact}");
        assert_eq!(given.log2().fract(), 0.0, "{given}");
    }
    assert_eq!(given.log2_p_fail, CompileOptions::default().log2_p_fail);
    assert_eq!((given.columns, &given.features), (exact.columns, &exact.features));
    assert!(given.noise_bits.is_empty());
}

#[test]
fn padded_features_have_round_numbers_of_columns() {
    let rows = rows(2000, 4);
    let model = classifier(20, 3, &rows);
    let compiled = compile(&model, &with_rows(&rows)).unwrap();
    for feature in &compiled.report.features {
        assert!([1, 3, 7, 15, 31, 63].contains(&feature.columns), "{feature:?}");
    }
    let refused = compile(&model, &CompileOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("padded bins need calibration rows"), "{refused}");
}

#[test]
fn merged_and_snapped_thresholds_are_fewer_and_mostly_agree() {
    let rows = rows(2000, 4);
    let model = classifier(40, 4, &rows);
    let used = CompileOptions { bins: Bins::Used, hide: false, ..with_rows(&rows) };
    let merged =
        compile(&model, &CompileOptions { max_bins: Some(10), ..used.clone() }).unwrap().report;
    // Each of ten thresholds with and without what is missing, and whether a value is there.
    assert!(merged.features.iter().all(|feature| feature.columns <= 21), "{merged:?}");
    let full = compile(&model, &CompileOptions { bins: Bins::Full, ..used }).unwrap().report;
    assert!(full.features.iter().all(|feature| feature.columns / 2 == 63), "{full:?}");
    for report in [merged, full] {
        let agreement = report.agreement.unwrap();
        assert!(agreement.same_label.unwrap() > 1600, "{agreement:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let rows = rows(200, 30);
    let model = classifier(1, 10, &rows);
    let options = CompileOptions { bins: Bins::Used, max_error: 1e-10, ..with_rows(&rows) };
    let refused = compile(&model, &options).unwrap_err().to_string();
    assert!(refused.contains("does not fit") && refused.contains("it would fit with"), "{refused}");
    let short = CompileOptions { calibration: Some(vec![vec![1.0]]), ..CompileOptions::default() };
    let refused = compile(&model, &short).unwrap_err().to_string();
    assert_eq!(refused, "calibration row 0 has 1 features, where the model has 30");
}

fn linear() -> TrainedModel {
    let linear = Linear {
        intercepts: vec![0.5, -1.0],
        weights: vec![vec![0.01, -0.02, 0.0], vec![0.003, 0.0, 0.005]],
    };
    TrainedModel {
        class_name: "LinearRegression".into(),
        features: features(3),
        body: Body::Linear(linear),
        link: Link::Identity,
        score_kind: ScoreKind::Predictions,
        classes: vec![],
        missing: Missing::OfInputs,
    }
}

#[test]
fn a_linear_model_is_never_hidden_and_stays_in_its_ranges() {
    let model = linear();
    let complete: Vec<_> = rows(500, 3).into_iter().filter(|row| !row[2].is_nan()).collect();
    let compiled = compile(&model, &with_rows(&complete)).unwrap();
    let client = BulkClientArtifact::open(&compiled.client_zip).unwrap();
    BulkServerArtifact::open(&compiled.server_zip).unwrap();
    assert_eq!((client.kind, client.specs.hidden), (Kind::Linear, false));
    let report = &compiled.report;
    assert!(report.relative_error <= 1e-3 && !report.hidden, "{report:?}");
    assert!(report.data_owner_learns[0].contains("4 answered rows give a linear model away"));
    let agreement = report.agreement.unwrap();
    let largest = report.raw_error.iter().copied().fold(0.0, f64::max);
    assert_eq!(agreement.refused, 0);
    assert!(agreement.largest_difference <= largest, "{agreement:?} {largest}");
    let far = client.model.encode(&[[1.0, 1e6, 1.0]], 0).unwrap_err().to_string();
    assert!(far.contains("row 0, column \"f1\": 1000000 is outside of the range"), "{far}");
    let refused = compile(&model, &CompileOptions::default()).unwrap_err().to_string();
    assert!(refused.contains("ranges of a linear model need calibration rows"), "{refused}");
}

#[test]
fn a_picture_is_well_formed() {
    let rows = rows(100, 4);
    let mut model = classifier(5, 2, &rows);
    model.class_name = "a<b>&c".into();
    let svg = compile(&model, &with_rows(&rows)).unwrap().report.svg();
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("a&lt;b&gt;&amp;c: noise by degree") && svg.contains("degree 2"));
    // Every element that is opened is closed, in its order.
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (_, true) => {}
            _ => open.push(name),
        }
        assert!(tag.matches('"').count() % 2 == 0, "{tag}");
    }
    assert!(open.is_empty(), "{open:?}");
}

/// A path of so many features, with a leaf beside each of its nodes.
fn chain(length: u32, rows: &[Vec<f64>]) -> TrainedModel {
    let mut nodes = Vec::new();
    for feature in 0..length {
        let values = ValueSet(vec![(f64::NEG_INFINITY, 50.0 + f64::from(feature))]);
        let (inside, outside) = (2 * feature + 1, 2 * feature + 2);
        nodes.push(TreeNode::Split { feature, values, missing_inside: true, inside, outside });
        nodes.push(TreeNode::Leaf(vec![(0, f64::from(feature % 5) - 2.0)]));
    }
    nodes.push(TreeNode::Leaf(vec![(0, 7.0)]));
    let model = classifier(1, 1, rows);
    TrainedModel {
        body: Body::Ensemble(Ensemble { base: vec![0.0], trees: vec![Tree { nodes }] }),
        ..model
    }
}

fn forms(compiled: &Compiled) -> (bool, bool) {
    let server = CompiledServerArtifact::open(&compiled.server_zip).unwrap();
    let client = CompiledClientArtifact::open(&compiled.client_zip).unwrap();
    let of_server = (server.bulk.is_some(), server.rows.is_some());
    assert_eq!(of_server, (client.bulk.is_some(), client.rows.is_some()));
    assert_eq!(of_server.1, compiled.report.rows.is_some());
    of_server
}

#[test]
fn an_ensemble_has_the_forms_that_are_wanted() {
    let rows = rows(400, 6);
    let model = classifier(20, 3, &rows);
    for (wanted, found) in [
        (WantedForms::Bulk, (true, false)),
        (WantedForms::Rows, (false, true)),
        (WantedForms::Both, (true, true)),
    ] {
        let compiled = compile(&model, &CompileOptions { forms: wanted, ..with_rows(&rows) });
        let compiled = compiled.unwrap();
        assert_eq!((forms(&compiled), compiled.left_out.as_ref()), (found, None));
        assert!(compiled.report.relative_error <= 1e-3);
        let agreement = compiled.report.agreement.unwrap();
        assert_eq!((agreement.rows, agreement.refused), (400, 0));
        assert!(agreement.largest_difference <= compiled.report.raw_error[0] / 4.0 + 1e-12);
    }
}

/// A path of more features than a polynomial may have, and more leaves than a row is worth.
#[test]
fn a_model_that_fits_one_form_has_that_one() {
    let rows = rows(100, 20);
    let both = |model: &TrainedModel| {
        let options =
            CompileOptions { bins: Bins::Used, forms: WantedForms::Both, ..with_rows(&rows) };
        compile(model, &options).unwrap()
    };
    let deep = both(&chain(20, &rows));
    assert_eq!(forms(&deep), (false, true));
    let left_out = deep.left_out.unwrap();
    assert!(left_out.form == "bulk" && left_out.reason.contains("degree"), "{left_out}");
    // The same as if the other form had not been asked for.
    let options = CompileOptions { bins: Bins::Used, forms: WantedForms::Rows, ..with_rows(&rows) };
    let alone = compile(&chain(20, &rows), &options).unwrap();
    assert_eq!((alone.server_zip, alone.client_zip), (deep.server_zip, deep.client_zip));

    let long = compile(
        &chain(20, &rows),
        &CompileOptions { tag_factors: NonZeroU32::new(13).unwrap(), ..options },
    );
    let refused = long.unwrap_err().to_string();
    assert!(refused.contains("no form for single rows: a path of 2"), "{refused}");
}

/// What the other form cannot do is no reason to refuse the one that can.
#[test]
fn a_model_that_is_not_hidden_or_too_large_for_rows_is_for_bulk() {
    let rows = rows(400, 6);
    let of = |forms, model: &TrainedModel, hide| {
        let options = CompileOptions { bins: Bins::Used, forms, hide, ..with_rows(&rows) };
        compile(model, &CompileOptions { max_bins: Some(8), ..options })
    };
    let large = classifier(6000, 3, &rows);
    for (model, hide, reason) in
        [(&classifier(20, 3, &rows), false, "--no-hide"), (&large, true, "leaves")]
    {
        let both = of(WantedForms::Both, model, hide).unwrap();
        let left_out = both.left_out.clone().unwrap();
        assert!(left_out.form == "rows" && left_out.reason.contains(reason), "{left_out}");
        let bulk = of(WantedForms::Bulk, model, hide).unwrap();
        assert_eq!((both.server_zip, both.client_zip), (bulk.server_zip, bulk.client_zip));
    }
    let refused = of(WantedForms::Rows, &classifier(20, 3, &rows), false).unwrap_err();
    assert!(matches!(refused, CompileError::RowsAreHidden), "{refused}");
}

#[test]
fn a_linear_model_has_the_bulk_form_only() {
    let complete: Vec<_> = rows(500, 3).into_iter().filter(|row| !row[2].is_nan()).collect();
    let of = |forms| compile(&linear(), &CompileOptions { forms, ..with_rows(&complete) });
    assert_eq!(of(WantedForms::Bulk).unwrap(), of(WantedForms::Both).unwrap());
    let refused = of(WantedForms::Rows).unwrap_err().to_string();
    assert!(refused.contains("linear model has no form for single rows"), "{refused}");
}

/// The public part does not tell how many leaves there are beyond their class.
#[test]
fn sizes_of_rows_are_classes() {
    let rows = rows(400, 6);
    for trees in [17, 18] {
        let options = CompileOptions { forms: WantedForms::Rows, ..with_rows(&rows) };
        let report = compile(&classifier(trees, 3, &rows), &options).unwrap().report.rows.unwrap();
        assert_eq!(report.regions[0].trees, 18);
        let outputs = usize::try_from(report.regions[0].outputs).unwrap();
        assert_eq!(cipherscore_engine::rows::plan::outputs_class(outputs), outputs);
    }
}
