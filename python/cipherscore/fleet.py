"""Rows through the queue to a fleet of workers, and scores back."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Iterable, Iterator
from concurrent import futures
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, Union

from . import _native
from ._job import Job
from ._remote import RemoteClient, require_client
from ._results import Results, Shape
from .errors import FleetError

if TYPE_CHECKING:
    from .deployment import FHEModelClient

__all__ = ["Fleet", "Job", "as_completed"]

Method = Literal["predict", "predict_proba"]
Form = Literal["auto", "rows", "bulk"]

_LOG = logging.getLogger("cipherscore")
# How often a call that waits looks at its progress, in seconds.
_TICK = 0.2


def as_completed(jobs: Iterable[Job], timeout: Optional[float] = None) -> Iterator[Job]:
    """Give jobs in the order in which they are done; as ``concurrent.futures.as_completed``."""
    return futures.as_completed(jobs, timeout)  # type: ignore[return-value]


class Fleet:
    """Connections to RabbitMQ and Redis, or to a gateway, behind which workers evaluate.

    Keys, connections and models stay warm: the first call with a client puts its evaluation key into
    the store, later ones do not. A fleet may be used from several threads. Use it as a context
    manager, or call :meth:`close`.

    Rows are encrypted here, in parallel and beside publishing; replies are decrypted in the order in
    which they come. A call has the scores of all its rows, or raises.
    """

    def __init__(
        self,
        url: Optional[str] = None,
        redis_url: Optional[str] = None,
        *,
        token: Optional[str] = None,
        ca_file: Optional[Union[str, os.PathLike[str]]] = None,
        tenant: Optional[str] = None,
        lane: Optional[Literal["high", "normal"]] = None,
        in_flight: Optional[int] = None,
        config: Optional[Union[str, os.PathLike[str]]] = None,
    ) -> None:
        """Reach the fleet; a wrong address, password or token is an error at once.

        Args:
            url: Of a gateway, ``https://HOST``; or of RabbitMQ, ``amqp://USER:PASSWORD@HOST:PORT/VHOST``,
                or ``amqps://`` for TLS. By default the variable ``CIPHERSCORE_GATEWAY_URL`` or
                ``CIPHERSCORE_BROKER_URL``, of which only one may be set.
            redis_url: Beside RabbitMQ, ``redis://USER:PASSWORD@HOST:PORT/NUMBER``, or ``rediss://``; the
                variable ``CIPHERSCORE_REDIS_URL`` by default.
            token: Of a gateway, which says the tenant; the variable ``CIPHERSCORE_GATEWAY_TOKEN``, or the
                file that ``CIPHERSCORE_GATEWAY_TOKEN_FILE`` names, by default.
            ca_file: PEM file with the authorities that the gateway's certificate is of; the variable
                ``CIPHERSCORE_GATEWAY_CA``, or those of the system, by default.
            tenant: Whose keys and jobs; ``"default"`` by default, or the tenant of the token.
            lane: Which of a model's queues: ``"high"`` goes before ``"normal"``. Without it single rows that
                take less than 50 ms go into the high one, and all else into the normal one.
            in_flight: Jobs that are published and not answered, at most; 16 by default.
            config: A file like ``config/producer.toml``, with certificates, leases and deadlines.
        """
        options: Any = {
            **_services(url, redis_url),
            "token": token or os.environ.get("CIPHERSCORE_GATEWAY_TOKEN"),
            "token_file": os.environ.get("CIPHERSCORE_GATEWAY_TOKEN_FILE"),
            "ca_file": os.environ.get("CIPHERSCORE_GATEWAY_CA") if ca_file is None else os.fspath(ca_file),
            "config": None if config is None else os.fspath(config),
            "tenant": tenant,
            "lane": lane,
            "in_flight": in_flight,
        }
        self._native = _native.Fleet(options)
        self._closed = False
        # Concrete ML's clients encrypt in Python, one row at a time.
        self._executor: Optional[futures.ThreadPoolExecutor] = None
        self._remotes: weakref.WeakKeyDictionary[Any, RemoteClient] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def predict_proba(
        self,
        client: Union[FHEModelClient, Any],
        X: Any,
        *,
        rows_per_job: Optional[int] = None,
        timeout: Optional[float] = None,
        progress: Optional[bool] = None,
        form: Form = "auto",
    ) -> Any:
        """Score rows: ``predict_proba`` of the clear model.

        Args:
            client: ``cipherscore.deployment.FHEModelClient``, or Concrete ML's own.
            X: An array or a DataFrame of shape (rows, features).
            rows_per_job: How rows are cut; the model decides by default.
            timeout: Seconds after which the call is taken back.
            progress: Whether to show a progress bar, where tqdm is installed; by default, on a
                terminal.
            form: Of a compiled model: ``"rows"``, one row at a time, in milliseconds; ``"bulk"``,
                thousands at a time; or ``"auto"``, the one that costs less for the number of rows.

        Returns:
            An array of shape (rows, classes); of a DataFrame, a DataFrame with its index and a column
            for each class.

        Raises:
            FleetError: Some rows have no results, or broker or store refuse.
            RowsError: Rows that the model cannot take; nothing was published.
            TimeoutError: ``timeout`` is over.
        """
        job = self.submit(client, X, method="predict_proba", rows_per_job=rows_per_job, form=form)
        return self._wait(job, timeout, progress)

    def predict(
        self,
        client: Union[FHEModelClient, Any],
        X: Any,
        *,
        rows_per_job: Optional[int] = None,
        timeout: Optional[float] = None,
        progress: Optional[bool] = None,
        form: Form = "auto",
    ) -> Any:
        """Score rows: ``predict`` of the clear model.

        Arguments and exceptions are those of :meth:`predict_proba`.

        Returns:
            Labels of a classifier, where the folder of the client knows them, else positions of
            classes; values of a regressor. Of a DataFrame, a Series with its index.
        """
        job = self.submit(client, X, method="predict", rows_per_job=rows_per_job, form=form)
        return self._wait(job, timeout, progress)

    def submit(
        self,
        client: Union[FHEModelClient, Any],
        X: Any,
        *,
        method: Method = "predict_proba",
        rows_per_job: Optional[int] = None,
        form: Form = "auto",
    ) -> Job:
        """Begin to score rows, and return at once.

        Returns:
            A future of what ``method`` would have returned; ``await`` takes it too.
        """
        if self._closed:
            raise FleetError("this fleet is closed")
        if method not in ("predict", "predict_proba"):
            raise ValueError("method is 'predict' or 'predict_proba'")
        from .deployment import FHEModelClient as OwnClient

        if isinstance(client, OwnClient):
            return self._submit_own(client, X, method, rows_per_job, form)
        return self._submit_remote(client, X, method, rows_per_job)

    async def predict_proba_async(self, client: Any, X: Any, **options: Any) -> Any:
        """:meth:`predict_proba` for asyncio: ends its jobs when it is cancelled."""
        return await self._awaited(client, X, "predict_proba", options)

    async def predict_async(self, client: Any, X: Any, **options: Any) -> Any:
        """:meth:`predict` for asyncio: ends its jobs when it is cancelled."""
        return await self._awaited(client, X, "predict", options)

    def _awaited(
        self, client: Any, X: Any, method: Method, options: dict[str, Any]
    ) -> Awaitable[Any]:
        timeout = options.pop("timeout", None)
        return asyncio.wait_for(self.submit(client, X, method=method, **options), timeout)

    def _submit_own(
        self,
        client: FHEModelClient,
        X: Any,
        method: Method,
        rows_per_job: Optional[int],
        form: Form,
    ) -> Job:
        rows = client.rows(X)
        results = Results(method, client.classes_, client.is_classifier, Shape.of(X))
        job = Job(len(rows))

        def done(scores: Any, error: Optional[BaseException]) -> None:
            self._log()
            finish(job, lambda: results.of_scores(scores), error)

        model_id = client.model_id
        job._add(self._native.score(client.client, model_id, rows, (rows_per_job, form), done))
        return job

    def _submit_remote(
        self, client: Any, X: Any, method: Method, rows_per_job: Optional[int]
    ) -> Job:
        require_client(client)
        with self._lock:
            remote = self._remotes.get(client)
            if remote is None or not remote.is_current(client):
                remote = self._remotes[client] = RemoteClient(client)
            if self._executor is None:
                self._executor = futures.ThreadPoolExecutor(1, "cipherscore-concrete")
        rows = remote.rows(X)
        results = Results(method, remote.classes, remote.is_classifier, Shape.of(X))
        job = Job(len(rows))
        executor = self._executor

        count = rows_per_job or remote.rows_per_job

        def evaluate(
            key: Optional[_native.EvaluationKey], values: list[bytes], done: Callable[..., None]
        ) -> None:
            job._add(self._native.evaluate(remote.model_id, key, values, count, done))

        def finished(scores: Any, error: Optional[BaseException]) -> None:
            self._log()
            finish(job, lambda: results.of_scores(scores), error)

        executor.submit(remote.score, rows, job, executor, evaluate, finished, count)
        return job

    def _wait(self, job: Job, timeout: Optional[float], progress: Optional[bool]) -> Any:
        bar = _bar(job.rows, progress)
        left = timeout
        try:
            while True:
                tick = _TICK if left is None else min(_TICK, max(left, 0.0))
                done, _ = futures.wait([job], tick)
                self._log()
                if bar is not None:
                    bar.update(job.rows_done - bar.n)
                if done:
                    return job.result()
                if left is not None:
                    left -= tick
                    if left <= 0:
                        raise TimeoutError(f"no scores of {job.rows} rows within {timeout} s")
        finally:
            # After Ctrl-C or the timeout.
            job.cancel()
            if bar is not None:
                bar.close()

    def _log(self) -> None:
        for sentence in self._native.said():
            _LOG.warning(sentence)

    def close(self) -> None:
        """End the connections, and take back what is under way here."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False)
        self._native.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def _services(url: Optional[str], redis_url: Optional[str]) -> dict[str, Optional[str]]:
    """Which way to the fleet: what is given wins over the environment."""
    is_gateway = url is not None and url.strip().startswith(("https://", "http://"))
    if is_gateway and redis_url is not None:
        raise FleetError("a gateway takes the place of broker and store: leave redis_url out")
    if is_gateway:
        return {"gateway_url": url, "amqp_url": None, "redis_url": None}
    is_given = url is not None or redis_url is not None
    return {
        "gateway_url": None if is_given else os.environ.get("CIPHERSCORE_GATEWAY_URL"),
        "amqp_url": url or os.environ.get("CIPHERSCORE_BROKER_URL"),
        "redis_url": redis_url or os.environ.get("CIPHERSCORE_REDIS_URL"),
    }


def finish(job: Job, make: Callable[[], Any], error: Optional[BaseException]) -> None:
    """End a job with what a function makes of its scores, or with what went wrong."""
    result = None
    if error is None:
        try:
            result = make()
        except BaseException as raised:  # whoever waits must hear of it
            error = raised
    job._finish(result, error)


def _bar(rows: int, progress: Optional[bool]) -> Any:
    """A progress bar, where one is wanted and there is one."""
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if progress:
            _LOG.warning("there is no progress bar without tqdm: pip install tqdm")
        return None
    return tqdm(total=rows, unit="row", unit_scale=True)
