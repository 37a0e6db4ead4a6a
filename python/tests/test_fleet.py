"""Rows through real RabbitMQ and Redis to a real worker process."""

from __future__ import annotations

import asyncio
import shutil

import numpy as np
import pytest
from conftest import PATIENCE, TESTDATA, services
from sklearn import tree

from cipherscore import (
    ArtifactError,
    Fleet,
    FleetError,
    NotServedError,
    RowsError,
    as_completed,
)
from cipherscore.deployment import FHEModelClient, FHEModelDev

LABELS = np.array(["stays", "goes"])


@pytest.fixture(scope="module")
def served(workers, rows, tmp_path_factory):
    """A model with labels that a worker serves, the client of its data owner, and the model."""
    features, target = rows
    model = tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(features, LABELS[target])
    folder = tmp_path_factory.mktemp("served")
    FHEModelDev(folder, model).save()
    workers.serve((folder / "server.zip").read_bytes(), "tree")
    client = FHEModelClient(folder, folder / "keys")
    broker, store = services()
    with Fleet(broker, store) as fleet:
        workers.until(lambda: fleet.predict(client, features[:1], timeout=PATIENCE))
    return client, model


def test_arrays(fleet, served, rows):
    client, model = served
    features, _ = rows
    np.testing.assert_array_equal(fleet.predict(client, features), model.predict(features))
    found = fleet.predict_proba(client, features, rows_per_job=150)
    np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=1e-3)


def test_forms(fleet, served, rows):
    client, _ = served
    row = rows[0][:1]
    found = [
        fleet.predict_proba(client, row, form=form, timeout=PATIENCE)
        for form in ("rows", "bulk", "auto")
    ]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_frames(fleet, served, rows):
    pandas = pytest.importorskip("pandas")
    client, model = served
    features, _ = rows
    frame = pandas.DataFrame(features[:20], index=[f"row {row}" for row in range(20)])
    labels = fleet.predict(client, frame)
    assert list(labels.index) == list(frame.index)
    assert list(labels) == list(model.predict(features[:20]))
    probabilities = fleet.predict_proba(client, frame)
    assert list(probabilities.columns) == list(model.classes_)
    assert list(probabilities.index) == list(frame.index)


def test_futures(fleet, served, rows):
    client, model = served
    features, _ = rows
    jobs = {
        fleet.submit(client, features[start : start + 50], method="predict"): start
        for start in range(0, 200, 50)
    }
    for job in as_completed(jobs, timeout=PATIENCE):
        start = jobs[job]
        expected = model.predict(features[start : start + 50])
        np.testing.assert_array_equal(job.result(), expected)
        assert job.rows_done == job.rows == 50


def test_asyncio(fleet, served, rows):
    client, model = served
    features, _ = rows

    async def both():
        job = fleet.submit(client, features[:10], method="predict")
        return await asyncio.gather(fleet.predict_async(client, features[10:20]), job)

    later, sooner = asyncio.run(both())
    np.testing.assert_array_equal(sooner, model.predict(features[:10]))
    np.testing.assert_array_equal(later, model.predict(features[10:20]))


def test_rows_that_cannot_be_taken_cost_nothing(fleet, served, rows):
    client, _ = served
    features, _ = rows
    with pytest.raises(RowsError, match="3 features"):
        fleet.predict(client, features[:, :3])
    with pytest.raises(TypeError, match="FHEModelClient"):
        fleet.predict(object(), features)


def test_a_model_without_workers_is_an_error_at_once(fleet, tmp_path, rows):
    features, target = rows
    FHEModelDev(tmp_path / "m", tree.DecisionTreeRegressor(max_depth=2).fit(features, target)).save()
    client = FHEModelClient(tmp_path / "m")
    with pytest.raises(NotServedError, match="no worker has ever served model"):
        fleet.predict(client, features)


