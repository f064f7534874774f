# SPDX-License-Identifier: Apache-2.0
"""Crystal batches as DGL graphs, where DGL is installed.

>>> loader = stoker.Loader("dft_3d", stoker.graph(), batch_size=64, transform=stoker.dgl.to_graphs)
>>> for g, lg, lattice, target in loader:
...     ...
"""

from __future__ import annotations

from typing import Any

import dgl

from . import alignn
from .batch import Batch


def to_graphs(batch: Batch, device: Any = None, *, text: bool = False) -> tuple[Any, ...]:
    """As :func:`stoker.alignn.to_graphs`, with batched ``dgl.DGLGraph`` for ``g`` and ``lg``: ``dgl.unbatch`` works on them."""
    parts = alignn.to_graphs(batch, device, text=text)
    return (*(None if graph is None else _to_dgl(graph) for graph in parts[:2]), *parts[2:])


def _to_dgl(graph: Any) -> Any:
    out = dgl.graph((graph.src, graph.dst), num_nodes=graph.num_nodes)
    out.ndata.update(graph.ndata)
    out.edata.update(graph.edata)
    out.set_batch_num_nodes(graph.batch_num_nodes)
    out.set_batch_num_edges(graph.batch_num_edges)
    return out
