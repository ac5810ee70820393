"""Structured logs: one JSON line an event on standard error, never a secret."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any, TextIO, cast

import msgspec
import structlog

from libs.service_kit.settings import LoggingSettings

Logger = structlog.typing.FilteringBoundLogger


class TurnWriter:
    """Writes the lines of one turn of the event loop with one call of the system; outside of a loop, each at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._put(line + "\n")
            return
        if not self._lines:
            loop.call_soon(self._flush)
        self._lines.append(line)

    def _flush(self) -> None:
        text = "\n".join((*self._lines, ""))
        self._lines.clear()
        self._put(text)

    def _put(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


class _LineLogger:
    """What structlog calls with a rendered line, whatever its level."""

    def __init__(self, writer: TurnWriter) -> None:
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = writer.write
        self.exception = self.fatal = self.warn = writer.write


class _LineLoggerFactory:
    def __init__(self, writer: TurnWriter) -> None:
        self._writer = writer

    def __call__(self, *_: Any) -> _LineLogger:
        return _LineLogger(self._writer)


def _encode(event: dict[str, Any], **_: Any) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except UnicodeEncodeError:
        # A file name that is no UTF-8 is told with escapes.
        return json.dumps(event, default=str)


def configure_logging(settings: LoggingSettings, service: str) -> Logger:
    """The service's logger. Log lines of libraries (WARNING and above) come out in the same form."""
    level = logging.getLevelNamesMapping()[settings.level]
    timestamper = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_encode)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [structlog.processors.add_log_level, timestamper]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_LineLoggerFactory(TurnWriter(sys.stderr)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    return cast(Logger, structlog.get_logger(service=service))
