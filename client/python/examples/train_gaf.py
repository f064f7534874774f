# SPDX-License-Identifier: Apache-2.0
"""Trains a small network on Gramian angular fields, twice: fed by Stoker, and by a DataLoader that makes the same images.

    python train_gaf.py [SOURCE...] [--epochs 3] [--batch-size 16] [--option window=96]

Both see the same samples in the same order, so their losses agree to rounding. Without a source it takes the ventilation
unit of deploy/samples: 7 channels, three classes. It starts a daemon of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import stoker
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

SAMPLES = Path(__file__).parents[3] / "deploy" / "samples"


Sample = tuple[np.ndarray, np.ndarray, np.int64]
Run = dict[str, list[Any]]


class GafDataset(Dataset[Sample]):
    """What one writes without Stoker: images made when they are asked for."""

    def __init__(self, series: np.ndarray, targets: np.ndarray) -> None:
        self.series, self.targets = series, targets  # [N, C, T], [N]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Sample:
        x = self.series[i]
        low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
        span = np.where(high > low, high - low, 1)
        cos = np.where(high > low, (x - low) / span * 2 - 1, -1.0).clip(-1, 1)
        sin = np.sqrt(1 - cos**2)
        gasf = cos[:, :, None] * cos[:, None, :] - sin[:, :, None] * sin[:, None, :]
        gadf = sin[:, :, None] * cos[:, None, :] - cos[:, :, None] * sin[:, None, :]
        return gasf.astype(np.float32), gadf.astype(np.float32), self.targets[i]


def network(channels: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2 * channels, 16, 5, stride=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Iterable[torch.Tensor]) -> float:
    gasf, gadf, target = batch
    loss = nn.functional.cross_entropy(model(torch.cat([gasf, gadf], 1)), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def train_with_stoker(client: stoker.Client, arguments: argparse.Namespace, channels: int, classes: int) -> Run:
    model = network(channels, classes)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses, seconds, order = [], [], []
    loader = stoker.Loader("train", client=client, batch_size=arguments.batch_size, shuffle=True, seed=1)
    for _ in range(arguments.epochs):
        start = time.perf_counter()
        for batch in loader:
            tensors = batch.torch()
            losses.append(step(model, optimizer, (tensors["gasf"], tensors["gadf"], tensors["target"])))
            order.append(batch.index.tolist())
        seconds.append(time.perf_counter() - start)
    return {"losses": losses, "seconds": seconds, "order": order}


def train_with_dataloader(
    dataset: GafDataset, order: list[list[int]], arguments: argparse.Namespace, channels: int, classes: int
) -> Run:
    model = network(channels, classes)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses, seconds = [], []
    steps = len(order) // arguments.epochs
    for epoch in range(arguments.epochs):
        loader = DataLoader(dataset, batch_sampler=order[epoch * steps : (epoch + 1) * steps])
        start = time.perf_counter()
        losses += [step(model, optimizer, batch) for batch in loader]
        seconds.append(time.perf_counter() - start)
    return {"losses": losses, "seconds": seconds}


def read_all(client: stoker.Client) -> tuple[np.ndarray, np.ndarray]:
    with stoker.Loader("train", stoker.gaf("series"), client=client, batch_size=256) as loader:
        parts = [(batch.series.copy(), batch.target.copy()) for batch in loader]
    series, targets = (np.concatenate(each) for each in zip(*parts, strict=True))
    return series.transpose(0, 2, 1).astype(np.float64), targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--option", action="append", default=[], help="of ingest, as window=96")
    arguments = parser.parse_args()
    options = {key: json.loads(value) for key, value in (text.split("=", 1) for text in arguments.option)}
    if not arguments.source:
        arguments.source = sorted(map(str, (SAMPLES / "air_handling_unit").glob("*.csv")))
        options = {"window": 48, "stride": 8, "label_from_file_name": True, **options}

    torch.set_num_threads(1)
    with stoker.embedded(arena_bytes="128MiB") as daemon:
        dataset = daemon.client.ingest("train", arguments.source, **options).dataset
        channels, classes = len(dataset.manifest["time_series"]["channels"]), len(dataset.classes)
        series, targets = read_all(daemon.client)
        ours = train_with_stoker(daemon.client, arguments, channels, classes)
        theirs = train_with_dataloader(GafDataset(series, targets), ours["order"], arguments, channels, classes)
    difference = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
    print(f"{dataset.samples} samples, {channels} channels, {classes} classes, {len(ours['losses'])} steps")
    print(f"loss: {ours['losses'][0]:.4f} to {ours['losses'][-1]:.4f}; largest difference of the two: {difference:.1e}")
    print("seconds an epoch: Stoker", [round(s, 3) for s in ours["seconds"]], "DataLoader", [round(s, 3) for s in theirs["seconds"]])
    print(json.dumps({"first": ours["losses"][0], "last": ours["losses"][-1], "difference": difference}))


if __name__ == "__main__":
    main()
