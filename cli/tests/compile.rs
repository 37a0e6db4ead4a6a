//! Trained models from the file that XGBoost saved to scores under encryption, as a user does it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod example;

use example::{example, json, refusal, run, text};
use serde_json::Value;
use tempfile::TempDir;

/// XGBoost predicts in float32.
const SINGLE_PRECISION: f64 = 1e-6;
/// Steepest slope of the logistic function.
const LOGISTIC_SLOPE: f64 = 0.25;

fn numbers(csv: &str) -> Vec<Vec<f64>> {
    let csv = std::fs::read_to_string(csv).unwrap();
    let line = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
    csv.lines().skip(1).map(line).collect()
}

/// The example, compiled into a folder, and the report.
fn compiled(folder: &TempDir) -> (String, Value) {
    let model = text(&folder.path().join("model"));
    let (file, calibration) = (example("model.json"), example("training.csv"));
    let report = json(&["compile", &file, "-o", &model, "--calibration", &calibration]);
    (model, report)
}

#[test]
fn scores_are_those_of_xgboost_within_the_bound_of_the_report() {
    let folder = TempDir::new().unwrap();
    let (model, compiled) = compiled(&folder);
    let path = |name: &str| text(&folder.path().join(name));
    let (keys, client, scores) = (path("keys"), format!("{model}/client.zip"), path("scores.csv"));
    let made = json(&["keygen", "--client", &client, "--keys", &keys]);
    // A model of both forms, unless it is asked for one, has a key for each.
    for form in ["bulk", "rows"] {
        assert!(made["evaluation_key_sections"][form].is_string(), "{made}");
    }
    let input = example("rows.csv");
    let words = ["predict", "--artifact", &model, "--keys", &keys, "--input", &input];
    let predicted = json(&[&words[..], &["--output", &scores]].concat());
    assert_eq!(predicted["model_id"], compiled["model_id"]);

    let raw_error = compiled["report"]["raw_error"][0].as_f64().unwrap();
    let bound = LOGISTIC_SLOPE * raw_error + SINGLE_PRECISION;
    assert!(bound < 0.01, "{bound}");
    let (scores, clear) = (numbers(&scores), numbers(&example("clear.csv")));
    assert_eq!(scores.len(), clear.len());
    for (row, (score, clear)) in scores.iter().zip(&clear).enumerate() {
        assert_eq!(score.len(), clear.len());
        let near = score.iter().zip(clear).all(|(a, b)| (a - b).abs() <= bound);
        assert!(near, "row {row}: {score:?}, XGBoost {clear:?}, bound {bound}");
        assert_eq!(score[0] > score[1], clear[0] > clear[1], "row {row}");
    }
}

/// Compiles the example in some form into a folder.
fn compiled_for(form: &str, folder: &TempDir) -> (String, Value) {
    let model = text(&folder.path().join(form));
    let (file, calibration) = (example("model.json"), example("training.csv"));
    let words = ["compile", &file, "-o", &model, "--calibration", &calibration, "--form", form];
    let report = json(&words);
    (model, report)
}

#[test]
fn an_artifact_of_both_forms_is_one_model() {
    let folder = TempDir::new().unwrap();
    let (model, compiled) = compiled_for("both", &folder);
    assert!(compiled.get("left_out").is_none(), "{compiled}");
    let rows = &compiled["report"]["rows"];
    assert!(rows["milliseconds"].as_f64().unwrap() < 20.0, "{rows}");
    for (zip, side) in [("client.zip", "client"), ("server.zip", "server")] {
        let inspected = json(&["inspect", &format!("{model}/{zip}")]);
        let [bulk, rows] = inspected.as_array().unwrap().as_slice() else {
            panic!("{inspected}");
        };
        assert_eq!(bulk["kind"], format!("{side} of a compiled model, ensemble"));
        assert_eq!(rows["kind"], format!("{side} of a compiled model, for single rows"));
        assert_eq!(
            (&bulk["model_id"], &rows["model_id"]),
            (&compiled["model_id"], &compiled["model_id"])
        );
        assert_eq!(rows["specs"]["parameters"]["columns"], bulk["specs"]["columns"]);
    }
    let (input, scores) = (example("rows.csv"), text(&folder.path().join("scores.csv")));
    json(&["predict", "--artifact", &model, "--input", &input, "--output", &scores]);
    let clear = numbers(&example("clear.csv"));
    for (score, clear) in numbers(&scores).iter().zip(&clear) {
        assert_eq!(score[0] > score[1], clear[0] > clear[1]);
    }
}

