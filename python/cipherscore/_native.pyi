from collections.abc import Callable
from typing import Any, Literal, Optional, TypedDict, Union

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
# In the precision in which they came.
_Rows = npt.NDArray[Union[np.float64, np.float32]]
_Integers = npt.NDArray[np.int64]

RANGE_MARGIN: float

class _Options(TypedDict):
    calibration: Optional[_Floats]
    ranges: Optional[list[tuple[str, float, float]]]
    bins: str
    max_bins: Optional[int]
    max_error: float
    hide: bool
    log2_p_fail: float
    form: str

class _Described(TypedDict):
    class_name: str
    features: list[str]
    single_precision: bool
    link: str
    link_scale: float
    probabilities: bool
    classes: list[str]

class _Nodes(TypedDict):
    feature: _Integers
    threshold: _Floats
    left: _Integers
    right: _Integers
    missing_left: npt.NDArray[np.bool_]
    values: _Floats

class _FleetOptions(TypedDict):
    amqp_url: Optional[str]
    redis_url: Optional[str]
    gateway_url: Optional[str]
    token: Optional[str]
    token_file: Optional[str]
    ca_file: Optional[str]
    config: Optional[str]
    tenant: Optional[str]
    lane: Optional[str]
    in_flight: Optional[int]

class Compiled:
    @property
    def client_zip(self) -> bytes: ...
    @property
    def server_zip(self) -> bytes: ...
    @property
    def manifest(self) -> bytes: ...
    @property
    def model_id(self) -> str: ...
    @property
    def report(self) -> bytes: ...

#: Of each feature the texts or the numbers that are its categories, if any, and whether others are
#: refused.
_Categories = list[Optional[tuple[Optional[list[str]], Optional[list[float]], bool]]]

def file_categories(model: bytes, format: Optional[str]) -> _Categories: ...
def compile_file(model: bytes, format: Optional[str], options: _Options) -> Compiled: ...
def compile_trees(
    described: _Described, base: list[float], trees: list[_Nodes], options: _Options
) -> Compiled: ...
def compile_linear(
    described: _Described, intercepts: list[float], weights: _Floats, options: _Options
) -> Compiled: ...

class Client:
    def __init__(
        self,
        client_zip: bytes,
        key_dir: Optional[str] = None,
        passphrase: Optional[str] = None,
    ) -> None: ...
    @property
    def class_name(self) -> str: ...
    @property
    def model_id(self) -> Optional[str]: ...
    @property
    def feature_names(self) -> list[str]: ...
    @property
    def categories(self) -> _Categories: ...
    @property
    def features_are_named(self) -> bool: ...
    @property
    def row_shape(self) -> list[int]: ...
    @property
    def score_kind(self) -> Literal["probabilities", "predictions", "outputs"]: ...
    @property
    def needs_key(self) -> bool: ...
    @property
    def rows_per_job(self) -> int: ...
    def generate_keys(self, force: bool) -> None: ...
    def evaluation_key(self) -> Optional[bytes]: ...
    def encrypt(self, rows: _Rows, form: str) -> bytes: ...
    def decrypt(self, outputs: bytes) -> _Integers: ...
    def scores(self, integers: _Integers) -> _Floats: ...
    def fits(self, server_zip: bytes) -> bool: ...

class Server:
    def __init__(self, server_zip: bytes, recorder: Optional[list[str]] = None) -> None: ...
    @property
    def model_id(self) -> str: ...
    @property
    def needs_key(self) -> bool: ...
    @property
    def bootstraps(self) -> int: ...
    def run(self, values: list[bytes], evaluation_key: bytes) -> list[bytes]: ...

def server_model_id(server_zip: bytes) -> str: ...
def record_and_exit() -> None: ...

class Call:
    def cancel(self) -> None: ...
    @property
    def rows_done(self) -> int: ...

class EvaluationKey:
    def __init__(self, serialised: bytes) -> None: ...

class Fleet:
    def __init__(self, options: _FleetOptions) -> None: ...
    def score(
        self,
        client: Client,
        model_id: str,
        rows: _Rows,
        jobs: tuple[Optional[int], str],
        done: Callable[[Optional[Any], Optional[BaseException]], None],
    ) -> Call: ...
    def evaluate(
        self,
        model_id: str,
        evaluation_key: Optional[EvaluationKey],
        values: list[bytes],
        rows_per_job: int,
        done: Callable[[Optional[Any], Optional[BaseException]], None],
    ) -> Call: ...
    def said(self) -> list[str]: ...
    def close(self) -> None: ...
