"""The estimators, as scikit-learn uses estimators."""

from __future__ import annotations

import pickle
import stat

import numpy as np
import pytest
from conftest import PATIENCE
from sklearn import ensemble, linear_model, neighbors, neural_network, svm, tree
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from cipherscore import CompileError, RangeError, UnsupportedModelError
from cipherscore.deployment import FHEModelClient, FHEModelServer
from cipherscore.sklearn import EncryptedClassifier, EncryptedRegressor

TREE = tree.DecisionTreeClassifier(max_depth=3, random_state=0)
MAX_ERROR = 1e-3


# All of them: none is expected to fail.
@parametrize_with_checks(
    [
        EncryptedClassifier(TREE),
        EncryptedRegressor(tree.DecisionTreeRegressor(max_depth=3, random_state=0)),
        EncryptedClassifier(linear_model.LogisticRegression()),
        EncryptedRegressor(linear_model.Ridge()),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_cross_validation_scores_as_in_the_clear():
    rows, labels = load_breast_cancer(return_X_y=True)
    encrypted = cross_val_score(EncryptedClassifier(TREE), rows, labels, error_score="raise")
    # Leaves are those of the clear model, and far apart.
    np.testing.assert_array_equal(encrypted, cross_val_score(TREE, rows, labels))


def test_two_jobs_at_a_time():
    rows, labels = load_breast_cancer(return_X_y=True)
    found = cross_val_score(EncryptedClassifier(TREE), rows, labels, n_jobs=2, error_score="raise")
    np.testing.assert_array_equal(found, cross_val_score(TREE, rows, labels))


def test_searches_reach_the_estimator_within():
    rows, labels = load_iris(return_X_y=True)
    search = GridSearchCV(EncryptedClassifier(TREE), {"estimator__max_depth": [1, 3]}, cv=2)
    search.fit(rows, labels)
    assert search.best_params_ == {"estimator__max_depth": 3}
    assert search.best_estimator_.estimator_.get_depth() == 3
    assert search.best_estimator_.estimator is not TREE


def test_pipelines_around_and_within():
    rows, labels = load_breast_cancer(return_X_y=True)
    fit, held, fit_labels, _ = train_test_split(rows, labels, random_state=0)
    logistic = linear_model.LogisticRegression()
    clear = make_pipeline(StandardScaler(), logistic).fit(fit, fit_labels)
    around = make_pipeline(StandardScaler(), EncryptedClassifier(logistic, outside="clip"))
    within = EncryptedClassifier(make_pipeline(StandardScaler(), logistic), outside="clip")
    for model in (around, within):
        found = model.fit(fit, fit_labels).predict(held)
        assert (found == clear.predict(held)).mean() > 0.98


def test_displays():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from sklearn.metrics import ConfusionMatrixDisplay, RocCurveDisplay

    rows, labels = load_breast_cancer(return_X_y=True)
    model = EncryptedClassifier(TREE).fit(rows, labels)
    matrix = ConfusionMatrixDisplay.from_estimator(model, rows, labels).confusion_matrix
    expected = ConfusionMatrixDisplay.from_estimator(model.estimator_, rows, labels)
    np.testing.assert_array_equal(matrix, expected.confusion_matrix)
    assert RocCurveDisplay.from_estimator(model, rows, labels).roc_auc > 0.9


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "sklearn"])
def test_ensembles_with_labels(library):
    rows, numbers = load_breast_cancer(return_X_y=True)
    if library == "sklearn":
        model = ensemble.RandomForestClassifier(n_estimators=10, max_depth=3, random_state=0)
        labels = np.array(["malignant", "benign"])[numbers]
    elif library == "xgboost":
        model = pytest.importorskip("xgboost").XGBClassifier(n_estimators=10, max_depth=3)
        labels = numbers
    else:
        lightgbm = pytest.importorskip("lightgbm")
        model = lightgbm.LGBMClassifier(n_estimators=10, max_depth=3, verbose=-1)
        labels = np.array(["malignant", "benign"])[numbers]
    found = EncryptedClassifier(model).fit(rows, labels)
    clear = found.estimator_
    np.testing.assert_allclose(
        found.predict_proba(rows), clear.predict_proba(rows), rtol=0, atol=MAX_ERROR
    )
    np.testing.assert_array_equal(found.predict(rows), clear.predict(rows))
    assert found.predict(rows).dtype == clear.predict(rows).dtype


def test_probabilities_are_probabilities():
    rows, labels = load_iris(return_X_y=True)
    model = EncryptedClassifier(TREE).fit(rows, labels)
    found = model.predict_proba(rows)
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found.sum(axis=1), 1)
    # Which refuses others.
    assert log_loss(labels, found) < 0.2


