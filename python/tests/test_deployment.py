"""Saving, keys, encryption and evaluation in one process, for every kind of model."""

from __future__ import annotations

import hashlib
import stat

import numpy as np
import pytest
from sklearn import ensemble, linear_model, tree
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cipherscore import (
    ArtifactError,
    BadReplyError,
    BurnedKeyError,
    CompileError,
    KeysError,
    RangeError,
    RowsError,
)
from cipherscore.deployment import FHEModelClient, FHEModelDev, FHEModelServer

# Rounding is bounded relative to what a raw output can be; probabilities move by less.
MAX_ERROR = 1e-3


def scored(folder, model, rows, **options):
    """What the whole way gives, in the clear and encrypted."""
    FHEModelDev(folder, model).save(**options)
    client = FHEModelClient(folder)
    keys = client.get_serialized_evaluation_keys()
    encrypted = client.quantize_encrypt_serialize(rows)
    result = FHEModelServer(folder).run(encrypted, keys)
    return client.deserialize_decrypt_dequantize(result)


def test_the_example_of_concrete_ml(tmp_path):
    """`docs/guides/client_server.md` of Concrete ML: imports changed, compile left out."""
    fhe_directory = str(tmp_path / "fhe_client_server_files")
    random = np.random.RandomState(0)
    model = tree.DecisionTreeClassifier(random_state=0)
    X = random.rand(100, 20)
    y = random.randint(0, 2, size=100)
    model.fit(X, y)

    dev = FHEModelDev(path_dir=fhe_directory, model=model)
    dev.save()

    client = FHEModelClient(path_dir=fhe_directory, key_dir=str(tmp_path / "keys_client"))
    serialized_evaluation_keys = client.get_serialized_evaluation_keys()
    X_new = random.rand(1, 20)
    encrypted_data = client.quantize_encrypt_serialize(X_new)

    server = FHEModelServer(path_dir=fhe_directory)
    server.load()
    encrypted_result = server.run(encrypted_data, serialized_evaluation_keys)
    result = client.deserialize_decrypt_dequantize(encrypted_result)
    np.testing.assert_array_equal(result, model.predict_proba(X_new))


CLASSIFIERS = [
    tree.DecisionTreeClassifier(max_depth=4),
    tree.ExtraTreeClassifier(max_depth=4),
    ensemble.RandomForestClassifier(n_estimators=10, max_depth=3),
    ensemble.ExtraTreesClassifier(n_estimators=10, max_depth=3),
    ensemble.GradientBoostingClassifier(n_estimators=10, max_depth=2),
    ensemble.GradientBoostingClassifier(n_estimators=5, max_depth=2, loss="exponential"),
    ensemble.HistGradientBoostingClassifier(max_iter=10, max_depth=2),
]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
def test_classifiers_of_trees(folder, rows, model):
    features, target = rows
    model.set_params(random_state=1).fit(features, target)
    found = scored(folder, model, features)
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=MAX_ERROR)