/// Jobs, store and logs name the keys, and nobody the file that holds them.
#[test]
fn keygen_prints_the_ids_by_which_jobs_name_keys() {
    let folder = TempDir::new().unwrap();
    for (form, names) in [("both", &["bulk", "rows"][..]), ("rows", &["rows"])] {
        let client = format!("{}/client.zip", compiled_for(form, &folder).0);
        let keys = text(&folder.path().join(format!("keys-{form}")));
        let made = json(&["keygen", "--client", &client, "--keys", &keys]);
        let index: Value =
            serde_json::from_slice(&std::fs::read(format!("{keys}/keys.json")).unwrap()).unwrap();
        let of_file = index["evaluation_key_id"].as_str().unwrap();
        let sections = made["evaluation_key_sections"].as_object().unwrap();
        assert_eq!(sections.keys().collect::<Vec<_>>(), names);
        assert_eq!(made["evaluation_key_sections"], index["evaluation_key_sections"]);
        assert!(!made.to_string().contains(of_file), "{made}");

        let said = run(&["keygen", "--client", &client, "--keys", &keys, "--rotate"]).stdout;
        let said = String::from_utf8(said).unwrap();
        let index = std::fs::read_to_string(format!("{keys}/keys.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        for id in index["evaluation_key_sections"].as_object().unwrap().values() {
            assert!(said.contains(id.as_str().unwrap()), "{said}");
        }
        assert!(!said.contains(index["evaluation_key_id"].as_str().unwrap()), "{said}");
    }
}

#[test]
fn an_artifact_for_single_rows_is_inspected() {
    let folder = TempDir::new().unwrap();
    let (model, compiled) = compiled_for("rows", &folder);
    let inspected = json(&["inspect", &format!("{model}/server.zip")]);
    assert_eq!(inspected.as_array().unwrap().len(), 1);
    assert_eq!(inspected[0]["model_id"], compiled["model_id"]);
}

#[test]
fn compiling_again_gives_the_same_artifact() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (first, second) = (compiled(&first).1, compiled(&second).1);
    assert_eq!(first["model_id"], second["model_id"]);
}

#[test]
fn what_cannot_be_compiled_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let output = text(folder.path());
    let compile = |model: &str| refusal(&["compile", model, "-o", &output]);
    let said = compile(&example("model.json"));
    assert!(said.contains("--calibration"), "{said}");
    let said = compile(&example("rows.csv"));
    assert!(said.contains("rows.csv"), "{said}");
    let mut ranking: Value =
        serde_json::from_slice(&std::fs::read(example("model.json")).unwrap()).unwrap();
    ranking["learner"]["objective"]["name"] = "survival:unheard_of".into();
    let unsupported = folder.path().join("unsupported.json");
    std::fs::write(&unsupported, ranking.to_string()).unwrap();
    let said = compile(&text(&unsupported));
    assert!(said.contains("survival:unheard_of"), "{said}");
    assert!(!folder.path().join("server.zip").exists());
}

#[test]
fn inspect_says_what_compiled_zips_are() {
    let folder = TempDir::new().unwrap();
    let (model, compiled) = compiled(&folder);
    for (zip, other) in [("client.zip", "report"), ("server.zip", "program")] {
        let path = format!("{model}/{zip}");
        let output = run(&["inspect", &path]);
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        let id = compiled["model_id"].as_str().unwrap();
        for fact in [id, "compiled model, ensemble", "147, degree 4", "hidden"] {
            assert!(said.contains(fact), "{zip}, {fact}: {said}");
        }
        let inspected = json(&["inspect", &path]);
        assert!(inspected.to_string().contains(other), "{inspected}");
    }
}
