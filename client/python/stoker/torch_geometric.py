# SPDX-License-Identifier: Apache-2.0
"""Crystal batches as ``torch_geometric.data.Batch``, without collating and, on the CPU, without a copy.

>>> loader = stoker.Loader("dft_3d", stoker.graph(), batch_size=64, transform=stoker.torch_geometric.to_batch)
>>> for data in loader:
...     model(data.x, data.edge_index, data.batch)

Attributes: ``z`` ``[N]`` atomic numbers, ``x`` ``[N, F]`` where the data set has atom features, ``edge_index`` ``[2, E]``,
``edge_attr`` ``[E, K]`` (``rbf`` where asked for, else the bond vectors ``r``), ``y`` targets, ``lattice`` ``[B, 3, 3]``, the
line graph as ``lg_edge_index`` ``[2, T]`` over edges and ``cos`` ``[T]``, ``sample`` ``[B]``, and ``r``, ``distance``, ``images``,
``frac_coords``, sidecars under their names; ``batch`` and ``ptr`` as always; ``text``, a list. ``to_data_list()`` takes it
apart, line graph included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _graphs
from .batch import Batch, _torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device
    from torch_geometric.data import Batch as GeometricBatch

_NEEDED = ("edge_index", "batch", "ptr", "num_nodes", "num_edges")
_RENAMED = {"atomic_number": "z", "target": "y", "index": "sample"}


def to_batch(
    batch: Batch, device: str | Device | None = None, *, non_blocking: bool = False
) -> GeometricBatch:
    """One batch of ``stoker.graph()`` as PyG's ``Batch``. Its tensors on the CPU share the batch's memory: do not write to
    them (:meth:`stoker.Batch.torch`)."""
    from torch_geometric.data import Batch as GeometricBatch
    from torch_geometric.data import Data

    torch = _torch()
    tensors = _graphs.tensors_of(batch, _NEEDED, device, non_blocking)
    graphs = batch.samples
    nodes = tensors["ptr"]
    edges = _graphs.starts(tensors["num_edges"])
    each = torch.arange(graphs + 1, device=nodes.device)
    none = torch.zeros(graphs, dtype=torch.int64, device=nodes.device)
    out = GeometricBatch(_base_cls=Data, batch=tensors["batch"], ptr=nodes)
    slices: dict[str, Any] = {}
    increments: dict[str, Any] = {}

    def put(name: str, value: Tensor, starts: Tensor, increment: Tensor = none) -> None:
        out[name] = value
        slices[name] = starts.cpu()  # PyG takes batches apart by these on the host
        increments[name] = increment.cpu()

    put("edge_index", tensors["edge_index"], edges, nodes[:-1])
    if "lg_edge_index" in tensors:
        triplets = _graphs.starts(tensors["num_triplets"])
        put("lg_edge_index", tensors["lg_edge_index"], triplets, edges[:-1])
        put("cos", tensors["cos"], triplets) if "cos" in tensors else None
    for name, value in tensors.items():
        if name in _graphs.STRUCTURE or name == "cos" or name == "atom_features":
            continue
        starts = nodes if name in _graphs.NODES else edges if name in _graphs.EDGES else each
        put(_RENAMED.get(name, name), value, starts)
    attribute = tensors.get("rbf", tensors.get("r"))
    if attribute is not None:
        put("edge_attr", attribute, edges)
    if "text_bytes" in batch:
        out["text"] = batch.texts()
        slices["text"] = each.cpu()
        increments["text"] = none.cpu()
    out._num_graphs = graphs
    out._slice_dict = slices
    out._inc_dict = increments
    out.num_nodes = len(tensors["batch"])
    out._store._num_nodes = tensors["num_nodes"].tolist()
    return out
