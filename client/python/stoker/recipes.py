# SPDX-License-Identifier: Apache-2.0
"""What each batch holds: :func:`gaf` for time series, :func:`graph` for crystals.

A recipe is a plain ``dict``, the JSON form of ``stoker.v1.Recipe`` (``proto/stoker/v1/recipe.proto`` documents every
field), so it can be kept in a configuration file and given to :class:`stoker.Loader` as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ._arguments import constant, interval, texts, whole
from .errors import InvalidRequest

Recipe = dict[str, Any]


def gaf(
    fields: Iterable[str] | str = ("gasf", "gadf"),
    *,
    image_size: int | None = None,
    overlapping: bool = False,
    sample_range: tuple[float, float] | None = None,
    scale: str | tuple[float, float] = "window",
    dtype: str = "f32",
    series_scale: str = "none",
    stats: str | None = None,
) -> Recipe:
    """Gramian angular fields of windows of ``T`` points and ``C`` channels, ``B`` of them in a batch.

    Args:
        fields: which tensors: ``"gasf"`` and ``"gadf"`` ``[B, C, S, S]``, ``"series"`` float32 ``[B, T, C]``,
            ``"stats"`` float32. ``index`` int64 ``[B]`` always comes, ``target`` ``[B]`` where the data set has targets,
            ``mask`` uint8 ``[B, T]`` where it is padded.
        image_size: ``S``; default ``T``. Smaller: piecewise aggregate approximation first, as pyts does.
        overlapping: its segments overlap, as with ``overlapping=True`` of pyts.
        sample_range: the interval that values are scaled to before the arc cosine; default ``(-1, 1)``.
        scale: by the minimum and maximum of each ``"window"`` (as pyts does), of each ``"channel"`` of the data set, by
            fixed numbers ``(low, high)``, or ``"none"``: values lie in [-1, 1] already.
        dtype: of the images: ``"f32"``, ``"f16"``, ``"bf16"``, ``"u8"`` or ``"u16"``. ``u8`` is
            round_half_even((g + 1) * 127.5) of g in [-1, 1].
        series_scale: ``"none"``: ``series`` and ``stats`` see the values as read; ``"channel"``: scaled by the minimum
            and maximum of each channel.
        stats: the set of ``stats``: ``"basic"`` ``[B, 5 C]``, ``"comprehensive"``, ``"correlation_focused"``,
            ``"signal_basic"`` ``[B, C, 5]``, ``"signal_comprehensive"`` or ``"signal_extended"``. Naming one adds
            ``"stats"`` to the fields.
    """
    names = texts("gaf: fields", fields)
    if stats is not None and "stats" not in names:
        names.append("stats")
    recipe: dict[str, Any] = {
        "fields": [constant("gaf: fields", name) for name in names],
        "dtype": constant("gaf: dtype", dtype, "DTYPE_"),
    }
    if image_size is not None:
        recipe["image_size"] = whole("gaf: image_size", image_size)
    if overlapping:
        recipe["overlapping"] = True
    if sample_range is not None:
        recipe["sample_range"] = interval("gaf: sample_range", sample_range)
    if isinstance(scale, str):
        recipe["scale"] = constant("gaf: scale", scale)
    else:
        recipe["scale"] = "FIXED"
        recipe["fixed_range"] = interval("gaf: scale", scale)
    if series_scale != "none":
        recipe["series_scale"] = constant("gaf: series_scale", series_scale, "TO_")
    if stats is not None:
        recipe["stats"] = constant("gaf: stats", stats)
    return {"gaf": recipe}


def graph(
    tensors: Iterable[str] | str | None = None,
    *,
    line_graph: str | None = None,
    rbf: tuple[int, float, float] | None = None,
    float_dtype: str = "f32",
    index_dtype: str = "i64",
) -> Recipe:
    """Batched crystal graphs: ``N`` atoms, ``E`` directed edges, ``T`` triplets, each summed over the batch.

    Args:
        tensors: which ones; default: those of an ALIGNN batch, as the data set has them. ``atomic_number`` ``[N]``,
            ``x`` ``[N, F]``, ``frac_coords`` ``[N, 3]``, ``lattice`` ``[B, 3, 3]``, ``edge_index`` ``[2, E]`` (row 0
            source, row 1 destination), ``r`` ``[E, 3]`` Å from source to destination, ``images`` ``[E, 3]``,
            ``distance`` ``[E]``, ``rbf`` ``[E, K]``, ``lg_edge_index`` ``[2, T]``, ``cos`` ``[T]``, ``num_nodes``,
            ``num_edges``, ``num_triplets`` ``[B]``, ``batch`` ``[N]``, ``ptr`` ``[B + 1]``, ``target``,
            ``text_offsets`` ``[B + 1]``, ``text_bytes``, and sidecars under their names. ``index`` always comes.
        line_graph: ``"dgl"`` (default), ``"torch"``, ``"m3gnet"`` or ``"none"``: how triplets are counted.
        rbf: ``(bins, low, high)`` of the radial basis; adds ``"rbf"`` to ``tensors`` if those are given.
        float_dtype: of ``x``, ``r``, ``distance``, ``rbf``, ``cos``: ``"f32"``, ``"f16"`` or ``"bf16"``.
        index_dtype: ``"i64"`` or ``"i32"``.
    """
    recipe: dict[str, Any] = {
        "float_dtype": constant("graph: float_dtype", float_dtype, "DTYPE_"),
        "index_dtype": constant("graph: index_dtype", index_dtype, "DTYPE_"),
    }
    if tensors is not None:
        names = texts("graph: tensors", tensors)
        if rbf is not None and "rbf" not in names:
            names.append("rbf")
        recipe["tensors"] = names
    if line_graph is not None:
        recipe["line_graph"] = "NO_LINE_GRAPH" if line_graph == "none" else constant("graph: line_graph", line_graph)
    if rbf is not None:
        if not isinstance(rbf, Iterable) or len(parts := tuple(rbf)) != 3:
            raise InvalidRequest(f"graph: rbf {rbf!r}: must be (bins, low, high)")
        bins, low, high = parts
        recipe["rbf"] = {"bins": whole("graph: rbf", bins), **interval("graph: rbf", (low, high))}
    return {"graph": recipe}