def test_a_frozen_estimator_is_compiled_only():
    pandas = pytest.importorskip("pandas")
    data = load_iris(as_frame=True)
    fitted = tree.DecisionTreeClassifier(max_depth=2).fit(data.data, data.target)
    model = EncryptedClassifier(FrozenEstimator(fitted)).fit(data.data)
    assert model.estimator_ is fitted
    assert list(model.feature_names_in_) == list(data.data.columns)
    np.testing.assert_array_equal(model.predict(data.data), fitted.predict(data.data))
    assert clone(model).fit(data.data).estimator_ is fitted
    turned = pandas.DataFrame(data.data.iloc[:, ::-1])
    with pytest.raises(ValueError, match="same order"):
        model.predict(turned)
    with pytest.raises(NotFittedError):
        EncryptedClassifier(FrozenEstimator(tree.DecisionTreeClassifier())).fit(data.data)


def test_values_outside_of_ranges():
    rows, target = load_diabetes(return_X_y=True)
    model = EncryptedRegressor(linear_model.Ridge()).fit(rows, target)
    with pytest.raises(RangeError, match="outside='clip'"):
        model.predict(rows * 1e9)
    # What is a little outside of what fit saw is in the range all the same.
    np.testing.assert_allclose(
        model.predict(rows * 1.5), model.estimator_.predict(rows * 1.5), rtol=0, atol=1.0
    )
    # A score that is NaN comes with why.
    narrow = {f"f{feature}": (-0.01, 0.01) for feature in range(rows.shape[1])}
    with pytest.warns(UserWarning, match=r"outside='clip' .* ranges=") as warned:
        tight = EncryptedRegressor(linear_model.Ridge(), ranges=narrow)
        scores = cross_val_score(tight, rows, target, cv=2)
    assert np.isnan(scores).all() and warned
    clipped = EncryptedRegressor(linear_model.Ridge(), outside="clip")
    clear = cross_val_score(linear_model.Ridge(), rows, target, cv=2)
    found = cross_val_score(clipped, rows, target, cv=2, error_score="raise")
    np.testing.assert_allclose(found, clear, rtol=0, atol=0.01)
    clips = EncryptedRegressor(linear_model.Ridge(), outside="clip").fit(rows, target)
    found = clips.predict(rows * 3)
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = 0.1 * (high - low)
    expected = clips.estimator_.predict(np.clip(rows * 3, low - margin, high + margin))
    np.testing.assert_allclose(found, expected, rtol=0, atol=MAX_ERROR * np.ptp(expected))
    ranges = {f"f{feature}": (-1.0, 1.0) for feature in range(rows.shape[1])}
    wide = EncryptedRegressor(linear_model.Ridge(), ranges=ranges, outside="clip").fit(rows, target)
    found, expected = wide.predict(rows), wide.estimator_.predict(rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=10 * MAX_ERROR * np.ptp(expected))


def test_columns_keep_their_names():
    data = load_iris(as_frame=True)
    names = list(data.data.columns)
    model = EncryptedClassifier(TREE).fit(data.data, data.target)
    assert {each["feature"] for each in model.report_["features"]} <= set(names)
    assert list(model.estimator_.feature_names_in_) == names
    ranges = {name: (0.0, 10.0) for name in names}
    for outside in ("raise", "clip"):
        linear = EncryptedRegressor(linear_model.Ridge(), ranges=ranges, outside=outside)
        found = linear.fit(data.data, data.target).predict(data.data)
        np.testing.assert_allclose(found, linear.estimator_.predict(data.data), rtol=0, atol=0.02)
    pipeline = make_pipeline(StandardScaler(), linear_model.LogisticRegression())
    fitted = pipeline.fit(data.data, data.target)
    frozen = EncryptedClassifier(FrozenEstimator(fitted), outside="clip").fit(data.data)
    wider = data.data * 1.5
    assert frozen.predict_proba(wider).shape == (150, 3)
    assert (frozen.predict(data.data) == fitted.predict(data.data)).mean() > 0.98


def test_missing_values_where_the_estimator_takes_them():
    rows, labels = load_iris(return_X_y=True)
    rows[::7, 2] = np.nan
    histograms = ensemble.HistGradientBoostingClassifier(max_iter=3, max_depth=2, random_state=0)
    model = EncryptedClassifier(histograms).fit(rows, labels)
    np.testing.assert_array_equal(model.predict(rows), model.estimator_.predict(rows))
    with pytest.raises(ValueError, match="NaN"):
        EncryptedRegressor(linear_model.Ridge()).fit(rows, labels)


