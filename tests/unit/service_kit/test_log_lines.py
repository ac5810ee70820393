from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from libs.service_kit.settings import LoggingSettings
from libs.service_kit.telemetry import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def test_every_line_is_written_once_in_order_by_the_end_of_the_loop(capfd: pytest.CaptureFixture[str]) -> None:
    logger = configure_logging(LoggingSettings(), "a service")

    async def turns() -> None:
        for number in range(3):
            logger.info("first", number=number)
            logger.warning("second", number=number)
            await asyncio.sleep(0)
        logger.error("last line of the loop", path="ü\n")

    logger.info("before the loop")
    asyncio.run(turns())
    logger.info("after the loop")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(e["event"], e.get("number")) for e in lines] == [
        ("before the loop", None),
        *((name, number) for number in range(3) for name in ("first", "second")),
        ("last line of the loop", None),
        ("after the loop", None),
    ]
    assert {e["service"] for e in lines} == {"a service"}
