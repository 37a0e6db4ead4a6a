"""What a model's file does not say, and the model itself does."""

from __future__ import annotations

import numpy as np
import pytest

from cipherscore import CompileError, RowsError
from cipherscore.deployment import FHEModelClient, FHEModelDev, FHEModelServer


def scored(folder, rows):
    client = FHEModelClient(folder)
    keys = client.get_serialized_evaluation_keys()
    result = FHEModelServer(folder).run(client.quantize_encrypt_serialize(rows), keys)
    return client.deserialize_decrypt_dequantize(result)


def test_numbers_that_are_missing_to_the_model_are_so_to_the_artifact(folder, rows):
    xgboost = pytest.importorskip("xgboost")
    features, target = rows[0].copy(), rows[1]
    features[::3, 0] = -999.0
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3, missing=-999.0)
    model.fit(features, target)
    FHEModelDev(folder, model).save(calibration=features)
    np.testing.assert_allclose(
        scored(folder, features[:60]), model.predict_proba(features[:60]), atol=1e-3
    )


def test_a_booster_predicts_by_all_rounds_and_a_classifier_by_the_best(tmp_path, rows):
    xgboost = pytest.importorskip("xgboost")
    features, target = rows
    noise = np.random.RandomState(1).rand(len(target)) < 0.4
    noisy = np.where(noise, 1 - target, target)
    data, held_back = (
        xgboost.DMatrix(features[part], noisy[part]) for part in (slice(200), slice(200, None))
    )
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3},
        data,
        60,
        evals=[(held_back, "test")],
        early_stopping_rounds=5,
        verbose_eval=False,
    )
    assert booster.best_iteration + 1 < booster.num_boosted_rounds()
    FHEModelDev(tmp_path / "all", booster).save(calibration=features)
    expected = booster.predict(xgboost.DMatrix(features[:60]))
    np.testing.assert_allclose(scored(tmp_path / "all", features[:60])[:, 1], expected, atol=1e-3)

    classifier = xgboost.XGBClassifier(n_estimators=60, max_depth=3, early_stopping_rounds=5)
    classifier.fit(
        features[:200], noisy[:200], eval_set=[(features[200:], noisy[200:])], verbose=False
    )
    FHEModelDev(tmp_path / "best", classifier).save(calibration=features)
    np.testing.assert_allclose(
        scored(tmp_path / "best", features[:60]),
        classifier.predict_proba(features[:60]),
        atol=1e-3,
    )


def test_categories_are_found_by_their_names(folder, rows):
    lightgbm = pytest.importorskip("lightgbm")
    pandas = pytest.importorskip("pandas")
    cities = np.array(["Bern", "Oslo", "Paris", "NA"])
    random = np.random.RandomState(2)
    frame = pandas.DataFrame({"city": cities[random.randint(4, size=400)], "v": rows[0][:, 0]})
    target = (frame["city"].isin(["Bern", "NA"]) ^ (frame["v"] > 0.7)).astype(int)
    trained = frame.assign(city=frame["city"].astype("category"))
    model = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=7, min_child_samples=5, verbose=-1)
    model.fit(trained, target)
    FHEModelDev(folder, model).save(calibration=trained)
    # A frame of its own, whose categories have other positions.
    other = trained[trained["city"] != "Bern"][:40]
    other = other.assign(city=other["city"].astype(str).astype("category"))
    np.testing.assert_allclose(scored(folder, other), model.predict_proba(other), atol=1e-3)
    codes = other.assign(city=other["city"].cat.codes)
    with pytest.raises(RowsError, match="none of the categories"):
        FHEModelClient(folder).quantize_encrypt_serialize(codes)
    with pytest.raises(RowsError, match="DataFrame"):
        FHEModelClient(folder).quantize_encrypt_serialize(codes.to_numpy())


def test_what_a_converter_loses_is_noticed(folder, rows):
    """A pipeline goes by way of ONNX, whose converter leaves out which way missing values go."""
    pytest.importorskip("skl2onnx")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, target = rows[0].copy(), rows[1]
    features[np.random.RandomState(3).rand(*features.shape) < 0.2] = np.nan
    forest = RandomForestClassifier(n_estimators=3, max_depth=4, random_state=0)
    model = make_pipeline(StandardScaler(), forest).fit(features, target)
    with pytest.raises(CompileError, match="missing values"):
        FHEModelDev(folder, model).save(calibration=features)
