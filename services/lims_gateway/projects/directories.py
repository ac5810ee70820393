"""Every configured LIMS, by its address."""

from __future__ import annotations

import time
from collections.abc import Sequence

from libs.service_kit.lims_settings import base_of
from services.lims_gateway.projects.directory import Directory, HealthReport
from services.lims_gateway.projects.errors import LimsNotConfiguredError, UnknownEndpointError


class Directories:
    """The first one is the default. None at all: no LIMS is configured."""

    def __init__(self, directories: Sequence[Directory]) -> None:
        self._directories = tuple(directories)

    def of(self, endpoint: str | None) -> Directory:
        """By endpoint, in any spelling; None: the default. LimsNotConfiguredError, UnknownEndpointError."""
        if not self._directories:
            raise LimsNotConfiguredError
        if endpoint is None:
            return self._directories[0]
        for directory in self._directories:
            if directory.base == base_of(endpoint):
                return directory
        raise UnknownEndpointError(endpoint)

    def every(self) -> Sequence[Directory]:
        """LimsNotConfiguredError."""
        if not self._directories:
            raise LimsNotConfiguredError
        return self._directories

    async def health(self, endpoint: str | None) -> HealthReport:
        """UnknownEndpointError; never an error of the LIMS, nor for the lack of one."""
        started = time.perf_counter()
        try:
            directory = self.of(endpoint)
        except LimsNotConfiguredError as error:
            return HealthReport(False, (time.perf_counter() - started) * 1000, error.message)
        return await directory.health()
