"""Which place takes new values, as the configuration says and as the machine allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from libs.service_kit.run import ServiceStartError
from libs.service_kit.settings import SecretsBackend, SecretsSettings
from libs.service_kit.telemetry import Logger
from libs.service_kit.work_threads import WorkThreads
from services.secrets.os_keyring import KeyringState, OsKeyring
from services.secrets.store import FirstStore

if TYPE_CHECKING:
    from services.secrets.openbao_store import OpenBaoStore


@asynccontextmanager
async def open_first_store(settings: SecretsSettings, logger: Logger) -> AsyncIterator[FirstStore | None]:
    """What is asked before the encrypted file, or in the place of it; None: the file alone.

    A keyring that is there is used even if it is locked now: it may be unlocked later, and a value that was put into
    the file meanwhile would be shadowed by an older one then. One that was asked for by name is used even if there is
    none yet. An OpenBao need not answer yet.
    """
    match settings.backend:
        case SecretsBackend.ENCRYPTED_FILE:
            yield None
        case SecretsBackend.OPENBAO:
            async with _openbao(settings, logger) as store:
                yield store
        case backend:
            keyring = OsKeyring()
            state = await keyring.state()
            chosen = None if backend is SecretsBackend.AUTO and state is KeyringState.ABSENT else keyring
            logger.info("backend_chosen", backend=SecretsBackend.ENCRYPTED_FILE if chosen is None else chosen.backend)
            if chosen is not None and state is not KeyringState.WORKS:
                logger.warning("keyring_not_usable", problem=await chosen.problem())
            yield chosen


@asynccontextmanager
async def _openbao(settings: SecretsSettings, logger: Logger) -> AsyncIterator[OpenBaoStore]:
    # Its library takes 0.1 s to import: only who uses it waits for that.
    from services.secrets.openbao_store import OpenBaoStore

    if settings.openbao is None:
        raise ServiceStartError("secrets.openbao is missing")
    threads = WorkThreads("openbao")
    store = OpenBaoStore(settings.openbao, threads, logger)
    renewing = asyncio.create_task(store.renew_tokens(), name="openbao tokens")
    try:
        problem = await store.problem()
        if problem:
            logger.warning("openbao_not_usable", problem=problem)
        yield store
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})
        threads.close()
