# SPDX-License-Identifier: Apache-2.0
"""For code that must keep a ``torch.utils.data.DataLoader``, and for Lightning.

A :class:`stoker.Loader` needs no DataLoader around it, and is faster without.

>>> dataset = stoker.torch.Dataset("sahu", stoker.gaf(), batch_size=64, shuffle=True)
>>> for batch in torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2):
...     batch["gasf"]
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from . import _stoker, ranks
from .batch import Batch
from .loader import Loader

_MOST_WORKERS = 1024
_REMEMBERED = 64  # iterations
_KEY_BITS = 39


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """What :class:`Dataset` yields unless it has a transform: :meth:`stoker.Batch.torch`."""
    return batch.torch()


class Dataset(IterableDataset[Any]):
    """An ``IterableDataset`` of whole batches: give DataLoader ``batch_size=None``.

    Takes what :class:`stoker.Loader` takes. Each DataLoader worker reads a share of this rank's batches, as one more rank
    would, so that every sample comes once for any number of workers. Epochs advance by themselves, in workers too.
    ``len()``: batches of this rank without workers; with workers that cut small tails it may be one more a worker.

    Under torchdata's ``StatefulDataLoader`` a state is exact and goes on without reading again what was yielded: each worker
    saves its share's place. Such a state wants the same number of workers, as torchdata says; a :class:`stoker.Loader`'s does
    not.
    """

    def __init__(
        self,
        dataset: str,
        recipe: Any = None,
        *,
        transform: Callable[[Batch], Any] = tensors,
        rank: int | None = None,
        world_size: int | None = None,
        epoch: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        found_rank, found_world = ranks.detect() if rank is None or world_size is None else (0, 1)
        self._rank = found_rank if rank is None else rank
        self._world_size = found_world if world_size is None else world_size
        self._arguments = (dataset, recipe)
        self._options = {**options, "transform": transform}
        self._loader: Loader[Any] | None = None
        self._share = (0, 1)
        self._pid = os.getpid()
        self._iterators = 0  # that this process made
        self._resumed: int | None = None  # the epoch that a worker's next iteration was told
        # Shared with workers: the epoch of iteration 1, the iterations that there were, and each worker's last one.
        self._shared = torch.zeros(1 + _REMEMBERED + _MOST_WORKERS, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._shared[0] = epoch

    def _open(self, epoch: int) -> Loader[Any]:
        info = get_worker_info()
        share = (0, 1) if info is None else (info.id, info.num_workers)
        # One that a worker has inherited is where its parent was, not where this worker is to begin.
        if self._loader is None or self._share != share or self._pid != os.getpid():
            self._share = share
            self._pid = os.getpid()
            self._loader = Loader(
                *self._arguments,
                rank=self._rank * share[1] + share[0],
                world_size=self._world_size * share[1],
                epoch=epoch,
                **self._options,
            )
        return self._loader

    def _table(self) -> Any:
        return self._shared[1 : 1 + _REMEMBERED].numpy()

    def _next_epoch(self) -> int:
        return int(self._shared[0]) + _stoker.last_iteration(self._table())

    def _begin(self, key: int) -> int:
        """Joins the iteration of ``key``, or begins it. Its epoch."""
        info = get_worker_info()
        last = self._shared[1 + _REMEMBERED :][0 if info is None else info.id]
        number = _stoker.join_iteration(self._table(), key, int(last))
        last.fill_(number)
        if self._resumed is not None:
            self._shared[0] = self._resumed - (number - 1)  # as each worker finds it
            self._resumed = None
        return int(self._shared[0]) + number - 1

    def __iter__(self) -> Iterator[Any]:
        # All workers of an iteration have the same seed but for their number, and make as many iterators.
        self._iterators += 1
        info = get_worker_info()
        key = secrets.randbits(_KEY_BITS) if info is None else (info.seed - info.id + self._iterators) % (1 << _KEY_BITS)
        return self._iterate(key)

    def _iterate(self, key: int) -> Iterator[Any]:
        # Nothing happens before the first next(): who makes an iterator of an ended epoch and drops it begins no epoch.
        epoch = self._begin(key)
        loader = self._open(epoch)
        loader.set_epoch(epoch)  # keeps the place of a state inside this epoch
        yield from loader

    def __len__(self) -> int:
        return len(self._open(self._next_epoch()))

    def set_epoch(self, epoch: int) -> None:
        """The following iteration reads ``epoch``. Not needed."""
        self._shared[0] = epoch - _stoker.last_iteration(self._table())
        if self._loader is not None and self._pid == os.getpid():
            self._loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Of this process' share: :meth:`stoker.Loader.state_dict`."""
        return self._open(self._next_epoch()).state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The following iteration of this process' share goes on where ``state`` was saved; errors as of the loader's."""
        loader = self._open(self._next_epoch())
        loader.load_state_dict(state)
        if get_worker_info() is None:
            self.set_epoch(loader.epoch)
        else:
            self._resumed = loader.epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}


def data_module(**loaders: Any) -> Any:
    """A ``LightningDataModule`` of loaders: ``data_module(train=..., val=..., test=..., predict=...)``.

    Each is a function without arguments that makes a :class:`stoker.Loader`, called when Lightning has set up its
    processes, so that rank and world size are right. Needs ``lightning`` or ``pytorch_lightning``.
    """
    try:
        from lightning import LightningDataModule
    except ImportError:
        from pytorch_lightning import LightningDataModule

    unknown = set(loaders) - {"train", "val", "test", "predict"}
    if unknown:
        raise TypeError(f"data_module: {', '.join(sorted(unknown))}: there are train, val, test and predict")

    class StokerDataModule(LightningDataModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.made: dict[str, Loader[Any]] = {}

        def _loader(self, stage: str) -> Loader[Any]:
            if stage not in self.made:
                self.made[stage] = loaders[stage]()
            return self.made[stage]

        def teardown(self, stage: str) -> None:
            for loader in self.made.values():
                loader.close()
            self.made.clear()

        def state_dict(self) -> dict[str, Any]:
            return {"train": self.made["train"].state_dict()} if "train" in self.made else {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            if "train" in state_dict:
                self._loader("train").load_state_dict(state_dict["train"])

    for stage in loaders:
        setattr(StokerDataModule, f"{stage}_dataloader", lambda self, stage=stage: self._loader(stage))
    return StokerDataModule()
