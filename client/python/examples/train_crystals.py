# SPDX-License-Identifier: Apache-2.0
"""Trains a small graph network on crystals, twice: fed by Stoker, and by a DataLoader that collates the same graphs.

    python train_crystals.py [SOURCE] [--target density] [--epochs 5] [--batch-size 8]

Both see the same graphs in the same order, so their losses agree to rounding. Without a source it takes the textbook
crystals of deploy/samples. The network reads atoms, bonds and bond angles (the line graph). It starts a daemon of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import stoker
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

SAMPLES = Path(__file__).parents[3] / "deploy" / "samples"
Tensors = dict[str, torch.Tensor]


class Network(nn.Module):
    """Angles to bonds, bonds to atoms, atoms to the crystal."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.atom = nn.Embedding(120, width)
        self.bond = nn.Linear(1, width)
        self.angle = nn.Sequential(nn.Linear(width + 1, width), nn.SiLU())
        self.message = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU())
        self.out = nn.Linear(width, 1)

    def forward(self, b: Tensors) -> torch.Tensor:
        bonds = self.bond(b["r"].norm(dim=1, keepdim=True))
        first, second = b["lg_edge_index"]
        bonds = bonds.index_add(0, second, self.angle(torch.cat([bonds[first], b["cos"][:, None]], 1)) / 12)
        atoms = self.atom(b["atomic_number"])
        source, destination = b["edge_index"]
        atoms = atoms.index_add(0, destination, self.message(torch.cat([atoms[source], bonds], 1)) / 12)
        crystals = torch.zeros(len(b["num_nodes"]), atoms.shape[1]).index_add(0, b["batch"], atoms)
        return cast("torch.Tensor", self.out(crystals / b["num_nodes"][:, None])[:, 0])


def collate(graphs: list[Tensors]) -> Tensors:
    """What one writes without Stoker: join single graphs, with the offsets of their numbers."""
    out = {name: torch.cat([g[name] for g in graphs]) for name in ("atomic_number", "r", "cos", "target", "num_nodes")}
    nodes = edges = 0
    parts: dict[str, list[torch.Tensor]] = {"edge_index": [], "lg_edge_index": [], "batch": []}
    for place, g in enumerate(graphs):
        parts["edge_index"].append(g["edge_index"] + nodes)
        parts["lg_edge_index"].append(g["lg_edge_index"] + edges)
        parts["batch"].append(torch.full_like(g["atomic_number"], place))
        nodes += len(g["atomic_number"])
        edges += len(g["r"])
    return {**out, **{name: torch.cat(each, dim=-1) for name, each in parts.items()}}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensors) -> float:
    loss = nn.functional.l1_loss(model(batch), batch["target"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def train(epochs: Iterable[Iterable[Tensors]]) -> tuple[list[float], list[float]]:
    """Losses of all steps and seconds of each epoch; an epoch is an iterable of batches of tensors."""
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses, seconds = [], []
    for batches in epochs:
        start = time.perf_counter()
        losses += [step(model, optimizer, batch) for batch in batches]
        seconds.append(time.perf_counter() - start)
    return losses, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default=str(SAMPLES / "textbook_crystals" / "structures.json"))
    parser.add_argument("--target", default="density")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    order: list[list[int]] = []

    def tensors(batch: stoker.Batch) -> Tensors:
        order.append(batch.index.tolist())
        return batch.torch()

    with stoker.embedded(arena_bytes="128MiB") as daemon:
        dataset = daemon.client.ingest("train", arguments.source, target=arguments.target).dataset
        with stoker.Loader("train", client=daemon.client, batch_size=1) as singles:
            graphs = [batch.torch(copy=True) for batch in singles]
        loader = stoker.Loader(
            "train", client=daemon.client, batch_size=arguments.batch_size, shuffle=True, seed=1, transform=tensors
        )
        ours, our_seconds = train([loader] * arguments.epochs)
    steps = len(order) // arguments.epochs
    theirs, their_seconds = train(
        [
            DataLoader(cast("Dataset[Tensors]", graphs), batch_sampler=order[epoch * steps : (epoch + 1) * steps], collate_fn=collate)
            for epoch in range(arguments.epochs)
        ]
    )
    difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(f"{dataset.samples} crystals, {len(ours)} steps")
    print(f"loss: {ours[0]:.4f} to {ours[-1]:.4f}; largest difference of the two: {difference:.1e}")
    print("seconds an epoch: Stoker", [round(s, 3) for s in our_seconds], "DataLoader", [round(s, 3) for s in their_seconds])
    print(json.dumps({"first": ours[0], "last": ours[-1], "difference": difference}))


if __name__ == "__main__":
    main()
