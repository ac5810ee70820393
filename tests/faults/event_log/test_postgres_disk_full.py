"""A real full disk under PostgreSQL: a tablespace on a small memory filesystem. Mounting it needs root, as in CI."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.event_log.log_verification import verify_log
from libs.event_log.postgres_store import PostgresEventStore
from libs.event_log.store import AppendResult, LogDiskFullError, RequestKey
from tests.faults.event_log.test_disk_full import fill
from tests.integration.event_log.events import collect, noted, to
from tests.integration.event_log.postgres_cluster import PostgresCluster

SIZE = 24 << 20


@pytest.fixture
def small_disk(postgres_cluster: PostgresCluster) -> Iterator[Path]:
    folder = postgres_cluster.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "labferry-test", str(folder)], check=True)
    try:
        owner = os.stat(postgres_cluster.data)
        shutil.chown(folder, owner.st_uid, owner.st_gid)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_writes_are_refused_and_reads_go_on(postgres_cluster: PostgresCluster, small_disk: Path) -> None:
    await postgres_cluster.execute("postgres", f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    await postgres_cluster.execute("postgres", "CREATE DATABASE small STRATEGY = FILE_COPY TABLESPACE small")
    store = await PostgresEventStore.open(postgres_cluster.url("small"), service="test", version="0.0.0")
    try:
        await store.append([to("s", noted("before"))])
        ballast = await asyncio.to_thread(fill, small_disk)
        # Random text: PostgreSQL compresses what it can.
        texts = [os.urandom(100_000).hex() for _ in range(20)]
        outcomes: list[AppendResult | BaseException] = []
        for number, text in enumerate(texts):
            key = RequestKey("tester", "m", str(number), b"d")
            outcomes += await asyncio.gather(store.append([to("s", noted(text))], key), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, LogDiskFullError)]
        recorded = [outcome for outcome in outcomes if isinstance(outcome, AppendResult)]
        assert refused
        assert len(refused) + len(recorded) == len(texts)
        assert len(await collect(store.read())) == store.head == 2 + len(recorded)

        os.unlink(ballast)
        for number, text in enumerate(texts):
            key = RequestKey("tester", "m", str(number), b"d")
            again = await store.append([to("s", noted(text))], key)
            assert again.repeated == isinstance(outcomes[number], AppendResult)
        assert (await verify_log(store)).events_checked == 2 + len(texts)
    finally:
        await store.close()
        await postgres_cluster.execute("postgres", "DROP DATABASE small WITH (FORCE)")
        await postgres_cluster.execute("postgres", "DROP TABLESPACE small")
