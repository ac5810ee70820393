"""Sees to it that no destination is a folder that runs lie in, nor another destination: what lies there twice by name
lies there once, and deleting it deletes the copy too; and of two equipment the runs of one name would meet there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from libs.service_kit.config import ConfigurationError, Mistake
from libs.service_kit.equipment_settings import EquipmentSettings, MountedTransportSettings
from libs.service_kit.work_threads import WorkThreads
from services.sync_engine.transfer.folder_identity import FolderIdentity, folder_identity
from services.sync_engine.transfer.system_error import destination_error
from services.sync_engine.transfer.transport import FailureKind, TransferError

_LOOK_SECONDS = 2.0
"""What a mount that doesn't answer may take of the start; it is looked at again before each use."""


class CopiesApart:
    """Remembers which folders sources and mounted destinations were when they were last looked at. Any thread may ask.

    Only the folder in question, the sources of its own equipment, and what it was found to overlap are touched, so
    nobody waits for another's dead mount.
    """

    def __init__(self, equipment: Sequence[EquipmentSettings], staging_root: Path | None) -> None:
        self._equipment = equipment
        self._roots = {e.id: dict(_roots(e, staging_root)) for e in equipment}
        self._places = {e.id: dict(_mounted(e)) for e in equipment}
        self._sources: dict[str, Mapping[str, FolderIdentity]] = {}
        self._copies: dict[tuple[str, str], FolderIdentity] = {}
        self._lock = threading.Lock()

    def refuse_overlap(self, equipment_id: str, name: str, path: Path, descriptor: int) -> None:
        """TransferError CONFIGURATION says what else the destination's open folder is."""
        self._look_at_sources(equipment_id)
        try:
            overlap = self._overlap(equipment_id, name, path, descriptor)
        except OSError as error:
            raise destination_error(error, f"looking at {path}") from error
        if overlap:
            raise TransferError(FailureKind.CONFIGURATION, overlap)

    def _overlap(self, equipment_id: str, name: str, path: Path, descriptor: int | None = None) -> str:
        """One plain sentence; empty: it is apart, and remembered. OSError."""
        here = folder_identity(path, descriptor)
        for of in list(self._sources):
            if self._source_in(of, here) and of != equipment_id:
                # It may have moved since, and another folder have its inode now.
                self._look_at_sources(of)
            source = self._source_in(of, here)
            if source:
                return f"{path} and {source} are one folder, or one lies in the other: a copy there would be the run"
        looked_at: dict[tuple[str, str], FolderIdentity] = {}
        while unseen := self._remember(equipment_id, name, here, looked_at):
            for (of, other), known in unseen.items():
                if known.overlaps(here) and _is_still(known, self._places[of][other]):
                    if of == equipment_id:
                        return f"{path} is where destination {other} keeps its copies: one copy would count as two"
                    return f"{path} is where destination {other} of {of} keeps copies: their runs would meet there"
            looked_at |= unseen
        return ""

    def _remember(
        self, equipment_id: str, name: str, here: FolderIdentity, looked_at: Mapping[tuple[str, str], FolderIdentity]
    ) -> dict[tuple[str, str], FolderIdentity]:
        """The other places that weren't looked at yet; only when there are none is this one remembered."""
        own = (equipment_id, name)
        with self._lock:
            unseen = {key: known for key, known in self._copies.items() if key != own and looked_at.get(key) != known}
            if not unseen:
                self._copies[own] = here
        return unseen

    def _source_in(self, equipment_id: str, here: FolderIdentity) -> str:
        """What people call the source that overlaps; empty: none."""
        sources = self._sources[equipment_id].items()
        return next((source for source, identity in sources if identity.overlaps(here)), "")

    async def refuse_at_start(self, threads: WorkThreads) -> None:
        """ConfigurationError with every destination that is not apart. One that isn't there, or doesn't answer at once,
        is looked at before it is used."""
        await _within_moments(threads.run(partial(self._look_at_sources, e.id)) for e in self._equipment)
        found: list[Mistake] = []
        looks = (partial(self._mistakes, number, e, found) for number, e in enumerate(self._equipment))
        await _within_moments(threads.run(look) for look in looks)
        if found:
            raise ConfigurationError("the configuration", sorted(found, key=lambda mistake: mistake.key))

    def _mistakes(self, number: int, equipment: EquipmentSettings, found: list[Mistake]) -> None:
        for place, destination in enumerate(equipment.all_destinations()):
            path = self._places[equipment.id].get(destination.name)
            if path is not None:
                key = f"destinations[{place}].transport" if equipment.destinations else "transport"
                with suppress(OSError):
                    overlap = self._overlap(equipment.id, destination.name, path)
                    if overlap:
                        found.append(Mistake(0, f"equipment[{number}].{key}.path", overlap))

    def _look_at_sources(self, equipment_id: str) -> None:
        found = {}
        for name, root in self._roots[equipment_id].items():
            # What isn't there yet can't be written to either.
            with suppress(OSError):
                found[name] = folder_identity(root)
        self._sources[equipment_id] = found


def _roots(equipment: EquipmentSettings, staging_root: Path | None) -> Iterator[tuple[str, Path]]:
    """The folders above its runs, by what people call them: either may be a mount of its own."""
    roots = {"local_root": equipment.local_root}
    if staging_root is not None:
        roots["orchestrator.staging_root"] = staging_root
    for key, root in roots.items():
        yield f"{key} ({root})", root
        yield f"{equipment.id} in {key} ({root / equipment.id})", root / equipment.id


def _mounted(equipment: EquipmentSettings) -> Iterator[tuple[str, Path]]:
    for destination in equipment.all_destinations():
        if isinstance(destination.transport, MountedTransportSettings):
            yield destination.name, destination.transport.path


def _is_still(known: FolderIdentity, path: Path) -> bool:
    try:
        return folder_identity(path) == known
    except OSError:
        return False


async def _within_moments(looks: Iterable[Coroutine[None, None, None]]) -> None:
    tasks = [asyncio.create_task(look) for look in looks]
    if tasks:
        done, hanging = await asyncio.wait(tasks, timeout=_LOOK_SECONDS)
        for task in hanging:
            task.cancel()
        for task in done:
            task.result()
