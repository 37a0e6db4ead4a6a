"""Whether ``client.zip`` and ``server.zip`` of a folder are of one model."""

from __future__ import annotations

from pathlib import Path

from . import _native
from .errors import ArtifactError


def read_server(client: _native.Client, folder: Path) -> bytes:
    """Return the ``server.zip`` beside a client's zip.

    Raises:
        ArtifactError: It is of another model, whose results would be noise.
    """
    zipped = (folder / "server.zip").read_bytes()
    if not client.fits(zipped):
        raise ArtifactError(
            f"client.zip and server.zip in {folder} are of two models: their keys or encodings "
            "differ. Take both from one FHEModelDev(path_dir, model).save()"
        )
    return zipped
