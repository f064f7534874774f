# SPDX-License-Identifier: Apache-2.0
"""What the adapters for graph libraries share: which tensor counts what, and where each graph of a batch begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .batch import Batch, _torch
from .errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

NODES = ("atomic_number", "x", "frac_coords")
EDGES = ("r", "images", "distance", "rbf")
TRIPLETS = ("cos",)
STRUCTURE = ("batch", "ptr", "num_nodes", "num_edges", "num_triplets", "edge_index", "lg_edge_index")
TEXT = ("text_offsets", "text_bytes")


def tensors_of(batch: Batch, needed: tuple[str, ...], device: Any, non_blocking: bool) -> dict[str, Tensor]:
    """All tensors but text, indices as int64 as every library wants them. InvalidRequest names what is missing."""
    missing = [name for name in needed if name not in batch]
    if missing:
        raise InvalidRequest(
            f"graph batch: it has no {', '.join(missing)}: name them in stoker.graph(tensors=...); it has "
            f"{', '.join(batch)}"
        )
    torch = _torch()
    names = [name for name in batch if name not in TEXT]
    out = batch.torch(device, non_blocking=non_blocking, names=names)
    for name in STRUCTURE:
        if name in out and out[name].dtype != torch.int64:
            out[name] = out[name].long()
    return out


def starts(counts: Tensor) -> Tensor:
    """[B + 1]: where each graph's part begins, and the end."""
    torch = _torch()
    result: Tensor = torch.zeros(len(counts) + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=result[1:])
    return result
