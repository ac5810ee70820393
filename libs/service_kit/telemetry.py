"""Structured logs: one JSON line an event on standard error, never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import msgspec
import structlog

from libs.service_kit.settings import LoggingSettings

Logger = structlog.typing.FilteringBoundLogger


def _encode(event: dict[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


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
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
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
