"""Concrete ML's client under the hands of a fleet, without the services."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PATIENCE, TESTDATA
from test_concrete import case
from test_fleet import Borrowed

from cipherscore import ArtifactError, Job, KeysError
from cipherscore._remote import RemoteClient
from cipherscore.deployment import FHEModelServer


class Concrete(Borrowed):
    """With Concrete's client and keys in it, where Concrete ML has them."""

    def __init__(self, folder):
        super().__init__(folder)
        self.client = SimpleNamespace(keys=SimpleNamespace(_keyset=object()))
        make = self._own.generate_private_and_evaluation_keys

        def generate(force=False):
            make(force)
            if force:
                self.client.keys._keyset = object()

        self.generate_private_and_evaluation_keys = generate

    def load(self):
        Concrete.__init__(self, self.path_dir)


def save(name, folder):
    """Put a model of Concrete ML into a folder; rows of it and their scores."""
    found, rows, _, scores = case(name)
    shutil.copy(found / "client.zip", folder / "client.zip")
    shutil.copy(TESTDATA / "imported" / f"{name}.zip", folder / "server.zip")
    return rows, scores


def score(client, rows, between):
    """Scores of rows, one in a job; the function is called while the first one is evaluated."""
    remote, server = RemoteClient(client), FHEModelServer(client.path_dir)
    rows = remote.rows(rows)
    job = Job(len(rows))
    calls = []

    def evaluate(key, values, done):
        results = [server.run(value, client.get_serialized_evaluation_keys()) for value in values]
        if not calls:
            between()
        calls.append(values)
        done(results, None)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(remote.score, rows, job, executor, evaluate, job._finish, 1)
        return job.result(PATIENCE)


@pytest.mark.parametrize("kind", [Borrowed, Concrete])
@pytest.mark.parametrize("name", ["decision_tree_classifier", "linear_regression"])
def test_keys_that_change_on_the_way_are_an_error(tmp_path, name, kind):
    rows, scores = save(name, tmp_path)
    client = kind(tmp_path)
    rows, scores = rows[:2], scores[:2]
    found = score(client, rows, lambda: None)
    np.testing.assert_allclose(found.reshape(scores.shape), scores, rtol=1e-6)
    with pytest.raises(KeysError, match="under way"):
        score(client, rows, client.load)
    if name == "linear_regression" and kind is Borrowed:
        return  # Nothing can be seen of its keys.
    with pytest.raises(KeysError, match="under way"):
        score(client, rows, lambda: client.generate_private_and_evaluation_keys(force=True))


def test_a_model_that_is_saved_again_is_looked_at_again(tmp_path):
    save("decision_tree_classifier", tmp_path)
    client = Borrowed(tmp_path)
    remote = RemoteClient(client)
    assert remote.is_current(client)
    save("linear_regression", tmp_path)
    with pytest.raises(ArtifactError, match=r"client\.load\(\)"):
        remote.is_current(client)
    client.load()
    assert not remote.is_current(client)
    again = RemoteClient(client)
    assert again.is_current(client)
    assert again.model_id != remote.model_id
    assert remote.is_classifier and not again.is_classifier
