# SPDX-License-Identifier: Apache-2.0
"""A daemon for this process alone, for notebooks, tests, and machines where nobody runs one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from . import _process, _stoker
from ._arguments import path, paths, seconds, texts
from .client import Client
from .errors import NotFound


class Embedded:
    """A private ``stokerd``. Made by :func:`embedded`; a context manager; ends with this process, however that ends."""

    def __init__(self, native: _stoker.Embedded) -> None:
        self._native = native
        self._pid = os.getpid()
        self._client: Client | None = None
        _process.daemons.add(self)

    @property
    def address(self) -> str:
        """Path of its socket."""
        return self._native.address

    @property
    def pid(self) -> int:
        """Its process."""
        return self._native.pid

    @property
    def log(self) -> str:
        """The end of what it wrote to standard error."""
        return self._native.stderr_tail

    @property
    def client(self) -> Client:
        """A connection to it."""
        if self._client is None:
            self._client = Client(self.address)
            self._client._daemon = self  # which does not end while somebody may read from it
        return self._client

    def close(self) -> None:
        """Ends it and removes its files, and closes the loaders of this process that read from it.

        May be called twice; does nothing in a child of fork.
        """
        if self._pid != os.getpid():
            return
        # A daemon that ends waits for connections to go, and an idle one would not notice.
        for loader in list(_process.loaders):
            if loader._client.address == self.address:
                loader.close()
        for client in list(_process.clients):
            if client.address == self.address:
                client._disconnect()
        self._client = None
        self._native.stop()

    def __enter__(self) -> Embedded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_stokerd() -> str:
    """The daemon's program: ``$STOKERD``, else that of this package, else the one in ``PATH``."""
    named = os.environ.get("STOKERD")
    inside = Path(__file__).parent / "bin" / "stokerd"
    found = named or (str(inside) if inside.exists() else shutil.which("stokerd"))
    if not found:
        raise NotFound("start daemon: no stokerd in this package or in PATH: install it, or name it by $STOKERD")
    return found


def embedded(
    *,
    arena_bytes: int | str = "256MiB",
    workers: int | str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = "/",
    program: str | os.PathLike[str] | None = None,
    extra: str | Iterable[str] = (),
    timeout: float = 60.0,
) -> Embedded:
    """Starts a private ``stokerd`` and waits until it serves.

    >>> with stoker.embedded() as daemon:
    ...     daemon.client.ingest("sahu", "sahu.csv", window=96)
    ...     for batch in stoker.Loader("sahu", client=daemon.client):
    ...         ...

    Args:
        arena_bytes: shared memory for batches: bytes, or with a unit.
        workers: processes that make them; 0: in the daemon itself.
        cache_dir: where stores are kept; default: a temporary directory that goes with the daemon.
        roots: data may be read below these only; it has no more rights than this process.
        program: path of ``stokerd``; default: :func:`find_stokerd`.
        extra: more arguments for it.
        timeout: seconds that it may take to start.

    Raises:
        NotFound: there is no such program.
        Unavailable: it exited or does not serve, with the end of what it said.
    """
    _process.check_usable()
    before = _process.pollers()
    started = Embedded(
        _stoker.start_embedded(
            find_stokerd() if program is None else path("embedded: program", program),
            str(arena_bytes),
            str(workers),
            "" if cache_dir is None else path("embedded: cache_dir", cache_dir),
            paths("embedded: roots", roots),
            texts("embedded: extra", extra),
            seconds("embedded: timeout", timeout),
        )
    )
    _process.remember_pollers(before)
    return started
