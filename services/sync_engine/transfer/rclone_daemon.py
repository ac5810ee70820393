"""rclone as a child that is spoken to over a Unix socket which nobody else can reach (its remote-control API)."""

from __future__ import annotations

import http.client
import json
import re
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from services.sync_engine.transfer.bandwidth import SharedBandwidth, local_now
from services.sync_engine.transfer.rclone_failures import RCLONE_FAILURES
from services.sync_engine.transfer.tool_failures import tool_failure, without_names
from services.sync_engine.transfer.tool_process import LOOK_SECONDS, ToolProcess, run_tool
from services.sync_engine.transfer.transfer_control import StopReason, TransferControl, TransferStoppedError
from services.sync_engine.transfer.transport import FailureKind, TransferError
from services.sync_engine.transfer.unix_http import UnixHttpConnection

T = TypeVar("T")
R = TypeVar("R")

_WORKERS = 8
# rclone closes a connection on which nothing is asked for a minute, as long as large files are hashed here.
_IDLE_SECONDS = 20.0
ONE_GROUP = {"_group": "labferry"}
"""Belongs to every call: else rclone keeps an account of each, and adds all of them up whenever it is asked."""
_COUNTED = ("bytes", "checks", "deletes", "listed", "renames", "transfers")
# WebDAV servers refuse a folder while another call makes it, and rclone makes it again for each file.
LOCKED = re.compile(r"\b423 Locked\b", re.IGNORECASE)
_PASSING_SECONDS = 0.05
_TRIES_WHILE_PASSING = 40