def test_a_job_can_be_taken_back(fleet, served, rows):
    client, _ = served
    features, _ = rows
    job = fleet.submit(client, np.tile(features, (50, 1)), rows_per_job=100)
    assert job.cancel()
    assert job.cancelled()
    # The others go on.
    assert len(fleet.predict(client, features[:5])) == 5


def test_time_is_bounded(fleet, served, rows):
    client, _ = served
    features, _ = rows
    with pytest.raises(TimeoutError, match="400 rows"):
        fleet.predict(client, features, timeout=0)


def test_wrong_services_are_errors_that_show_no_password(served):
    broker, store = services()
    user, rest = broker.split("@", 1)
    wrong_broker = f"{user.rsplit(':', 1)[0]}:s3cret-and-wrong@{rest}"
    password, rest = store.split("@", 1)
    wrong_store = f"{password.rsplit(':', 1)[0]}:s3cret-and-wrong@{rest}"
    nobody = "amqp://guest:s3cret-and-wrong@127.0.0.1:9"
    for urls in [
        (wrong_broker, store),
        (broker, wrong_store),
        (nobody, store),
        ("s3cret-and-wrong", store),
        (broker, "s3cret-and-wrong"),
    ]:
        with pytest.raises(FleetError) as error:
            Fleet(*urls)
        assert "s3cret" not in str(error.value), error.value
        assert str(error.value)


def test_through_a_gateway(gateway, workers, served, rows, monkeypatch):
    for name in ("BROKER_URL", "REDIS_URL"):
        monkeypatch.delenv(f"CIPHERSCORE_{name}")
    client, model = served
    features, _ = rows
    with Fleet(gateway.url, token=gateway.token) as fleet:
        np.testing.assert_array_equal(fleet.predict(client, features), model.predict(features))
        found = fleet.predict_proba(client, features, rows_per_job=150)
        np.testing.assert_allclose(found, model.predict_proba(features), rtol=0, atol=1e-3)
    with pytest.raises(FleetError, match="does not take the token"):
        Fleet(gateway.url, token="s3cret-and-wrong")
    with pytest.raises(FleetError, match="is of tenant bank"):
        Fleet(gateway.url, token=gateway.token, tenant="another")
    monkeypatch.setenv("CIPHERSCORE_GATEWAY_URL", gateway.url)
    monkeypatch.setenv("CIPHERSCORE_GATEWAY_TOKEN", gateway.token)
    with Fleet() as fleet:
        np.testing.assert_array_equal(fleet.predict(client, features[:5]), model.predict(features[:5]))


def test_a_wrong_gateway_is_an_error_that_shows_no_token(monkeypatch, tmp_path):
    gateway = ("GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_TOKEN_FILE")
    for name in (*gateway, "BROKER_URL", "REDIS_URL", "BROKER__URL", "STORE__URL"):
        monkeypatch.delenv(f"CIPHERSCORE_{name}", raising=False)
    token = "s3cret-and-wrong"
    open_to_others = tmp_path / "token"
    open_to_others.write_text(token)
    open_to_others.chmod(0o644)

    def message(*urls, **options):
        with pytest.raises(FleetError) as error:
            Fleet(*urls, **options)
        assert "s3cret" not in str(error.value), error.value
        return str(error.value)

    assert "refused" in message("http://127.0.0.1:9", token=token)
    assert "everybody on the way" in message("http://gateway.example", token=token)
    assert "CIPHERSCORE_GATEWAY_TOKEN" in message("https://gateway.example")
    assert "redis_url" in message("https://gateway.example", "redis://127.0.0.1", token=token)
    assert "https:// of its gateway" in message()
    # The environment names both, and neither is given.
    monkeypatch.setenv("CIPHERSCORE_GATEWAY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CIPHERSCORE_GATEWAY_TOKEN_FILE", str(open_to_others))
    assert "chmod 600" in message()
    open_to_others.chmod(0o600)
    assert "refused" in message()
    monkeypatch.setenv("CIPHERSCORE_BROKER_URL", "amqp://127.0.0.1:9")
    assert "takes the place" in message()


