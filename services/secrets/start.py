"""What the service does about the encrypted file when it starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from libs.service_kit.errors import InvalidRequestError, LabferryError
from libs.service_kit.run import ServiceStartError
from libs.service_kit.telemetry import Logger
from services.secrets.audit import SERVICE_ITSELF, Audit, PassphraseSource
from services.secrets.errors import UnsafeModeError
from services.secrets.private_file import read_private
from services.secrets.requests import MAX_PASSPHRASE_BYTES, new_passphrase, passphrase
from services.secrets.secret_text import SecretText
from services.secrets.vault import Vault


async def unseal_at_start(vault: Vault, audit: Audit, passphrase_file: Path | None, logger: Logger) -> None:
    """Unseals with the passphrase file, if one is configured and there.

    - No passphrase file configured, or it isn't there (yet): the service starts sealed and waits for Unseal.
    - It can be read by others, or holds no passphrase: the start is refused (ServiceStartError). That is a mistake in
      the configuration.
    - There is no encrypted file: it is made with this passphrase, but only if this log never knew one. A file that was
      there once and is gone is a loss, and not to be papered over by an empty one: the service starts and says so.
    - The passphrase doesn't fit, or the file is damaged or unsafe: the service starts sealed and logs why, so that
      Unseal, GetStatus and the log can be reached. A restart would change nothing.
    """
    try:
        if vault.waits_for_passphrase:
            await _unseal(vault, audit, passphrase_file, logger)
    except InvalidRequestError as error:
        raise ServiceStartError(f"secrets.passphrase_file: {error}") from error
    except LabferryError as error:
        logger.error("secrets_sealed", problem=str(error))


async def _unseal(vault: Vault, audit: Audit, passphrase_file: Path | None, logger: Logger) -> None:
    if passphrase_file is None:
        logger.warning("secrets_sealed", problem="no secrets.passphrase_file is configured; waiting for Unseal")
        return
    text = await asyncio.to_thread(_read_passphrase, passphrase_file)
    if text is None:
        logger.warning("secrets_sealed", problem=f"{passphrase_file} is not there; waiting for Unseal")
    elif vault.file_exists():
        await vault.unseal(passphrase(text.reveal()), PassphraseSource.FILE, SERVICE_ITSELF)
    elif await audit.knows_a_file():
        logger.error("secrets_file_missing", problem="the encrypted file is gone; restore it, or Initialize a new one")
    else:
        await vault.initialize(new_passphrase(text.reveal()), SERVICE_ITSELF)


def _read_passphrase(path: Path) -> SecretText | None:
    """The first line. None when there is no such file. A link is followed: orchestrators mount secrets that way."""
    try:
        content = read_private(path, follow_links=True, limit=MAX_PASSPHRASE_BYTES)
        text = content.data.decode().removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        return None
    except UnsafeModeError as error:
        raise ServiceStartError(f"secrets.passphrase_file: {error}") from error
    except UnicodeDecodeError:
        raise ServiceStartError(f"secrets.passphrase_file: {path} is not UTF-8") from None
    except OSError as error:
        raise ServiceStartError(f"secrets.passphrase_file: {path} can't be read: {error.strerror}") from error
    return SecretText(text)
