# SPDX-License-Identifier: Apache-2.0
"""Which rank of how many this process is, from what launched it."""

from __future__ import annotations

import os
import sys

from .errors import InvalidRequest

# Variables of rank and world, in the order in which they are looked for: torchrun, Open MPI, MPICH, Slurm.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


def detect() -> tuple[int, int]:
    """``(rank, world_size)``: of ``torch.distributed`` when it is initialised, else of the launcher, else ``(0, 1)``.

    An interactive Slurm shell (``salloc``, ``srun --pty bash``) is one process, whatever ``SLURM_NTASKS`` says.
    """
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    for rank, world in _LAUNCHERS:
        if rank not in os.environ or world not in os.environ:
            continue
        if rank == "SLURM_PROCID" and os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
            continue
        try:
            return int(os.environ[rank]), int(os.environ[world])
        except ValueError:
            raise InvalidRequest(
                f"rank and world size: {rank}={os.environ[rank]!r} and {world}={os.environ[world]!r} are no numbers: "
                "mend them, or give rank and world_size"
            ) from None
    return 0, 1
