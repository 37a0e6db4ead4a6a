"""What is installed: metadata, files, types, the stable ABI."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from conftest import REPOSITORY

import cipherscore
from cipherscore import _native

SOURCES = REPOSITORY / "python" / "cipherscore"


def installed():
    """The distribution, where the package does not come from the source tree."""
    if Path(cipherscore.__file__).parent == SOURCES:
        pytest.skip("the package is not installed")
    return distribution("cipherscore")


def test_the_version_is_the_workspaces():
    manifest = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "([^"]+)"$', manifest, re.MULTILINE)
    assert installed().version == cipherscore.__version__ == version[1]


def test_metadata_says_what_the_package_needs():
    metadata = installed().metadata
    assert metadata["Name"] == "cipherscore"
    assert metadata["Requires-Python"] == ">=3.9"
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra" not in line]
    assert needed == ["numpy>=1.19"]
    assert {"sklearn", "test"} <= set(metadata.get_all("Provides-Extra"))


def test_the_wheel_is_for_every_newer_python():
    wheel = installed().read_text("WHEEL")
    assert re.search(r"^Tag: cp39-abi3-.*linux", wheel, re.MULTILINE), wheel
    assert Path(_native.__file__).name == "_native.abi3.so"


def test_all_files_are_installed():
    names = {path.name for path in Path(cipherscore.__file__).parent.iterdir()}
    expected = {path.name for path in SOURCES.iterdir() if path.suffix in (".py", ".pyi", ".typed")}
    assert "py.typed" in expected
    assert expected <= names


def test_nothing_heavy_is_imported_with_the_package():
    code = "import sys, cipherscore.deployment; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "cipherscore" in loaded
    assert not loaded & {"sklearn", "pandas", "xgboost", "lightgbm", "onnx", "tqdm"}


def test_an_older_scikit_learn_is_named():
    code = (
        "import sys, sklearn\n"
        # It has no such module, as that which concrete-ml asks for.
        "sys.modules['sklearn.frozen'] = None\n"
        "sklearn.__version__ = '1.5.0'\n"
        "import cipherscore.deployment, cipherscore.sklearn"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "scikit-learn 1.6 or newer, and this is 1.5.0" in run.stderr, run.stderr
    assert "environment of their own" in run.stderr.replace("\n", " ")


def test_types():
    """mypy with `strict` over the package and its stubs, as pyproject.toml says."""
    pytest.importorskip("mypy")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental"],
        cwd=SOURCES.parent, capture_output=True, text=True, check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_stubs_name_what_the_module_has():
    """Names and methods of the extension module, in both directions."""
    stubs = ast.parse((SOURCES / "_native.pyi").read_text(encoding="utf-8"))
    defined = (ast.FunctionDef, ast.ClassDef)
    nodes = {node.name: node for node in stubs.body if isinstance(node, defined)}
    constants = {node.target.id for node in stubs.body if isinstance(node, ast.AnnAssign)}
    named = {name for name in nodes if not name.startswith("_")} | constants
    own = {name for name in vars(_native) if not name.startswith("_")}
    assert named == own
    for name in named - constants:
        if isinstance(nodes[name], ast.ClassDef):
            methods = {node.name for node in nodes[name].body if isinstance(node, defined)}
            public = {each for each in vars(getattr(_native, name)) if not each.startswith("_")}
            assert methods - {"__init__"} == public, name
