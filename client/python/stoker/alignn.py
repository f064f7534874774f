# SPDX-License-Identifier: Apache-2.0
"""Crystal batches as ALIGNN's training loop takes them: a ``TorchGraph``, its line graph, lattices and targets.

>>> loader = stoker.Loader("dft_3d", stoker.graph(), batch_size=64, transform=stoker.alignn.to_graphs)
>>> for g, lg, lattice, target in loader:
...     loss = criterion(model([g, lg, lattice]), target)

What ``batch_torch_graph_pairs`` would build of single graphs, but made by the daemon: offsets applied, on the CPU without a
copy. ALIGNN's own loop takes such loaders too, in a :class:`TrainLoader`:

>>> train, val, test = (stoker.alignn.TrainLoader(loader) for loader in (train, val, test))
>>> train_dgl(config, train_val_test_loaders=[train, val, test, lambda batch, device: batch])
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import _graphs
from .batch import Batch, _torch
from .loader import Loader

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device

_NEEDED = ("edge_index", "r", "num_nodes", "num_edges", "lattice")


@dataclass
class TorchGraph:
    """The fields of ``alignn.torch_graph_builder.TorchGraph``, for where ALIGNN is not installed."""

    num_nodes: int
    src: Tensor
    dst: Tensor
    ndata: dict[str, Tensor] = field(default_factory=dict)
    edata: dict[str, Tensor] = field(default_factory=dict)
    batch_num_nodes: Tensor | None = None
    batch_num_edges: Tensor | None = None

    @property
    def num_edges(self) -> int:
        return int(self.src.shape[0])

    @property
    def batch_size(self) -> int:
        return 1 if self.batch_num_nodes is None else int(self.batch_num_nodes.shape[0])


_graph_class: Any = None


def _class() -> Any:
    global _graph_class
    if _graph_class is None:
        try:
            from alignn.torch_graph_builder import TorchGraph as theirs
        except ImportError:
            _graph_class = TorchGraph
        else:
            _graph_class = theirs
    return _graph_class


def to_graphs(
    batch: Batch,
    device: str | Device | None = None,
    *,
    non_blocking: bool = False,
    text: bool = False,
) -> tuple[Any, ...]:
    """``(g, lg, lattice, target)`` of one batch of ``stoker.graph()``; with ``text`` ``(g, lg, lattice, texts, target)``.

    ``g.ndata``: ``atom_features`` (``x`` where the data set has atom features, else atomic numbers ``[N, 1]``), ``Z`` (atomic
    numbers), ``frac_coords``, ``V`` (volume of the cell, Å³, at each atom); ``g.edata``: ``r`` ``[E, 3]``, and ``images``,
    ``distance``, ``rbf`` where asked for. ``lg``: nodes are edges of ``g``, so ``lg.ndata`` is ``g.edata``; ``lg.edata["h"]`` the
    cosines; ``None`` without a line graph. ``target`` is ``None`` where the data set has none.
    """
    torch = _torch()
    tensors = _graphs.tensors_of(batch, _NEEDED, device, non_blocking)
    graph = _class()
    count = int(tensors["edge_index"].shape[1])
    features = tensors.get("x")
    if features is None:
        features = tensors["atomic_number"].to(tensors["r"].dtype)[:, None]
    volume = torch.linalg.det(tensors["lattice"]).abs()
    ndata = {"atom_features": features, "V": volume.repeat_interleave(tensors["num_nodes"])}
    ndata.update({key: tensors[name] for key, name in (("Z", "atomic_number"), ("frac_coords",) * 2) if name in tensors})
    edata = {name: tensors[name] for name in _graphs.EDGES if name in tensors}
    g = graph(
        num_nodes=len(features),
        src=tensors["edge_index"][0],
        dst=tensors["edge_index"][1],
        ndata=ndata,
        edata=edata,
        batch_num_nodes=tensors["num_nodes"],
        batch_num_edges=tensors["num_edges"],
    )
    lg = None
    if "lg_edge_index" in tensors:
        lg = graph(
            num_nodes=count,
            src=tensors["lg_edge_index"][0],
            dst=tensors["lg_edge_index"][1],
            ndata=dict(edata),
            edata={"h": tensors["cos"]},
            batch_num_nodes=tensors["num_edges"],
            batch_num_edges=tensors["num_triplets"],
        )
    parts = [g, lg, tensors["lattice"], tensors.get("target")]
    if text:
        parts.insert(3, batch.texts())
    return tuple(parts)


class TrainLoader:
    """A loader of :func:`to_graphs` as ``alignn.train.train_dgl`` wants it: with a ``dataset`` that has ``ids`` and ``close()``.

    ``ids`` are the numbers of the samples in the data set; they fit a loader with ``batch_size=1`` and without ``shuffle``, as
    ALIGNN's test loader is.
    """

    def __init__(self, loader: Loader[Any]) -> None:
        self.loader = loader
        self.dataset = self
        self.ids = range(int(loader.info["samples"]))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def close(self) -> None:
        """Ends the loader's session."""
        self.loader.close()
