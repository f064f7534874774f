# SPDX-License-Identifier: Apache-2.0
"""What happens to connections, loaders and daemons when the process forks or ends.

gRPC does not live through ``fork``: its threads are not there in the child, and the child would share its descriptors. So
before a fork all connections are given up, gRPC ends, and the child gets an epoll set of its own; parent and child connect
again when they next need to, and loaders go on at the same place. That cannot be done while batches are held or other
threads wait in calls; then the parent keeps what it has, and the child is told when it wants the daemon.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from typing import Any

from . import _stoker
from .errors import WrongState

clients: weakref.WeakSet[Any] = weakref.WeakSet()
loaders: weakref.WeakSet[Any] = weakref.WeakSet()
daemons: weakref.WeakSet[Any] = weakref.WeakSet()

_PATIENCE_SECONDS = 1.0  # for what is ending already
_quiet = True  # gRPC was not running at the last fork
_pollers: set[int] | None = None  # of gRPC, which keeps one for ever
_usable = True  # gRPC can be used in this process


def check_usable() -> None:
    """Before the first use of gRPC in this process."""
    if not _usable:
        raise WrongState(
            "connect to stokerd: this process was forked while batches were held or calls were waiting in its parent, "
            "and gRPC cannot be used in such a child: let go of all batches before the fork, or start processes by "
            "'spawn' or 'forkserver'"
        )


def pollers() -> set[int]:
    """Descriptors of this process that are epoll sets."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.add(int(name))
        except OSError:
            pass  # it was that of the listing
    return found


def connect(address: str, timeout: float) -> _stoker.Client:
    """Connects, and remembers what gRPC polls with."""
    check_usable()
    if _pollers is not None:
        return _stoker.connect(address, timeout)
    before = pollers()
    try:
        return _stoker.connect(address, timeout)
    finally:
        remember_pollers(before)


def remember_pollers(before: set[int]) -> None:
    """After the first use of gRPC; ``before`` it there were these."""
    global _pollers
    if _pollers is None:
        _pollers = pollers() - before


def _await(condition: Any) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def _before_fork() -> None:
    global _quiet
    if not _stoker.grpc_running():
        _quiet = True
        return
    _quiet = False  # if what follows fails
    # One that cannot be given up keeps gRPC running, so the others need not be either.
    _quiet = all([loader._give_up() for loader in list(loaders)])
    if _quiet:
        for client in list(clients):
            client._disconnect()
        _quiet = _await(lambda: not _stoker.grpc_running() and _stoker.calls_in_flight() == 0)


def _after_fork_in_child() -> None:
    global _usable
    _usable = _usable and _quiet
    for loader in list(loaders):
        loader._mapped = None  # the parent's pages: none of them is in the child's page table
    if _quiet and _pollers:
        for fd in _pollers & pollers():
            _stoker.renew_poller(fd)


def _at_exit() -> None:
    # First the readers, then the daemons that they read from.
    for each in [*loaders, *daemons]:
        each.close()
    _stoker.end_calls()
    _await(lambda: _stoker.calls_in_flight() == 0)


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
