"""Exceptions of this package. Each says what is wrong and what to do about it."""

__all__ = [
    "ArtifactError",
    "BadReplyError",
    "BurnedKeyError",
    "CipherscoreError",
    "CompileError",
    "FleetError",
    "KeysError",
    "NotServedError",
    "RangeError",
    "RowsError",
    "UnsupportedModelError",
]


class CipherscoreError(Exception):
    """All of them."""


class CompileError(CipherscoreError, ValueError):
    """A trained model that cannot be compiled; says what could be."""


class UnsupportedModelError(CompileError):
    """A trained model of a kind that is not read; says what is."""


class ArtifactError(CipherscoreError, ValueError):
    """A ``client.zip`` or ``server.zip`` that cannot be used."""


class KeysError(CipherscoreError):
    """Keys that are damaged, encrypted, or of another model."""


class BurnedKeyError(KeysError):
    """A key for single rows after too many bad replies; ``cipherscore keygen --rotate`` makes new ones."""


class BadReplyError(CipherscoreError):
    """
    A reply to single rows that is whole and decrypts to nothing.

    It is final and counts against the key. Send these rows again only when you know why: whoever runs
    the worker would see that it was one. Hence it is neither a ``FleetError`` nor a ``ConnectionError``,
    which programs try again.
    """


class RowsError(CipherscoreError, ValueError):
    """Rows or ciphertexts that a model cannot take."""


class RangeError(RowsError):
    """Rows with a value outside of the range that a linear model was compiled for."""


class FleetError(CipherscoreError, ConnectionError):
    """Broker, store or workers: away, refused, or without a result."""


class NotServedError(FleetError):
    """A model that no worker has ever had; one that is about to open it may have it soon."""
