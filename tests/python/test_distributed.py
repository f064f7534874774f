# SPDX-License-Identifier: Apache-2.0
"""Two processes of DistributedDataParallel over gloo, with samples that do not divide evenly: nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import SAMPLES

pytest.importorskip("torch")

TRAIN = """
import os, sys, torch, torch.distributed as dist, stoker
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[3]), world_size=2)
client = stoker.connect(sys.argv[1])
loader = stoker.Loader("numbers", stoker.gaf("series"), client=client, batch_size=7, shuffle=True, tail=sys.argv[4])
assert (loader.rank, loader.world_size) == (dist.get_rank(), 2)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(32, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for epoch in range(2):
    seen = []
    for batch in loader:
        tensors = batch.torch()
        loss = torch.nn.functional.cross_entropy(model(tensors["series"].flatten(1)), tensors["target"], reduction="sum")
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        seen += batch.index.tolist()
    print(len(loader), *seen, flush=True)
weights = torch.cat([p.detach().flatten() for p in model.parameters()])
both = [torch.empty_like(weights) for _ in range(2)]
dist.all_gather(both, weights)
assert torch.equal(*both) and torch.isfinite(weights).all()
dist.destroy_process_group()
loader.close()
# Not the interpreter's end: a thread of torch's gloo, which destroy_process_group leaves alive, may just then be waiting for
# the GIL to drop the last work's tensors, and aborts (pytorch#190489).
os._exit(0)
"""


@pytest.mark.parametrize("tail", ["keep", "drop", "pad"])
def test_ranks_take_the_same_number_of_steps(daemon, tmp_path, tail):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, daemon.address, str(tmp_path / "meet"), str(rank), tail],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    epochs = list(zip(*[[list(map(int, line.split())) for line in output.splitlines()] for output in outputs], strict=True))
    assert len(epochs) == 2
    for (steps, *first), (other_steps, *second) in epochs:
        assert steps == other_steps == {"keep": 4, "drop": 3, "pad": 4}[tail]
        together = sorted(first + second)
        if tail == "keep":
            assert together == list(range(SAMPLES))
        elif tail == "drop":
            assert len(set(together)) == len(together) == 42
        else:
            assert set(together) == set(range(SAMPLES)) and len(together) == 56
