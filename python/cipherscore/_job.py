"""Rows that are under way to the workers of a fleet."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures
from typing import Any, Optional

from . import _native


class Job(futures.Future):  # type: ignore[type-arg]
    """Rows that are under way: a ``concurrent.futures.Future``, which can be awaited too."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        #: How many rows there are.
        self.rows = rows
        self._calls: list[_native.Call] = []
        self._before = 0
        self._lock = threading.Lock()

    @property
    def rows_done(self) -> int:
        """How many rows have results."""
        with self._lock:
            return self._before + sum(call.rows_done for call in self._calls)

    def cancel(self) -> bool:
        """Take the job back: workers leave what they have not begun."""
        cancelled = super().cancel()
        if cancelled:
            with self._lock:
                calls, self._calls = self._calls, []
            for call in calls:
                call.cancel()
        return cancelled

    def __await__(self) -> Any:
        return asyncio.wrap_future(self).__await__()

    def _add(self, call: _native.Call) -> None:
        with self._lock:
            self._calls.append(call)
        # Cancelled in between.
        if self.cancelled():
            call.cancel()

    def _finish(self, result: Any, error: Optional[BaseException]) -> None:
        """Whoever waits goes on. Nothing happens to a job that is cancelled."""
        try:
            if not self.set_running_or_notify_cancel():
                return
        except futures.InvalidStateError:
            return
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)
