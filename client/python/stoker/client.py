# SPDX-License-Identifier: Apache-2.0
"""A connection to the daemon, and data sets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from . import _process, _stoker
from ._arguments import constant, name_of, path, paths, seconds, texts
from .status import Dataset, Ingested, Status, load

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Progress = Callable[[dict[str, Any]], None]

_TARGETS = ("none", "class", "value")


class Client:
    """A connection to ``stokerd``. Made by :func:`connect`.

    May be used from any thread, pickled (it connects again where it is unpickled) and taken through ``fork``. Calls wait
    at most ``timeout`` seconds for an answer, then :class:`stoker.Timeout`; :class:`stoker.Unavailable`: nobody answers.
    """

    def __init__(self, address: str | os.PathLike[str] | None = None, *, timeout: float = 10.0) -> None:
        self._daemon: Any = None  # an embedded one, for as long as this is there
        self._asked = "" if address is None else os.fspath(address)
        self._timeout = seconds("connect: timeout", timeout)
        self._connect()

    def _connect(self) -> _stoker.Client:
        self._native: _stoker.Client | None = _process.connect(self._asked, self._timeout)
        self._pid = os.getpid()
        self._asked = self._native.address  # of this daemon from now on
        _process.clients.add(self)
        return self._native

    def _handle(self) -> _stoker.Client:
        native = self._native
        return native if native is not None and self._pid == os.getpid() else self._connect()

    def _disconnect(self) -> None:
        self._native = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _connect, (self._asked, self._timeout)

    def __repr__(self) -> str:
        return f"stoker.connect({self._asked!r})"

    @property
    def address(self) -> str:
        """Of the daemon: a socket's path or ``HOST:PORT``."""
        return self._asked

    def health(self, service: str = "") -> bool:
        """Whether the daemon (or one of its services) is serving."""
        return self._handle().health(service)

    def status(self) -> Status:
        """Memory, workers, streams, sessions and data sets, as they are now."""
        return load(Status, json.loads(self._handle().status()))

    def datasets(self) -> list[Dataset]:
        """All data sets, by name."""
        return [load(Dataset, info) for info in json.loads(self._handle().datasets(""))["datasets"]]

    def dataset(self, name: str) -> Dataset:
        """One data set; :class:`stoker.NotFound` if there is none."""
        (info,) = json.loads(self._handle().datasets(name_of("data set", name)))["datasets"]
        return load(Dataset, info)

    def drop(self, name: str) -> bool:
        """Forgets a data set; whether its files went too, because no other name needs them.

        :class:`stoker.WrongState` while somebody reads it.
        """
        return self._handle().drop(name_of("data set", name))

    def ingest(
        self,
        name: str,
        source: Paths,
        *,
        format: str = "auto",
        target: str | Iterable[str] | None = None,
        layout: str | None = None,
        data_array: str | None = None,
        target_array: str | os.PathLike[str] | None = None,
        window: int | None = None,
        stride: int | None = None,
        channels: Iterable[str] | None = None,
        missing: str | None = None,
        unequal: str | None = None,
        time_column: str | None = None,
        label: str | None = None,
        label_from_file_name: bool = False,
        exclude: Iterable[str] | None = None,
        working_column: str | None = None,
        gap_seconds: float | None = None,
        graph: str | None = None,
        k: int | None = None,
        tolerance: float | None = None,
        cutoff: float | None = None,
        max_neighbors: int | None = None,
        triplet_cutoff: float | None = None,
        directed: bool = False,
        id_key: str | None = None,
        primitive: bool = False,
        on_error: str | None = None,
        sidecar: Mapping[str, str | os.PathLike[str]] | None = None,
        atom_features: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
        progress: bool | Progress | None = None,
    ) -> Ingested:
        """Makes a data set of files, or finds that it is made already (then it is immediate).

        The keywords are the options of ``stokerctl ingest``; ``proto/stoker/v1/store.proto`` has ranges and defaults.
        Interrupted, by Ctrl-C or otherwise, it goes on where it was when it is asked again.

        Args:
            name: of the data set.
            source: files or directories, below the daemon's roots.
            format: ``"auto"``, ``"ts"``, ``"ucr"``, ``"npy"``, ``"csv"``, ``"jarvis"``, ``"id-prop"``, ``"extxyz"``,
                ``"matbench"``, ``"poscar"`` or ``"cif"``.
            target: time series: ``"none"``, ``"class"`` or ``"value"``; crystals: keys of the records, in a list if there
                are several.
            layout, data_array, target_array: of ``.npy`` and ``.npz`` files: ``"nct"`` (default) or ``"ntc"``, keys.
            window, stride: in points; without a window each series is a sample.
            channels, missing, unequal: which ones; ``"error"``, ``"linear"`` or ``"zero"``; ``"error"``, ``"paa"``,
                ``"crop"`` or ``"pad"``.
            time_column, label, label_from_file_name, exclude, working_column, gap_seconds: of CSV files.
            graph, k, tolerance, cutoff, max_neighbors, triplet_cutoff, directed: how neighbours are found: ``"knn"``
                (default), ``"alignn"``, ``"radius"`` or ``"cgcnn"``; Å.
            id_key, primitive, on_error, sidecar, atom_features: of crystals; sidecars by name.
            options: fields of ``IngestOptions`` as the proto's JSON, for what has no keyword here.
            progress: ``None``: a tqdm bar where tqdm is installed and standard error is a terminal; ``True``: a bar;
                ``False``: none; a function: called with the fields of ``IngestEvent.Progress``.

        Raises:
            InvalidRequest: bad options or bad data, naming file and line.
            NotAllowed: a path outside the daemon's roots.
        """
        csv = {
            "time_column": time_column,
            "label": label,
            "label_from_file_name": label_from_file_name or None,
            "exclude": _texts("exclude", exclude),
            "working_column": working_column,
            "gap_seconds": gap_seconds,
        }
        crystal = {
            "graph": _constant("graph", graph),
            "k": k,
            "tolerance": tolerance,
            "cutoff": cutoff,
            "max_neighbors": max_neighbors,
            "triplet_cutoff": triplet_cutoff,
            "directed": directed or None,
            "id_key": id_key,
            "primitive": primitive or None,
            "on_error": _constant("on_error", on_error, "ON_ERROR_"),
            "atom_features": None if atom_features is None else path("ingest: atom_features", atom_features),
            "sidecar": [{"name": key, "path": path(f"ingest: sidecar {key}", file)} for key, file in sidecar.items()]
            if sidecar
            else None,
            "target": None if target in _TARGETS else _texts("target", target),
        }
        given: dict[str, Any] = {
            "format": "FORMAT_AUTO" if format == "auto" else _constant("format", format),
            "layout": _constant("layout", layout),
            "data_array": data_array,
            "target_array": _target_array(target_array),
            "window": window,
            "stride": stride,
            "channels": _texts("channels", channels),
            "missing": _constant("missing", missing, "MISSING_"),
            "unequal": _constant("unequal", unequal, "UNEQUAL_"),
            "target": _constant("target", target, "TARGET_") if isinstance(target, str) and target in _TARGETS else None,
            "csv": _known(csv),
            "crystal": _known(crystal),
        }
        request = {
            "name": name_of("ingest: name", name),
            "source": paths("ingest: source", source),
            "options": {**(_known(given) or {}), **(options or {})},
        }
        with _Bar(name, progress) as bar:
            done = self._handle().ingest(json.dumps(request), bar.update if bar.wanted else None)
        return load(Ingested, json.loads(done))


