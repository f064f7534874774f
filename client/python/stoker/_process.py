# SPDX-License-Identifier: Apache-2.0
"""What happens to loaders and daemons when the process forks or ends.

gRPC lives through ``fork`` only if no thread is inside it at that moment. So before a fork each loader's session is ended
unless batches of it are held; the next batch opens another at the same place. If that could not be done for all, the
child is told when it first wants the daemon.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Any, Protocol

from . import _stoker
from .errors import WrongState


class _Closable(Protocol):
    def close(self) -> None: ...


class _Forkable(_Closable, Protocol):
    def _before_fork(self) -> None: ...


_loaders: weakref.WeakSet[Any] = weakref.WeakSet()
_daemons: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()
_started = False
_quiet = True  # nobody was inside gRPC at the last fork
_usable = True  # gRPC, in this process


def start_grpc() -> None:
    """Before the first use of gRPC in this process."""
    global _started
    if not _usable:
        raise WrongState(
            "connect to stokerd: this process was forked while batches were held or calls were waiting in its parent, "
            "and gRPC cannot be used in such a child: let go of all batches before the fork, or start processes by "
            "'spawn' or 'forkserver'"
        )
    with _lock:
        if not _started:
            _stoker.start_grpc()
            _started = True


def remember_loader(loader: _Forkable) -> None:
    _loaders.add(loader)


def remember_daemon(daemon: _Closable) -> None:
    _daemons.add(daemon)


def _before_fork() -> None:
    global _quiet
    for loader in list(_loaders):
        loader._before_fork()
    _quiet = _stoker.open_sessions() == 0 and _stoker.calls_in_flight() == 0


def _after_fork_in_child() -> None:
    global _usable, _lock
    _lock = threading.Lock()
    _usable = _usable and _quiet


def _at_exit() -> None:
    # First the readers, then the daemons that they read from.
    for each in [*_loaders, *_daemons]:
        each.close()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
