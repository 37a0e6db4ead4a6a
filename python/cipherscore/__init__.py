"""Encrypted scoring over message queues.

* :mod:`cipherscore.deployment`: ``FHEModelDev``, ``FHEModelClient`` and ``FHEModelServer``, as Concrete
  ML has them, for fitted models of scikit-learn, XGBoost and LightGBM and for those of Concrete ML;
  many rows in a call.
* :class:`Fleet`: rows through RabbitMQ to a fleet of workers, and scores back.
* :mod:`cipherscore.errors`: what is raised.
"""

from importlib.metadata import PackageNotFoundError, version

from .errors import (
    ArtifactError,
    BadReplyError,
    BurnedKeyError,
    CipherscoreError,
    CompileError,
    FleetError,
    KeysError,
    NotServedError,
    RangeError,
    RowsError,
    UnsupportedModelError,
)
from .fleet import Fleet, Job, as_completed

__all__ = [
    "ArtifactError",
    "BadReplyError",
    "BurnedKeyError",
    "CipherscoreError",
    "CompileError",
    "Fleet",
    "FleetError",
    "Job",
    "KeysError",
    "NotServedError",
    "RangeError",
    "RowsError",
    "UnsupportedModelError",
    "as_completed",
]

try:
    __version__ = version("cipherscore")
except PackageNotFoundError:  # imported from a source tree that is not installed
    __version__ = "0"
