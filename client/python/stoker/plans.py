# SPDX-License-Identifier: Apache-2.0
"""The order of the samples and how they are cut, from the keywords of :class:`stoker.Loader`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._arguments import constant, flag, whole
from .errors import InvalidRequest


def make_plan(
    batch_size: int | None,
    budget: Mapping[str, int] | None,
    oversize: str | None,
    shuffle: bool,
    seed: int,
    rank: int,
    world_size: int,
    drop_last: bool,
    tail: str | None,
) -> dict[str, Any]:
    """``stoker.v1.Plan`` as JSON; the daemon checks the numbers."""
    if flag("loader: drop_last", drop_last) and tail not in (None, "drop"):
        raise InvalidRequest(f"loader: drop_last=True and tail={tail!r}: give one of them")
    plan: dict[str, Any] = {
        "shuffle": flag("loader: shuffle", shuffle),
        "seed": whole("loader: seed", seed),
        "rank": whole("loader: rank", rank),
        "world": whole("loader: world_size", world_size, 1),
        "tail": constant("loader: tail", tail or ("drop" if drop_last else "keep")),
    }
    if budget is not None:
        if batch_size is not None:
            raise InvalidRequest("loader: batch_size and budget: give one of them")
        if not isinstance(budget, Mapping):
            raise InvalidRequest(f'loader: budget {budget!r}: must be a dictionary, such as {{"nodes": 2000}}')
        plan["budget"] = {name: whole(f"loader: budget of {name}", limit) for name, limit in budget.items()}
    else:
        plan["batch_size"] = 64 if batch_size is None else whole("loader: batch_size", batch_size, 1, 2**32 - 1)
    if oversize is not None:
        plan["oversize"] = constant("loader: oversize", oversize, "OVERSIZE_")
    return plan