class RcloneError(Exception):
    """rclone refused a call; `status` is HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class RcloneDaemon:
    """A running rclone, of `rclone_start`. Any thread may call it; `attend` belongs to the one that opened it."""

    def __init__(
        self,
        process: ToolProcess,
        command: Sequence[str],
        environment: Mapping[str, str],
        socket_path: Path,
        control: TransferControl,
        bandwidth: SharedBandwidth,
        log: Path,
    ) -> None:
        """`command` and `environment`: how another rclone with the same configuration is called. What it is told in
        files may lie in the socket's folder."""
        self._process = process
        self._command = command
        self._environment = environment
        self._socket = socket_path
        self.control = control
        self._bandwidth = bandwidth
        self._limit: int | None = None
        self._no_network = False
        self._own = threading.local()
        self._owner = threading.get_ident()
        self._log = log
        self._deadline: float | None = None
        self.folder = socket_path.parent

    def limit_without_network(self) -> None:
        """From now on the limit is that of whatever is copied: a limit of what is sent alone counts at connections, and
        a remote on this machine has none."""
        self._no_network = True
        self._limit = None

    def end_at(self, seconds: float | None) -> None:
        """From now on nothing may take longer, all together."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @cached_property
    def takes_many(self) -> bool:
        """Whether it takes many calls as one; rclone 1.69 doesn't."""
        try:
            self.call("job/batch", inputs=[])
        except RcloneError:
            return False
        return True

    def call(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """What rclone answers. RcloneError when it refuses; TransferError when rclone itself is gone."""
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is not None and time.monotonic() - self._own.used > _IDLE_SECONDS:
            connection.close()
            connection = None
        if connection is None:
            connection = self._own.connection = UnixHttpConnection(self._socket)
        said = self._log.stat().st_size
        self.control.raise_if_stopped()
        try:
            connection.request(
                "POST", "/" + command, json.dumps({**parameters, **ONE_GROUP}), {"Content-Type": "application/json"}
            )
            self._await_answer(connection)
            response = connection.getresponse()
            content = response.read()
        except (TransferError, TransferStoppedError):
            connection.close()
            self._own.connection = None
            raise
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._own.connection = None
            words = self._log.read_bytes()[said:].decode(errors="replace") or str(error)
            raise tool_failure(RCLONE_FAILURES, "rclone ended", self._process.code(), words) from error
        self._own.used = time.monotonic()
        answer: dict[str, Any] = json.loads(content)
        if response.status != http.client.OK:
            raise RcloneError(response.status, str(answer.get("error", answer)))
        return answer

    def _await_answer(self, connection: http.client.HTTPConnection) -> None:
        """The thread that ends rclone never waits for one that answers nothing any more: the others end with it."""
        if threading.get_ident() != self._owner:
            return
        answer = select.poll()
        answer.register(connection.sock, select.POLLIN)
        while not answer.poll(LOOK_SECONDS * 1000):
            self.control.raise_if_stopped()
            self._refuse_late()

    def _refuse_late(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TransferError(FailureKind.NETWORK, "the destination did not answer in time")

    def must(self, doing: str, command: str, paths: Sequence[bytes] = (), **parameters: object) -> dict[str, Any]:
        """As `call`, from the thread that opened it, and a refusal is a TransferError."""
        return self.attend([()], lambda _: self.told(doing, command, paths, **parameters))[0]

    def told(
        self,
        doing: str,
        command: str,
        paths: Sequence[bytes] = (),
        passing: re.Pattern[str] = LOCKED,
        /,
        **parameters: object,
    ) -> dict[str, Any]:
        """As `must`, from any thread: it returns only when rclone answers or ends. What a server says in words that are
        found by `passing` is asked again for two seconds."""
        for _ in range(_TRIES_WHILE_PASSING):
            try:
                return self.call(command, **parameters)
            except RcloneError as refusal:
                failure = tool_failure(RCLONE_FAILURES, doing, None, refusal.words, paths)
                failure.__cause__ = refusal
                if passing.search(without_names(refusal.words, paths)) is None:
                    break
                self.control.wait(_PASSING_SECONDS)
        raise failure

    def tell(self, doing: str, out: IO[bytes], *arguments: str) -> None:
        """What another rclone writes when it is called like this. TransferError unless it ended well."""
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        done = run_tool(
            [*self._command, *arguments],
            environment=self._environment,
            control=self.control,
            stdout=out,
            most_seconds=left,
        )
        if done.code != 0:
            raise tool_failure(RCLONE_FAILURES, doing, done.code, done.stderr.decode(errors="replace"))

    def attend(
        self,
        items: Sequence[T],
        do: Callable[[T], R],
        moved: Callable[[int], None] | None = None,
        workers: int = _WORKERS,
    ) -> list[R]:
        """Does something with each item, several at once, and keeps the bandwidth limit meanwhile. `moved` hears of
        bytes that rclone handled; whatever it counts is a sign of life. After a failure no other item is begun; a stop
        ends rclone."""
        counted = self._stats()["bytes"] if moved is not None else 0
        signs: tuple[int, Mapping[str, int]] | None = None
        failure: TransferError | None = None
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="rclone") as threads:
            try:
                self._keep_limit()
                futures = [threads.submit(do, item) for item in items]
                pending = set(futures)
                while pending:
                    done, pending = wait(pending, LOOK_SECONDS, return_when=FIRST_EXCEPTION)
                    failure = failure or next(filter(None, map(_failure_of, done)), None)
                    if failure is not None:
                        pending = {future for future in pending if not future.cancel()}
                    if pending or moved is not None:
                        stats = self._stats()
                        if (len(pending), stats) != signs:
                            signs = (len(pending), stats)
                            self.control.alive()
                        if moved is not None and stats["bytes"] > counted:
                            moved(stats["bytes"] - counted)
                            counted = stats["bytes"]
                    self.control.raise_if_stopped()
                    if pending:
                        self._refuse_late()
                    self._keep_limit()
            except BaseException as ending:
                # Calls in work would hold the threads: without rclone they end at once. Where another engine has the
                # job by now, rclone gets no time to do more of them.
                lost = isinstance(ending, TransferStoppedError) and ending.reason is StopReason.LEASE_LOST
                self._process.end_children(at_once=lost)
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        if failure is not None:
            raise failure
        return [future.result() for future in futures]

    def _stats(self) -> Mapping[str, int]:
        stats = self.call("core/stats", short=True, group=ONE_GROUP["_group"])
        return {name: int(stats.get(name, 0)) for name in _COUNTED}

    def _keep_limit(self) -> None:
        limit = self._bandwidth.kib_per_second(local_now())
        if limit != self._limit:
            rate = f"{limit}Ki" if self._no_network else f"{limit}Ki:off"
            self.call("core/bwlimit", rate="off" if limit is None else rate)
            self._limit = limit


def _failure_of(future: Future[R]) -> TransferError | None:
    """What rclone refused; a defect of ours is raised."""
    error = future.exception() if not future.cancelled() else None
    if error is not None and not isinstance(error, TransferError):
        raise error
    return error