@pytest.mark.parametrize(
    "model",
    [
        tree.DecisionTreeClassifier(max_depth=3),
        ensemble.RandomForestClassifier(n_estimators=5, max_depth=3),
        ensemble.GradientBoostingClassifier(n_estimators=3, max_depth=2),
        ensemble.HistGradientBoostingClassifier(max_iter=3, max_depth=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_several_classes_with_labels(folder, rows, model):
    features, _ = rows
    labels = np.array(["low", "middle", "high"])[(features[:, 0] * 2.999).astype(int)]
    model.set_params(random_state=1).fit(features, labels)
    found = scored(folder, model, features)
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=3 * MAX_ERROR)
    np.testing.assert_array_equal(FHEModelClient(folder).classes_, model.classes_)


REGRESSORS = [
    tree.DecisionTreeRegressor(max_depth=4),
    ensemble.RandomForestRegressor(n_estimators=10, max_depth=3),
    ensemble.GradientBoostingRegressor(n_estimators=10, max_depth=2),
    ensemble.HistGradientBoostingRegressor(max_iter=10, max_depth=2),
]


@pytest.mark.parametrize("model", REGRESSORS, ids=lambda model: type(model).__name__)
def test_regressors_of_trees(folder, rows, model):
    features, _ = rows
    target = 10 * features[:, 0] + features[:, 1]
    model.set_params(random_state=1).fit(features, target)
    found = scored(folder, model, features)
    assert found.shape == (len(features),)
    # Relative to what a raw output can be: sums of all trees' extremes.
    np.testing.assert_allclose(found, model.predict(features), rtol=0, atol=15 * MAX_ERROR)


LINEAR = [
    linear_model.LinearRegression(),
    linear_model.Ridge(),
    linear_model.ElasticNet(alpha=0.01),
    linear_model.PoissonRegressor(),
]


@pytest.mark.parametrize("model", LINEAR, ids=lambda model: type(model).__name__)
def test_linear_regressors(folder, rows, model):
    features, _ = rows
    target = 1 + features[:, 0] + features[:, 1]
    model.fit(features, target)
    found = scored(folder, model, features, calibration=features)
    np.testing.assert_allclose(found, model.predict(features), rtol=0, atol=10 * MAX_ERROR)
    assert FHEModelClient(folder).get_serialized_evaluation_keys() == b""


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "model",
    [linear_model.LogisticRegression(), linear_model.SGDClassifier(loss="log_loss")],
    ids=lambda model: type(model).__name__,
)
def test_linear_classifiers(folder, rows, model, classes):
    features, _ = rows
    target = (features[:, 0] * (classes - 0.001)).astype(int)
    model.fit(features, target)
    found = scored(folder, model, features, calibration=features)
    # Scores of the largest classes are far apart: an error of a sum is one of many units.
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=0.05)
    assert (found.argmax(axis=1) == model.predict(features)).mean() > 0.98


def test_ranges_stand_for_calibration(folder, rows):
    features, _ = rows
    model = linear_model.LinearRegression().fit(features, features[:, 0])
    ranges = {f"f{feature}": (0.0, 1.0) for feature in range(6)}
    found = scored(folder, model, features, ranges=ranges)
    np.testing.assert_allclose(found, model.predict(features), rtol=0, atol=MAX_ERROR)
    with pytest.raises(RangeError, match="row 1, column \"f0\": .* outside of the range"):
        FHEModelClient(folder).quantize_encrypt_serialize(features + 2)


def test_xgboost(folder, rows):
    xgboost = pytest.importorskip("xgboost")
    features, target = rows
    model = xgboost.XGBClassifier(n_estimators=20, max_depth=3).fit(features, target)
    found = scored(folder, model, features, calibration=features)
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=MAX_ERROR)


def test_lightgbm(folder, rows):
    lightgbm = pytest.importorskip("lightgbm")
    features, target = rows
    model = lightgbm.LGBMClassifier(n_estimators=10, num_leaves=8, verbose=-1)
    model.fit(features, target)
    found = scored(folder, model, features)
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=MAX_ERROR)


def test_pipelines_by_onnx(folder, rows):
    pytest.importorskip("skl2onnx")
    features, target = rows
    model = make_pipeline(StandardScaler(), tree.DecisionTreeClassifier(max_depth=3))
    model.fit(features, target)
    found = scored(folder, model, features)
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=MAX_ERROR)


def test_thresholds_keep_their_bits(folder):
    """A row beside a threshold, where single precision has no number between."""
    lower = np.float32(3)
    upper = np.nextafter(lower, np.float32(1))
    features = np.array([[lower], [upper]], dtype=np.float64)
    model = tree.DecisionTreeClassifier().fit(features, [0, 1])
    assert model.tree_.threshold[0] not in (lower, upper)
    np.testing.assert_array_equal(scored(folder, model, features), [[1, 0], [0, 1]])


def test_missing_values_go_where_the_model_sends_them(folder, rows):
    features, target = rows
    features = features.copy()
    features[::5, 0] = np.nan
    model = tree.DecisionTreeClassifier(max_depth=4, random_state=0).fit(features, target)
    np.testing.assert_allclose(
        scored(folder, model, features), model.predict_proba(features), rtol=0, atol=MAX_ERROR
    )


