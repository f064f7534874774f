# SPDX-License-Identifier: Apache-2.0
"""The order of the samples and how they are cut, from the keywords of :class:`stoker.Loader`."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

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
    if drop_last and tail not in (None, "drop"):
        raise InvalidRequest(f"loader: drop_last=True and tail={tail!r}: give one of them")
    plan: dict[str, Any] = {
        "shuffle": bool(shuffle),
        "seed": whole("seed", seed),
        "rank": whole("rank", rank),
        "world": whole("world_size", world_size),
        "tail": (tail or ("drop" if drop_last else "keep")).upper(),
    }
    if budget is not None:
        if batch_size is not None:
            raise InvalidRequest("loader: batch_size and budget: give one of them")
        plan["budget"] = {name: whole(f"budget of {name}", limit) for name, limit in budget.items()}
    else:
        plan["batch_size"] = 64 if batch_size is None else whole("batch_size", batch_size, 1)
    if oversize is not None:
        plan["oversize"] = "OVERSIZE_" + oversize.upper()
    return plan


def whole(name: str, value: Any, least: int = 0) -> int:
    """``value`` as an int of at least ``least``; InvalidRequest that names it otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidRequest(f"loader: {name} {value!r}: must be a whole number") from None
    if number < least:
        raise InvalidRequest(f"loader: {name} {value}: must be at least {least}")
    return number
