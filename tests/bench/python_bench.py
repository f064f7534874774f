# SPDX-License-Identifier: Apache-2.0
"""The Python client beside what one writes without it: same data, same cores, same run.

    PYTHONPATH=build/python STOKERD=build/bin/stokerd python tests/bench/python_bench.py [--samples 1024] [--rounds 5]
        [--crystals FILE --target KEY] [--workers N]

Dual-GAF epochs (26 channels, 96 points, batches of 64, float32; each consumer reads one number in each 4 KiB page):
  stoker           one loader; the daemon makes each batch anew, from the first of a new epoch on
  pyts             DataLoader, pyts in __getitem__, the best of 0 and N workers          (needs pyts)
  precomputed      DataLoader over images that lie in memory, the best of 0 and N workers
  numba_ring       forked workers with a numba loop write to a ring of shared, warm batches (needs numba)
Crystal epochs (batches of 64 over prebuilt graphs; the tensors of an ALIGNN batch):
  stoker, pyg (Batch.from_data_list, best of 0 and N workers), numba (one loop over flat arrays)
And: Python's time for a batch that is ready, a second client's first batch.

Rounds are interleaved; medians are compared. What is not installed is left out and said. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import stoker
import torch
from torch.utils.data import DataLoader, Dataset

CHANNELS, POINTS, BATCH, PAGE = 26, 96, 64, 4096
PAUSE_SECONDS = 0.2
GRAPH = (
    "atomic_number",
    "edge_index",
    "r",
    "lg_edge_index",
    "cos",
    "num_nodes",
    "num_edges",
    "num_triplets",
    "batch",
    "ptr",
)


def touch(*arrays) -> float:
    """Reads one number in each page, as a consumer that maps the memory must. What is less than a page is left out: how
    many such arrays there are differs between rivals, and Python's call would be most of it."""
    total = 0.0
    for array in arrays:
        if array.nbytes < PAGE:
            continue
        flat = array.reshape(-1) if isinstance(array, np.ndarray) else array.numpy().reshape(-1)
        total += float(flat[:: max(1, PAGE // flat.itemsize)].sum())
    return total


class PytsSet(Dataset):
    def __init__(self, series):
        from pyts.image import GramianAngularField

        self.series = series
        self.fields = [GramianAngularField(method=method) for method in ("summation", "difference")]

    def __len__(self):
        return len(self.series)

    def __getitem__(self, i):
        return tuple(field.transform(self.series[i]).astype(np.float32) for field in self.fields)


class ImageSet(Dataset):
    """One item is a batch: how a skilled user reads what lies in memory."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images[0])

    def __getitems__(self, indices):
        return tuple(image.index_select(0, torch.as_tensor(indices)) for image in self.images)


def loader_epoch(dataset, workers, collate=None):
    options = {"collate_fn": collate} if collate else {}
    loader = DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0, **options
    )
    next(iter(loader))  # workers are started, pages are there

    def run():
        for batch in loader:
            touch(*(batch if isinstance(batch, (list, tuple)) else batch.values()))

    return run


def numba_fields():
    import numba

    @numba.njit(fastmath=False, nogil=True)
    def fill(series, order, gasf, gadf):
        points = series.shape[2]
        cos, sin = np.empty(points, np.float32), np.empty(points, np.float32)
        for b in range(len(order)):
            for c in range(series.shape[1]):
                x = series[order[b], c]
                low, high = x.min(), x.max()
                for i in range(points):
                    v = min(max((x[i] - low) / (high - low) * 2 - 1, -1.0), 1.0)
                    cos[i], sin[i] = v, np.sqrt(1 - v * v)
                for i in range(points):
                    for j in range(points):
                        gasf[b, c, i, j] = cos[i] * cos[j] - sin[i] * sin[j]
                        gadf[b, c, i, j] = sin[i] * cos[j] - cos[i] * sin[j]

    return fill


def ring_epoch(series, workers, slots=8):
    """Forked workers, a ring of shared memory, two queues: the hand-written rival."""
    fill = numba_fields()
    shape = (slots, 2, BATCH, CHANNELS, POINTS, POINTS)
    memory = shared_memory.SharedMemory(create=True, size=int(np.prod(shape)) * 4)
    ring = np.ndarray(shape, np.float32, memory.buf)
    ring.fill(0)
    context = multiprocessing.get_context("fork")
    jobs, done = context.SimpleQueue(), context.SimpleQueue()

    def work():
        while (job := jobs.get()) is not None:
            slot, order = job
            fill(series, order, ring[slot, 0, : len(order)], ring[slot, 1, : len(order)])
            done.put((slot, len(order)))

    processes = [context.Process(target=work, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()

    def run():
        orders = np.array_split(np.random.permutation(len(series)), range(BATCH, len(series), BATCH))
        waiting = list(orders)
        for slot in range(min(slots, len(waiting))):
            jobs.put((slot, waiting.pop(0)))
        for _ in range(len(orders)):
            slot, count = done.get()
            touch(ring[slot, 0, :count], ring[slot, 1, :count])
            if waiting:
                jobs.put((slot, waiting.pop(0)))

    def close():
        for _ in processes:
            jobs.put(None)
        for process in processes:
            process.join()
        del processes[:]

    run()
    return run, (close, memory)


def stoker_epoch(client, name, recipe):
    """Jumps to an epoch that nobody has asked for, so that nothing is made before the clock runs.

    The arena is warm, as the ring is: this process has mapped each place of it once.
    """
    loader = stoker.Loader(name, recipe, client=client, batch_size=BATCH, shuffle=True)
    epochs = iter(range(10, 1 << 30, 10))

    def run():
        loader.set_epoch(next(epochs))
        for batch in loader:
            touch(*(batch[key] for key in batch))

    delivered = 0
    for batch in loader:
        delivered += sum(batch[key].nbytes for key in batch)
    for _ in range(client.status().arena.capacity_bytes // delivered + 1):
        run()
    return run


def compare(title, runs, rounds):
    """Interleaved; {name: median seconds}."""
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE_SECONDS)  # what the last one had prefetched is made by then
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(title)
    for name, median in medians.items():
        spread = f"[{min(seconds[name]):.4f}, {max(seconds[name]):.4f}]"
        print(f"  {name:18} {median:9.4f} s {spread:20} {median / medians['stoker']:7.2f} x Stoker's time")
    return medians


def importable(name):
    import importlib.util

    if importlib.util.find_spec(name):
        return True
    print(f"  ({name} is not installed: left out)")
    return False


def series_runs(client, folder, arguments):
    series = np.random.default_rng(0).normal(size=(arguments.samples, CHANNELS, POINTS))
    np.save(folder / "series.npy", series)
    client.ingest("series", folder / "series.npy")
    runs = {"stoker": stoker_epoch(client, "series", stoker.gaf())}
    with stoker.Loader("series", client=client, batch_size=BATCH) as loader:
        parts = [(batch.gasf.copy(), batch.gadf.copy()) for batch in loader]
    images = [torch.from_numpy(np.concatenate(each)) for each in zip(*parts, strict=True)]
    for workers in (0, arguments.workers):
        runs[f"precomputed_{workers}"] = loader_epoch(ImageSet(images), workers, lambda items: items)
        if importable("pyts"):
            runs[f"pyts_{workers}"] = loader_epoch(PytsSet(series), workers)
    closers = []
    if importable("numba"):
        runs["numba_ring"], closer = ring_epoch(series, arguments.workers)
        closers.append(closer)
    return runs, closers


def crystal_runs(client, arguments):
    client.ingest("crystals", arguments.crystals, target=arguments.target or None)
    recipe = stoker.graph(GRAPH)
    runs = {"stoker": stoker_epoch(client, "crystals", recipe)}
    with stoker.Loader("crystals", recipe, client=client, batch_size=1) as loader:
        graphs = [batch.torch(copy=True) for batch in loader]
    if importable("torch_geometric"):
        from torch_geometric.data import Batch, Data

        class Crystal(Data):
            def __inc__(self, key, value, *args, **kwargs):
                return (
                    self.edge_index.size(1) if key == "lg_edge_index" else super().__inc__(key, value, *args, **kwargs)
                )

        names = ("atomic_number", "edge_index", "r", "lg_edge_index", "cos")
        items = [Crystal(**{name: g[name] for name in names}, num_nodes=len(g["atomic_number"])) for g in graphs]

        def collate(data):
            batch = Batch.from_data_list(data)
            return {key: batch[key] for key in (*names, "batch", "ptr")}

        for workers in (0, arguments.workers):
            runs[f"pyg_{workers}"] = loader_epoch(items, workers, collate)
    if importable("numba"):
        runs["numba"] = numba_collate(graphs)
    return runs


def numba_collate(graphs):
    """All graphs in flat arrays; one loop copies and shifts into buffers that are used again."""
    import numba

    flat = {
        name: np.concatenate([g[name].numpy() for g in graphs], axis=-1 if "edge_index" in name else 0)
        for name in GRAPH[:5]
    }
    counts = [
        np.array([g[name].shape[-1 if "edge_index" in name else 0] for g in graphs])
        for name in ("atomic_number", "edge_index", "lg_edge_index")
    ]
    starts = [np.concatenate([[0], np.cumsum(count)]) for count in counts]

    @numba.njit(nogil=True)
    def fill(order, n0, e0, t0, z, edges, r, lines, cos, zo, eo, ro, lo, co, batch, ptr):
        n = e = t = 0
        ptr[0] = 0
        for b in range(len(order)):
            i = order[b]
            nodes, bonds, angles = n0[i + 1] - n0[i], e0[i + 1] - e0[i], t0[i + 1] - t0[i]
            for k in range(nodes):
                zo[n + k] = z[n0[i] + k]
                batch[n + k] = b
            for k in range(bonds):
                eo[0, e + k] = edges[0, e0[i] + k] + n
                eo[1, e + k] = edges[1, e0[i] + k] + n
                for d in range(3):
                    ro[e + k, d] = r[e0[i] + k, d]
            for k in range(angles):
                lo[0, t + k] = lines[0, t0[i] + k] + e
                lo[1, t + k] = lines[1, t0[i] + k] + e
                co[t + k] = cos[t0[i] + k]
            n, e, t = n + nodes, e + bonds, t + angles
            ptr[b + 1] = n
        return n, e, t

    most = [int(np.sort(count)[-BATCH:].sum()) for count in counts]
    nodes, bonds, angles = most
    out = [
        np.zeros(nodes, np.int64),
        np.zeros((2, bonds), np.int64),
        np.zeros((bonds, 3), np.float32),
        np.zeros((2, angles), np.int64),
        np.zeros(angles, np.float32),
        np.zeros(nodes, np.int64),
        np.zeros(BATCH + 1, np.int64),
    ]

    def run():
        order = np.random.permutation(len(graphs))
        for first in range(0, len(order), BATCH):
            n, e, t = fill(order[first : first + BATCH], *starts, *flat.values(), *out)
            touch(out[0][:n], out[1][:, :e], out[2][:e], out[3][:, :t], out[4][:t])

    run()
    return run


def small_figures(client):
    with stoker.Loader("series", stoker.gaf("series"), client=client, batch_size=1, drop_last=True) as loader:
        times = []
        iterator = iter(loader)
        for _ in range(len(loader) - 8):
            start = time.perf_counter()
            batch = next(iterator)
            _ = batch.series, batch.index
            times.append(time.perf_counter() - start)
        raw = loader._handle().next(0)  # the last ones of this epoch are left for this

        def python_only():
            batch = stoker.Batch(raw)
            return batch.series, batch.index

        overhead = min(_timed(python_only) for _ in range(2000))
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            with stoker.Loader(
                "series", stoker.gaf("series"), client=stoker.connect(client.address), batch_size=1, drop_last=True
            ) as second:
                next(iter(second))
                seconds.append(time.perf_counter() - start)
    figures = {"python_us_per_batch": overhead * 1e6, "next_us_median": statistics.median(times) * 1e6,
               "second_client_first_batch_s": statistics.median(seconds)}  # fmt: skip
    for name, value in figures.items():
        print(f"  {name:28} {value:.4g}")
    return figures


def _timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--arena", default="1GiB")
    samples = Path(__file__).parents[2] / "deploy" / "samples"
    parser.add_argument("--crystals", default=str(samples / "textbook_crystals" / "structures.json"))
    parser.add_argument("--target", default="density", help="empty: none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Workers of DataLoader and of the ring are forked before gRPC runs in this process only if it is given up then: it is.
    with (
        tempfile.TemporaryDirectory() as folder,
        stoker.embedded(arena_bytes=arguments.arena, workers=arguments.workers) as daemon,
    ):
        print(
            f"{os.cpu_count()} cores, {arguments.workers} workers, stoker {stoker.__version__}, torch {torch.__version__}",
            file=sys.stderr,
        )
        runs, closers = series_runs(daemon.client, Path(folder), arguments)
        result = {
            "gaf": compare(f"Dual-GAF epoch, {arguments.samples} x {CHANNELS} x {POINTS}", runs, arguments.rounds)
        }
        for close, memory in closers:
            close()
            memory.unlink()
        result["crystals"] = compare("Crystal epoch", crystal_runs(daemon.client, arguments), arguments.rounds)
        print("One batch")
        result["figures"] = small_figures(daemon.client)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
