"""The main job on this machine, with real parts, from the bench to the NAS: `make demo`, or with RUN=/any/folder."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import grpc

from cli.demo.play import DemoFailedError, play
from cli.demo.stage import DEFAULT_FOLDER
from cli.output import note
from cli.supervisor import ServiceDiedError


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--run", type=Path, help="a folder of yours; the demo works on a copy")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the demo keeps everything")
    arguments = parser.parse_args()
    if arguments.run is not None and not arguments.run.is_dir():
        note(f"{arguments.run} is no folder")
        return 2
    try:
        asyncio.run(play(arguments.folder, arguments.run))
    except (DemoFailedError, ServiceDiedError, OSError) as error:
        note(f"the demo failed: {error}")
        return 1
    except grpc.aio.AioRpcError as error:
        note(f"the demo failed: {error.code().name}: {error.details()}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
