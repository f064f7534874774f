# SPDX-License-Identifier: Apache-2.0
"""What the daemon says of itself and of its data sets, typed. Field by field as in ``proto/stoker/v1/service.proto``."""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Segment:
    """One shared-memory object."""

    name: str
    generation: int
    size_bytes: int
    used_bytes: int
    prefaulted_bytes: int


@dataclass(frozen=True)
class Extents:
    """How many batches are in each state."""

    planned: int
    making: int
    sealed: int
    leased: int


@dataclass(frozen=True)
class Arena:
    """All segments. ``mode``: ``"shm"``, or ``"inline"`` where no shared memory is to be had."""

    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    segments: list[Segment]
    extents: Extents
    evictions: int
    mode: str


@dataclass(frozen=True)
class Shm:
    """The mount that the segments are on."""

    path: str
    size_bytes: int
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Worker:
    """One worker process. ``state``: ``"starting"``, ``"idle"``, ``"busy"`` or ``"dead"``."""

    pid: int
    state: str
    parts_done: int
    restarts: int
    busy_seconds: float
    role: str


@dataclass(frozen=True)
class Stream:
    """Data set, recipe and plan that clients subscribe to; equal streams share."""

    id: int
    dataset: str
    clients: int
    batches_made: int
    batches_delivered: int
    batch_bytes: int
    steps_per_epoch: int
    recipe: dict[str, Any]
    plan: dict[str, Any]
    oversize_samples: int


@dataclass(frozen=True)
class Position:
    """Before the batch ``step`` of ``epoch``."""

    epoch: int
    step: int


@dataclass(frozen=True)
class Session:
    """One client reading one stream."""

    id: int
    pid: int
    stream: int
    leases: int
    oldest_lease_seconds: float
    credits: int
    position: Position
    age_seconds: float
    waiting: bool
    batches_delivered: int
    host: str


@dataclass(frozen=True)
class Dataset:
    """A name for a store. ``manifest``, ``sources`` and ``options`` are empty in :class:`Status`."""

    name: str
    kind: str
    samples: int
    bytes: int
    manifest: dict[str, Any]
    sources: list[dict[str, Any]]
    options: dict[str, Any]
    ingested_unix_seconds: int

    @property
    def classes(self) -> list[str]:
        """Labels; a class id is the place in this list."""
        return [str(info["label"]) for info in self.manifest.get("classes", [])]


@dataclass(frozen=True)
class Ingested:
    """What :meth:`stoker.Client.ingest` made. ``unchanged``: it was there already."""

    dataset: Dataset
    seconds: float
    unchanged: bool


@dataclass(frozen=True)
class Status:
    """The daemon. ``state``: ``"STARTING"``, ``"SERVING"`` or ``"DRAINING"``; ``notices``: what was degraded and why."""

    state: str
    version: str
    instance_id: str
    uptime_seconds: float
    pid: int
    arena: Arena
    shm: Shm
    workers: list[Worker]
    streams: list[Stream]
    sessions: list[Session]
    datasets: list[Dataset]
    notices: list[str]


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(kind: Any, value: Any) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return load(kind, value or {})
    if typing.get_origin(kind) is list:
        (element,) = typing.get_args(kind)
        return [_convert(element, item) for item in value or ()]
    if typing.get_origin(kind) is dict:
        return dict(value or {})
    return kind() if value is None else kind(value)  # 64-bit integers come as text


def load(cls: type[T], data: dict[str, Any]) -> T:
    """A dataclass of this module from the JSON form of its message; what is missing is empty or zero."""
    hints = _hints(cls)  # type: ignore[arg-type]
    return cls(**{field.name: _convert(hints[field.name], data.get(field.name)) for field in fields(cls)})  # type: ignore[arg-type]
