"""The examples in the documentation do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY, services

PLACEHOLDERS = ('"amqp://USER:PASSWORD@HOST"', '"redis://:PASSWORD@HOST"')


def examples(document):
    """Blocks of Python in a document."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found, document
    return found


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_examples(document, workers, tmp_path, monkeypatch):
    pytest.importorskip("xgboost")
    monkeypatch.chdir(tmp_path)
    space = {}
    for example in examples(document):
        for placeholder, url in zip(PLACEHOLDERS, services()):
            example = example.replace(placeholder, repr(url))
        code = compile(example, document, "exec")
        if "Fleet(" in example and "import Fleet" in example:
            server_zip = Path("model/server.zip").read_bytes()
            workers.serve(server_zip, f"documents-{document.replace('/', '-')}")
            workers.until(lambda code=code: exec(code, space))
        else:
            exec(code, space)


def test_links_lead_somewhere():
    text = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    for link in links:
        assert (REPOSITORY / "docs" / link).exists(), link


def test_every_error_is_in_the_table():
    from cipherscore import errors

    text = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+Error)` \| .* \| (.*?) ?\|$", text, re.MULTILINE))
    assert set(rows) == set(errors.__all__) - {"CipherscoreError"}
    for name, base in rows.items():
        bases = {each.__name__ for each in getattr(errors, name).__mro__}
        assert base.strip("` ") in bases | {""}, name
