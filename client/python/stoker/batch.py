# SPDX-License-Identifier: Apache-2.0
"""One batch: named arrays over memory that is read in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from . import _stoker

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device

Array = npt.NDArray[Any]

# Types of NumPy and PyTorch by the names that Stoker gives them.
_NAMES = {
    "bfloat16": "bf16",
    "float32": "f32",
    "float16": "f16",
    "uint8": "u8",
    "uint16": "u16",
    "float64": "f64",
    "int64": "i64",
    "int32": "i32",
}


def _name_of(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return _NAMES.get(name, name)


class Batch(Mapping[str, Array]):
    """A mapping from tensor names to NumPy arrays; ``batch.gasf`` is ``batch["gasf"]``.

    The arrays are **views of shared memory, read-only and without a copy**. The batch, each array and each tensor taken
    from it hold its lease: the bytes stay what they are until the last of them is gone, and then the memory is used
    again. So hold a batch only as long as it is read (a session has a limit, :class:`stoker.Exhausted` tells), and
    :meth:`copy` what must live longer.

    Arrays of bfloat16, which NumPy lacks, come as their bits in ``uint16``; :meth:`dtype` tells, :meth:`torch` gives
    ``torch.bfloat16``.

    Attributes:
        epoch, step: where in the plan.
        samples: how many; may be 0 in the last step of a rank (``tail="keep"``).
    """

    __slots__ = ("__weakref__", "_arrays", "_dtypes", "_names", "_raw", "_tensors", "epoch", "samples", "step")

    epoch: int
    step: int
    samples: int

    def __init__(self, raw: _stoker.Batch) -> None:
        if not isinstance(raw, _stoker.Batch):  # DataLoader tries, and takes a dictionary when it sees a TypeError
            raise TypeError(f"a Batch is made by Batch.from_arrays(), not of a {type(raw).__name__}")
        self._raw: _stoker.Batch | None = raw
        self._names: tuple[str, ...] = raw.names()
        self._arrays: dict[str, Array] = {}
        self._dtypes: dict[str, str] = {}
        self._tensors: dict[str, Tensor] = {}  # whose memory the arrays of those names are
        self.epoch = raw.epoch
        self.step = raw.step
        self.samples = raw.samples

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Any], *, epoch: int = 0, step: int = 0, samples: int | None = None
    ) -> Batch:
        """A batch of your own arrays, which it holds without a copy: anything with DLPack, such as torch tensors, or NumPy.

        For tests, and for what is written against :class:`Batch`. ``samples`` defaults to the length of ``index``.
        """
        batch = cls.__new__(cls)
        batch._raw = None
        batch._names = tuple(arrays)
        batch._arrays = {}
        batch._dtypes = {}
        batch._tensors = {}
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
                batch._arrays[name] = np.asarray(array)
            elif type(array).__module__.partition(".")[0] == "torch":
                batch._tensors[name] = array
                batch._dtypes[name] = _name_of(array.dtype)
            else:
                batch._arrays[name] = np.from_dlpack(array)
        batch.epoch = epoch
        batch.step = step
        batch.samples = samples if samples is not None else len(arrays.get("index", ()))
        return batch

    # ---- mapping and attributes ----

    def __getitem__(self, name: str) -> Array:
        array = self._arrays.get(name)
        if array is None:
            if name not in self._names:
                raise KeyError(f"{name}: this batch has {', '.join(self._names)}")
            array = self._view(name)
            self._arrays[name] = array
        return array

    def _view(self, name: str) -> Array:
        if self._raw is not None:
            return self._raw.numpy(name)
        tensor = self._tensors[name]
        return (tensor.view(_torch().uint16) if self.dtype(name) == "bf16" else tensor).numpy()

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"batch has no tensor {name!r}, it has {', '.join(self._names)}")
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {self.dtype(name)} {list(self[name].shape)}" for name in self._names)
        return f"Batch(epoch={self.epoch}, step={self.step}, samples={self.samples}, {shapes})"

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._names]

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = {name: np.array(self[name]) for name in self._names}
        dtypes = {name: self.dtype(name) for name in self._names}
        return _unpickle, (arrays, dtypes, self.epoch, self.step, self.samples)

    # ---- what it is ----

    def dtype(self, name: str) -> str:
        """The element type: ``f32``, ``f16``, ``bf16``, ``f64``, ``u8``, ``u16``, ``i32`` or ``i64``."""
        if name not in self._names:
            raise KeyError(f"{name}: this batch has {', '.join(self._names)}")
        if name not in self._dtypes:
            self._dtypes[name] = (
                self._raw.dtype(name)
                if self._raw is not None
                else _name_of(self[name].dtype)
            )
        return self._dtypes[name]

    @property
    def size_bytes(self) -> int:
        """Of the batch in memory, padding included."""
        return self._raw.size_bytes if self._raw is not None else sum(self[name].nbytes for name in self._names)

    def check(self) -> None:
        """Raises :class:`stoker.LeaseLost` when the memory no longer holds this batch.

        It does as long as the loader's session lives; the rare exception is a stream that broke while the daemon lived
        on. What was read before a check that returns was right.
        """
        if self._raw is not None:
            self._raw.check()

    def texts(self) -> list[str]:
        """The text of each sample, from ``text_offsets`` and ``text_bytes``."""
        data = self["text_bytes"].tobytes()
        offsets = self["text_offsets"].tolist()
        return [data[start:end].decode("utf-8", "replace") for start, end in pairwise(offsets)]

    # ---- to other libraries ----

    def dlpack(self, name: str) -> Any:
        """An object with ``__dlpack__`` over one tensor, for ``torch.from_dlpack``, ``jax.dlpack.from_dlpack`` and others.

        No copy; marked read-only for consumers that ask (DLPack 1.0). Others can write by mistake: the memory is mapped
        read-only, so that this ends the process.
        """
        if name not in self._names:
            raise KeyError(f"{name}: this batch has {', '.join(self._names)}")
        if self._raw is not None:
            return self._raw.dlpack(name)
        return self._tensor(name) if self.dtype(name) == "bf16" else self[name]

    def _tensor(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is not None:
            return tensor
        torch = _torch()
        if self._raw is not None or self.dtype(name) != "bf16":
            return cast("Tensor", torch.from_dlpack(self.dlpack(name)))
        return cast("Tensor", torch.from_dlpack(self[name]).view(torch.bfloat16))

    def torch(
        self,
        device: str | Device | None = None,
        *,
        non_blocking: bool = False,
        copy: bool = False,
        names: Iterable[str] | None = None,
    ) -> dict[str, Tensor]:
        """The tensors as ``torch.Tensor``, on ``device``.

        On the CPU they share the batch's memory and hold its lease: **do not write to them** (in-place operations such as
        ``x.mul_(2)`` end the process with a segmentation fault); ask for ``copy=True`` to get your own.

        Args:
            device: where to; default: the CPU.
            non_blocking: as in ``Tensor.to``; copies overlap with computation only from :meth:`pin_memory`.
            copy: never share memory with the batch.
            names: only these tensors.
        """
        out: dict[str, Tensor] = {}
        for name in self._names if names is None else names:
            tensor = self._tensor(name)
            if device is not None:
                tensor = tensor.to(device, non_blocking=non_blocking, copy=copy)
            elif copy:
                tensor = tensor.clone()
            out[name] = tensor
        return out

    def to(self, device: str | Device, non_blocking: bool = False) -> dict[str, Tensor]:
        """``torch(device=..., non_blocking=...)``, by the name that training loops use."""
        return self.torch(device, non_blocking=non_blocking)

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory of PyTorch, from which transfers to a GPU run beside computation."""
        tensors = {name: tensor.pin_memory() for name, tensor in self.torch().items()}
        return Batch.from_arrays(tensors, epoch=self.epoch, step=self.step, samples=self.samples)

    def copy(self) -> Batch:
        """A copy in memory of its own, writable, without a lease."""
        make, arguments = self.__reduce__()
        return cast("Batch", make(*arguments))


def _unpickle(arrays: dict[str, Array], dtypes: dict[str, str], epoch: int, step: int, samples: int) -> Batch:
    batch = Batch.from_arrays(arrays, epoch=epoch, step=step, samples=samples)
    batch._dtypes = dtypes
    return batch


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError("this needs PyTorch: pip install torch") from error
    return torch