def test_keys_stay_in_their_folder(folder, tmp_path, rows):
    features, target = rows
    FHEModelDev(folder, tree.DecisionTreeClassifier(max_depth=2).fit(features, target)).save()
    keys = tmp_path / "keys"
    first = FHEModelClient(folder, keys).get_serialized_evaluation_keys()
    assert stat.S_IMODE((keys / "client.key").stat().st_mode) == 0o600
    client = FHEModelClient(folder, keys)
    assert client.get_serialized_evaluation_keys() == first
    client.generate_private_and_evaluation_keys(force=True)
    assert client.get_serialized_evaluation_keys() != first
    other = FHEModelClient(folder, tmp_path / "sealed", passphrase="of the owner")
    other.generate_private_and_evaluation_keys()
    with pytest.raises(KeysError, match="passphrase="):
        FHEModelClient(folder, tmp_path / "sealed").quantize_encrypt_serialize(features)
    others = tmp_path / "others"
    others.mkdir()
    (others / "notes.txt").write_text("something")
    with pytest.raises(KeysError, match="holds other files"):
        FHEModelClient(folder, others)
    # Beside client.zip, as Concrete ML's own notebook has them.
    beside = FHEModelClient(folder, folder)
    key = beside.get_serialized_evaluation_keys()
    assert (folder / "client.key").exists() and (folder / "server.zip").exists()
    assert FHEModelClient(folder, folder).get_serialized_evaluation_keys() == key


def test_rows_that_cannot_be_taken(folder, rows):
    features, target = rows
    FHEModelDev(folder, tree.DecisionTreeClassifier(max_depth=2).fit(features, target)).save()
    client = FHEModelClient(folder)
    for wrong, said in [
        (features[0], "two dimensions"),
        (features[:, :3], "3 features, where the model was trained on 6"),
        (features[:0], "no rows"),
        ([["a"] * 6], "numbers"),
    ]:
        with pytest.raises(RowsError, match=said):
            client.quantize_encrypt_serialize(wrong)
    with pytest.raises(RowsError, match="quantize_encrypt_serialize"):
        FHEModelServer(folder).run(b"nothing of ours", client.get_serialized_evaluation_keys())
    encrypted = client.quantize_encrypt_serialize(features)
    with pytest.raises(KeysError):
        FHEModelServer(folder).run(encrypted, b"no key")


def test_zips_of_two_models_are_refused(tmp_path, rows):
    features, target = rows
    for depth in (2, 3):
        model = tree.DecisionTreeClassifier(max_depth=depth).fit(features, target)
        FHEModelDev(tmp_path / str(depth), model).save()
    server = tmp_path / "2" / "server.zip"
    server.write_bytes((tmp_path / "3" / "server.zip").read_bytes())
    with pytest.raises(ArtifactError, match="are of two models"):
        FHEModelClient(tmp_path / "2")


def test_floats_are_numbers_whatever_their_precision(folder, rows):
    """Trees compare what they get: single precision is exact in double precision."""
    features, target = rows
    model = tree.DecisionTreeClassifier(max_depth=3).fit(features, target)
    found = scored(folder, model, features.astype(np.float32))
    expected = model.predict_proba(features.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=MAX_ERROR)
def test_keys_and_results_of_another_owner_are_refused(folder, rows):
    features, target = rows
    FHEModelDev(folder, tree.DecisionTreeClassifier(max_depth=2).fit(features, target)).save()
    ours, others = FHEModelClient(folder), FHEModelClient(folder)
    encrypted = ours.quantize_encrypt_serialize(features)
    server = FHEModelServer(folder)
    with pytest.raises(KeysError, match="take the evaluation key"):
        server.run(encrypted, others.get_serialized_evaluation_keys())
    result = server.run(encrypted, ours.get_serialized_evaluation_keys())
    with pytest.raises(KeysError, match="decrypt them with the keys that encrypted the rows"):
        others.deserialize_decrypt_dequantize(result)


def test_one_row_takes_the_form_for_single_rows(folder, tmp_path, rows):
    features, target = rows
    model = ensemble.GradientBoostingClassifier(n_estimators=10, max_depth=3, random_state=1)
    FHEModelDev(folder, model.fit(features, target)).save(calibration=features)
    client, server = FHEModelClient(folder), FHEModelServer(folder)
    keys = client.get_serialized_evaluation_keys()
    forms = ("auto", "rows", "bulk")
    encrypted = {form: client.quantize_encrypt_serialize(features[:1], form=form) for form in forms}
    # Of one row kilobytes go up in its own form, and a whole ring's worth in the other.
    assert len(encrypted["auto"]) == len(encrypted["rows"]) < len(encrypted["bulk"]) / 50
    found = [
        client.deserialize_decrypt_dequantize(server.run(encrypted[form], keys)) for form in forms
    ]
    np.testing.assert_allclose(found[0], model.predict_proba(features[:1]), rtol=0, atol=MAX_ERROR)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])

    many = np.tile(features, (25, 1))
    bulk = client.quantize_encrypt_serialize(many, form="bulk")
    assert len(client.quantize_encrypt_serialize(many)) == len(bulk)
    with pytest.raises(RowsError, match="form is one of"):
        client.quantize_encrypt_serialize(features, form="single")

    only_bulk = tmp_path / "bulk"
    FHEModelDev(only_bulk, model).save(calibration=features, form="bulk")
    with pytest.raises(ArtifactError, match="no form `rows`"):
        FHEModelClient(only_bulk).quantize_encrypt_serialize(features[:1], form="rows")