def _connect(address: str, timeout: float) -> Client:
    return Client(address, timeout=timeout)


def connect(address: str | os.PathLike[str] | None = None, *, timeout: float = 10.0) -> Client:
    """Connects to a daemon: a socket's path, ``unix:PATH`` or ``HOST:PORT``.

    Default: ``$STOKER_ADDRESS``, else the system's daemon if it answers, else the user's own.

    Raises:
        Unavailable: nobody answers there; names the path and the remedy.
        NotAllowed: the socket may not be used.
    """
    return Client(address, timeout=timeout)


def _constant(name: str, value: str | None, prefix: str = "") -> str | None:
    return None if value is None else constant(f"ingest: {name}", value, prefix)


def _texts(name: str, value: str | Iterable[str] | None) -> list[str] | None:
    return None if value is None else texts(f"ingest: {name}", value)


def _target_array(value: str | os.PathLike[str] | None) -> str | None:
    """A path for ``.npy`` files, a key for ``.npz``."""
    if value is None:
        return None
    key = os.fspath(value)
    return path("ingest: target_array", key) if key.endswith(".npy") else key


def _known(values: dict[str, Any]) -> dict[str, Any] | None:
    return {key: value for key, value in values.items() if value is not None} or None


class _Bar:
    """A progress bar, or the caller's function, over the progress of an ingest."""

    def __init__(self, name: str, progress: bool | Progress | None) -> None:
        self._name = name
        self._bar: Any = None
        self._phase = ""
        self._call = progress if callable(progress) else None
        self._show = False
        if progress is True or (progress is None and sys.stderr is not None and sys.stderr.isatty()):
            try:
                import tqdm
            except ImportError:
                if progress is True:
                    raise
            else:
                self._tqdm = tqdm.tqdm
                self._show = True
        self.wanted = self._show or self._call is not None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, text: str) -> None:
        fields = json.loads(text)
        for key, value in fields.items():
            if key != "phase":
                fields[key] = int(value)
        if self._call is not None:
            self._call(fields)
        if not self._show:
            return
        if self._bar is None or fields["phase"] != self._phase:
            if self._bar is not None:
                self._bar.close()
            self._phase = fields["phase"]
            self._bar = self._tqdm(
                desc=f"{self._name}: {self._phase}", total=fields["bytes_total"], unit="B", unit_scale=True
            )
        self._bar.total = fields["bytes_total"]
        self._bar.update(fields["bytes_done"] - self._bar.n)
