"""Becomes one service process after the other, in a fork of itself that has their modules already.

A run of all tests starts services hundreds of times, and half the processor time of a short-lived one went
into imports. What runs in the fork is the service's own `__main__`, with arguments, environment, folder and open files
as a program started by itself would have them. The program itself is started by `labferry up`, the demo, the
documentation's commands, and wherever a test passes an environment that imports depend on.
"""

from __future__ import annotations

import gc
import os
import runpy
import selectors
import socket
import sys
from contextlib import suppress
from typing import NamedTuple

import msgspec

import services.lims_gateway.app
import services.secrets.app
import services.sync_engine.app  # noqa: F401 -- imported for those who are forked
from tests.processes.order import MOST_BYTES, Order

_FILES = 3


class Files(NamedTuple):
    """Open files that come with an order: the log, where to announce the address, and where to tell of the end."""

    log: int
    announce: int
    told: int


def serve(orders: socket.socket) -> tuple[Order, Files] | None:
    """Forks for each order. Returns the order in the fork; None in the server, when nobody can send any more."""
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is orders:
                    message, received, _, _ = socket.recv_fds(orders, MOST_BYTES, _FILES)
                    if not message:
                        return None
                    files = Files(*received)
                    child = os.fork()
                    if child == 0:
                        return msgspec.json.decode(message, type=Order), files
                    _follow(selector, child, files)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _tell_end(*key.data)


def _follow(selector: selectors.DefaultSelector, child: int, files: Files) -> None:
    os.close(files.log)
    os.close(files.announce)
    told = socket.socket(fileno=files.told)
    told.sendall(f"{child}\n".encode())
    selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, told))


def _tell_end(child: int, told: socket.socket) -> None:
    _, status = os.waitpid(child, 0)
    # Whoever asked may have gone.
    with told, suppress(BrokenPipeError):
        told.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become(order: Order, files: Files) -> None:
    """Runs the module."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, files.log, files.log)):
        os.dup2(file, number)
    os.closerange(3, files.announce)
    os.closerange(files.announce + 1, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.argv = [order.module, *order.arguments_for(files.announce)]
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def main() -> None:
    gc.collect()
    gc.freeze()
    forked = serve(socket.socket(fileno=int(sys.argv[1])))
    if forked is not None:
        become(*forked)


if __name__ == "__main__":
    main()
