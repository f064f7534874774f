# SPDX-License-Identifier: Apache-2.0
"""Batches on a device: what :meth:`stoker.Loader.to` makes of a loader."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _stoker
from ._arguments import whole
from .batch import _torch
from .errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from torch import Tensor

    from .client import Client

# Streams by the numbers of DLPack, which are CUDA's handles of them.
_LEGACY_STREAM = 1
_PER_THREAD_STREAM = 2
_NO_STREAM = -1


class DeviceTensor:
    """One tensor of a :class:`DeviceBatch`, for ``torch.from_dlpack``, ``jax.dlpack.from_dlpack``, CuPy and others.

    What is made of it shares the memory and keeps the batch's place.
    """

    __slots__ = ("_array", "_raw", "dtype", "shape")

    dtype: str
    shape: tuple[int, ...]

    def __init__(self, raw: _stoker.DeviceBatch, name: str) -> None:
        self._raw = raw
        self._array = raw.dlpack(name)
        self.dtype = raw.dtype(name)
        self.shape = raw.shape(name)

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        """``stream``: of the consumer, by DLPack's rules; it waits for the upload on the device."""
        if not self._on_host():
            self._use_on(_LEGACY_STREAM if stream is None else int(stream))
        elif stream is not None:
            raise InvalidRequest(f"__dlpack__: stream={stream}: the batch is in host memory, which has no streams")
        return self._array.__dlpack__(**options)

    def _use_on(self, stream: int) -> None:
        if stream == _NO_STREAM:
            return
        if stream < _NO_STREAM or stream in (0, _PER_THREAD_STREAM):
            raise InvalidRequest(
                f"__dlpack__: stream={stream}: give the handle of a stream, 1 for the legacy default stream or -1 for none"
            )
        self._raw.use_on(stream)

    def _on_host(self) -> bool:
        return self._raw.device[0] == 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._raw.device

    def __repr__(self) -> str:
        return f"DeviceTensor({self.dtype} {list(self.shape)})"


class DeviceBatch(Mapping[str, DeviceTensor]):
    """A mapping from tensor names to :class:`DeviceTensor`, in memory of the device.

    It has one of the loader's ``depth`` places there. The batch and all tensors made from it hold the place; it is used
    again when the last of them is gone, after what their streams hold by then. So let go of a batch before the next but
    one is wanted, and clone what must live longer. It is yours to write to, unless the loader shares it.

    Attributes:
        epoch, step: where in the plan.
        samples: how many; may be 0 in the last step of a rank (``tail="keep"``).
        uploaded_bytes, expanded_bytes: that came over the bus, and that were made on the device.
    """

    __slots__ = ("__weakref__", "_names", "_raw", "epoch", "expanded_bytes", "samples", "step", "uploaded_bytes")

    def __init__(self, raw: _stoker.DeviceBatch) -> None:
        self._raw = raw
        self._names = raw.names()
        self.epoch = raw.epoch
        self.step = raw.step
        self.samples = raw.samples
        self.uploaded_bytes = raw.uploaded_bytes
        self.expanded_bytes = raw.expanded_bytes

    def __getitem__(self, name: str) -> DeviceTensor:
        if name not in self._names:
            raise KeyError(f"{name}: this batch has {', '.join(self._names)}")
        return DeviceTensor(self._raw, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        tensors = ", ".join(f"{name}: {tensor.dtype} {list(tensor.shape)}" for name, tensor in self.items())
        return f"DeviceBatch(epoch={self.epoch}, step={self.step}, samples={self.samples}, {tensors})"

    def dtype(self, name: str) -> str:
        """As :meth:`stoker.Batch.dtype`."""
        return self[name].dtype

    def torch(self) -> dict[str, Tensor]:
        """The tensors as ``torch.Tensor`` on the device, to be used on PyTorch's current stream. No copy."""
        torch = _torch()
        return {name: torch.from_dlpack(tensor) for name, tensor in self.items()}


@dataclass(frozen=True)
class Placement:
    """What :meth:`stoker.Loader.to` was told, with what the data set says. ``ordinal``: of the CUDA device; None: host."""

    ordinal: int | None
    depth: int
    memory_limit: int
    expand: Mapping[str, Any]
    share: bool
    channel_ranges: tuple[tuple[float, float], ...]
    triplet_cutoff: float

    def open(self, native: _stoker.Loader) -> _stoker.DeviceLoader:
        """Takes ``native`` over."""
        return _stoker.open_device(
            native,
            self.ordinal is not None,
            self.ordinal or 0,
            self.depth,
            self.memory_limit,
            json.dumps(dict(self.expand)),
            self.share,
            list(self.channel_ranges),
            self.triplet_cutoff,
        )

    def stream(self) -> int:
        """Of this thread: PyTorch's current one, or the legacy default stream."""
        torch = sys.modules.get("torch")
        if self.ordinal is None or torch is None or not torch.cuda.is_available():  # beside CuPy or JAX, say
            return _LEGACY_STREAM
        return torch.cuda.current_stream(self.ordinal).cuda_stream or _LEGACY_STREAM


def place(
    device: Any,
    depth: int,
    memory_limit: int | None,
    expand: Mapping[str, Any] | None,
    share: bool,
    client: Client,
    dataset: str,
) -> Placement:
    """Raises InvalidRequest, Unavailable where there is no such device."""
    depth = whole("loader.to: depth", depth, 2)
    if memory_limit is not None:
        memory_limit = whole("loader.to: memory_limit", memory_limit, 1)
    ranges: list[tuple[float, float]] = []
    cutoff = 0.0
    if expand:
        found = client.dataset(dataset)
        series = found.manifest.get("time_series") or {}
        ranges = list(zip(series.get("channel_min", ()), series.get("channel_max", ()), strict=True))
        cutoff = float((found.options.get("crystal") or {}).get("triplet_cutoff", 0.0))
    return Placement(
        _ordinal(device), depth, memory_limit or 0, dict(expand or {}), bool(share), tuple(ranges), cutoff
    )


def _ordinal(device: Any) -> int | None:
    kind, _, number = str(device).partition(":")
    if kind in ("host", "auto") and not number:
        return None if kind == "host" else _cuda_or_host()
    if kind == "cuda" and (number.isdecimal() or not number):
        ordinal = int(number) if number else _current_cuda_device()
        _stoker.check_cuda(ordinal)
        return ordinal
    raise InvalidRequest(f'loader.to: device {device}: there are "cuda", "cuda:N", "auto" and "host"')


def _cuda_or_host() -> int | None:
    try:
        return _ordinal("cuda")
    except Unavailable as error:
        warnings.warn(f"stoker.Loader: batches stay in host memory: {error}", stacklevel=5)
        return None


def _current_cuda_device() -> int:
    torch = sys.modules.get("torch")
    return int(torch.cuda.current_device()) if torch is not None and torch.cuda.is_available() else 0