def test_a_closed_fleet_says_so(served, rows):
    client, _ = served
    broker, store = services()
    fleet = Fleet(broker, store)
    fleet.close()
    fleet.close()
    with pytest.raises(FleetError, match="closed"):
        fleet.predict(client, rows[0])


class Borrowed:
    """Concrete ML's own client as a fleet sees it: three methods, a row at a time, and the folder."""

    def __init__(self, folder):
        self.path_dir = folder
        self._own = FHEModelClient(folder)
        self.client = self._own.client
        self.generate_private_and_evaluation_keys = self._own.generate_private_and_evaluation_keys
        self.get_serialized_evaluation_keys = self._own.get_serialized_evaluation_keys
        self.deserialize_decrypt_dequantize = self._own.deserialize_decrypt_dequantize

    def quantize_encrypt_serialize(self, row):
        assert row.shape[0] == 1
        return self._own.quantize_encrypt_serialize(row)

    def load(self):
        Borrowed.__init__(self, self.path_dir)


def test_a_client_with_new_keys_is_asked_for_them(fleet, workers, tmp_path):
    """Results under the keys of an earlier call would be noise, and nothing would say so."""
    from test_concrete import case

    folder, rows, _, scores = case("decision_tree_classifier")
    shutil.copy(folder / "client.zip", tmp_path / "client.zip")
    imported = (TESTDATA / "imported" / "decision_tree_classifier.zip").read_bytes()
    (tmp_path / "server.zip").write_bytes(imported)
    workers.serve(imported, "borrowed")
    client = Borrowed(tmp_path)

    def expect_scores():
        found = workers.until(lambda: fleet.predict_proba(client, rows[:1], timeout=PATIENCE))
        np.testing.assert_allclose(found, scores[:1], rtol=1e-6)

    expect_scores()
    client.generate_private_and_evaluation_keys(force=True)
    expect_scores()
    client.load()
    expect_scores()
    with pytest.raises(RowsError, match="another order"):
        fleet.predict_proba(client, rows[:1].reshape(1, 2, -1))


def test_a_model_that_is_saved_again_is_the_one_that_is_asked(fleet, workers, tmp_path):
    """Rows that are quantised for the new model must not go to the old one."""
    from test_concrete import case

    def save(name):
        folder, rows, _, scores = case(name)
        shutil.copy(folder / "client.zip", tmp_path / "client.zip")
        imported = (TESTDATA / "imported" / f"{name}.zip").read_bytes()
        (tmp_path / "server.zip").write_bytes(imported)
        return imported, rows[:2], scores[:2]

    imported, rows, scores = save("decision_tree_classifier")
    workers.serve(imported, "before")
    client = Borrowed(tmp_path)
    found = workers.until(lambda: fleet.predict_proba(client, rows, timeout=PATIENCE))
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    imported, rows, scores = save("linear_regression")
    workers.serve(imported, "after")
    with pytest.raises(ArtifactError, match=r"client\.load\(\)"):
        fleet.predict(client, rows)
    client.load()
    found = workers.until(lambda: fleet.predict(client, rows, timeout=PATIENCE))
    np.testing.assert_allclose(np.reshape(found, scores.shape), scores, rtol=1e-6)


def test_a_folder_of_concrete_ml(fleet, workers, tmp_path):
    """Our client on a folder of Concrete ML, whose circuit the worker has as data."""
    from test_concrete import case

    folder, rows, _, scores = case("decision_tree_classifier")
    shutil.copy(folder / "client.zip", tmp_path / "client.zip")
    imported = (TESTDATA / "imported" / "decision_tree_classifier.zip").read_bytes()
    (tmp_path / "server.zip").write_bytes(imported)
    workers.serve(imported, "concrete")
    client = FHEModelClient(tmp_path, tmp_path / "keys")
    found = workers.until(lambda: fleet.predict_proba(client, rows, timeout=PATIENCE))
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    # Nothing says what the classes are called.
    np.testing.assert_array_equal(fleet.predict(client, rows), scores.argmax(axis=1))