def test_keys_are_of_a_fit_and_of_its_model(tmp_path):
    rows, labels = load_iris(return_X_y=True)
    model = EncryptedClassifier(TREE, key_dir=tmp_path / "keys").fit(rows, labels)
    assert model.client_.client.needs_key
    keys = model.client_.get_serialized_evaluation_keys()
    other = EncryptedClassifier(tree.DecisionTreeClassifier(max_depth=2), key_dir=tmp_path / "keys")
    other.fit(rows, labels)
    again = FHEModelClient(model._scorer._folder.name, tmp_path / "keys" / model.model_id_)
    assert again.get_serialized_evaluation_keys() == keys
    assert model.client_.get_serialized_evaluation_keys() == keys
    folders = {path.name for path in (tmp_path / "keys").iterdir()}
    assert folders == {model.model_id_, other.model_id_}
    secret = tmp_path / "keys" / model.model_id_ / "client.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_pickles_hold_no_keys():
    rows, labels = load_iris(return_X_y=True)
    model = EncryptedClassifier(TREE).fit(rows, labels)
    keys = model.client_.get_serialized_evaluation_keys()
    pickled = pickle.dumps(model)
    # Far smaller than keys.
    assert len(pickled) < len(keys) / 2
    back = pickle.loads(pickled)
    np.testing.assert_array_equal(back.predict_proba(rows), model.predict_proba(rows))
    assert back.client_.get_serialized_evaluation_keys() != keys
    assert back.model_id_ == model.model_id_


def test_what_is_saved_opens_in_the_deployment_classes(tmp_path):
    rows, labels = load_iris(return_X_y=True)
    model = EncryptedClassifier(TREE).fit(rows, labels)
    model.save(tmp_path / "saved")
    client, server = FHEModelClient(tmp_path / "saved"), FHEModelServer(tmp_path / "saved")
    encrypted = client.quantize_encrypt_serialize(rows)
    result = server.run(encrypted, client.get_serialized_evaluation_keys())
    found = client.deserialize_decrypt_dequantize(result)
    np.testing.assert_array_equal(found.argmax(axis=1), model.predict(rows))
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "saved")


def test_refusals_say_why():
    rows, labels = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="no classifier"):
        EncryptedClassifier(linear_model.Ridge()).fit(rows, labels)
    with pytest.raises(ValueError, match="no regressor"):
        EncryptedRegressor(TREE).fit(rows, labels)
    with pytest.raises(NotFittedError):
        EncryptedClassifier(TREE).predict(rows)
    for model, said in [
        (svm.SVC(), "SVC cannot be compiled: its kernel"),
        (neighbors.KNeighborsClassifier(), "compares a row with all training rows"),
        (make_pipeline(StandardScaler(), neural_network.MLPClassifier(tol=10, n_iter_no_change=1)), "its layers"),
    ]:
        with pytest.raises(UnsupportedModelError, match=said) as error:
            EncryptedClassifier(model).fit(rows, labels)
        assert "skl2onnx is missing" not in str(error.value)
    with pytest.raises(CompileError, match="log_loss"):
        EncryptedClassifier(linear_model.SGDClassifier()).fit(rows, labels)
    with pytest.raises(ValueError, match="outside is"):
        EncryptedClassifier(TREE, outside="ignore").fit(rows, labels)
    with pytest.raises(TypeError, match="fleet is"):
        EncryptedClassifier(TREE, fleet="somewhere").fit(rows, labels)


def test_cross_validation_through_a_fleet(fleet, workers):
    rows, labels = load_breast_cancer(return_X_y=True)
    model = EncryptedClassifier(
        TREE, fleet=fleet, models_dir=workers.models, serve_timeout=PATIENCE
    )
    found = cross_val_score(model, rows, labels, cv=2, error_score="raise")
    np.testing.assert_array_equal(found, cross_val_score(TREE, rows, labels, cv=2))


def test_the_environment_names_a_fleet(fleet, workers):
    rows, target = load_diabetes(return_X_y=True)
    forest = ensemble.RandomForestRegressor(n_estimators=3, max_depth=2, random_state=0)
    model = EncryptedRegressor(
        forest, fleet="environment", models_dir=workers.models, serve_timeout=PATIENCE
    )
    model.fit(rows, target)
    expected = model.estimator_.predict(rows)
    back = pickle.loads(pickle.dumps(model))
    for each in (model, back):
        np.testing.assert_allclose(
            each.predict(rows), expected, rtol=0, atol=MAX_ERROR * np.ptp(target)
        )