def made_up(result):
    """A reply to single rows with other words, under a digest of them: anybody can make it."""
    text = b"cipherscore row engine: digests of replies, version 1"
    # Magic, number of rows and owner stand before the reply.
    head, body = result[:28], bytearray(result[28:])
    # The bits behind the last word stay 0.
    body[64:-33] = b"\x5a" * (len(body) - 97)
    length = len(text).to_bytes(4, "little")
    body[-32:] = hashlib.sha256(length + text + body[:-32]).digest()
    return head + bytes(body)


@pytest.mark.parametrize("in_folder", [True, False])
def test_bad_replies_burn_a_key_and_are_no_errors_of_connections(folder, tmp_path, rows, in_folder):
    features, target = rows
    model = tree.DecisionTreeClassifier(max_depth=2).fit(features, target)
    FHEModelDev(folder, model).save(form="both")
    client = FHEModelClient(folder, tmp_path / "keys" if in_folder else None)
    keys, server = client.get_serialized_evaluation_keys(), FHEModelServer(folder)
    waiting = client.quantize_encrypt_serialize(features[:1], form="rows")
    for _ in range(8):
        encrypted = client.quantize_encrypt_serialize(features[:1], form="rows")
        with pytest.raises(BadReplyError, match="do not tell those who run the worker") as bad:
            client.deserialize_decrypt_dequantize(made_up(server.run(encrypted, keys)))
        assert not isinstance(bad.value, (ConnectionError, ValueError))
    with pytest.raises(BurnedKeyError, match="keygen --rotate") as burned:
        client.quantize_encrypt_serialize(features[:1], form="rows")
    assert isinstance(burned.value, KeysError)
    with pytest.raises(BurnedKeyError):
        client.deserialize_decrypt_dequantize(server.run(waiting, keys))


def test_frames_are_found_by_their_names(folder, rows):
    pandas = pytest.importorskip("pandas")
    features, target = rows
    names = ["age", "height", "weight", "income", "debt", "years"]
    frame = pandas.DataFrame(features, columns=names)
    model = tree.DecisionTreeClassifier(max_depth=3).fit(frame, target)
    found = scored(folder, model, frame[names[::-1]])
    np.testing.assert_allclose(found, model.predict_proba(frame), rtol=0, atol=MAX_ERROR)
    with pytest.raises(RowsError, match="no column 'age'"):
        FHEModelClient(folder).rows(frame.drop(columns="age"))


def test_what_cannot_be_saved(tmp_path, rows):
    features, target = rows

    def refused(model, **options):
        path = tmp_path / f"refused-{len(list(tmp_path.iterdir()))}"
        with pytest.raises(CompileError) as error:
            FHEModelDev(path, model).save(**options)
        assert not list(path.iterdir())
        return str(error.value)

    from sklearn.neighbors import KNeighborsClassifier

    assert "RandomForest" in refused(object())
    assert "KNeighborsClassifier" in refused(KNeighborsClassifier().fit(features, target))
    assert "not fitted" in refused(tree.DecisionTreeClassifier())
    linear = linear_model.LinearRegression().fit(features, target)
    assert "calibration=" in refused(linear)
    grown = ensemble.RandomForestClassifier(n_estimators=50, random_state=0)
    noise = np.random.RandomState(0)
    grown.fit(noise.rand(3000, 20), noise.randint(0, 2, 3000))
    assert "less depth" in refused(grown)
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("something")
    with pytest.raises(FileExistsError, match="not empty"):
        FHEModelDev(full, linear).save()


def test_folders_without_an_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        FHEModelClient(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"no client\.zip"):
        FHEModelClient(tmp_path)
    (tmp_path / "server.zip").write_bytes(b"no zip")
    with pytest.raises(ArtifactError):
        FHEModelServer(tmp_path)
