# SPDX-License-Identifier: Apache-2.0
"""Reads the batches of a data set, epoch after epoch."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic

from . import _process, _stoker, ranks
from ._arguments import name_of, seconds, text, whole
from .batch import Batch
from .client import Client
from .device import DeviceBatch, Placement, place
from .errors import Closed, InvalidRequest, WrongState
from .plans import make_plan
from .recipes import gaf, graph

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # a checker has it; the interpreter only since 3.13 in this form

    T = TypeVar("T", default=Batch)
else:
    from typing import TypeVar

    T = TypeVar("T")

# DataLoader's keywords without meaning here, the values that say nothing, and why.
_MEANINGLESS: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_workers": ((None, 0), "the daemon has the workers, for all loaders together"),
    "collate_fn": ((None,), "batches come collated: give transform=, a function of the batch"),
    "worker_init_fn": ((None,), "the daemon has the workers"),
    "multiprocessing_context": ((None,), "the daemon has the workers"),
    "persistent_workers": ((None, False), "the daemon's workers always persist"),
    "pin_memory_device": ((None, ""), "pinned memory serves every device"),
    "in_order": ((None, True), "batches always come in order"),
    "snapshot_every_n_steps": ((None, 1), "state_dict() is exact at every step, and costs nothing until it is called"),
}
_warned: set[str] = set()


class Loader(Generic[T]):
    """An iterable over the batches of one data set, in the manner of ``torch.utils.data.DataLoader``.

    >>> loader = stoker.Loader("sahu", stoker.gaf(dtype="u8"), batch_size=64, shuffle=True, seed=7)
    >>> for epoch in range(10):
    ...     for batch in loader:
    ...         train(batch.torch(device="cuda"))

    Each ``for`` is one epoch; the following ``for`` is the next epoch, with another order. ``break`` leaves an epoch, and
    the following ``for`` begins the next one. What a batch holds is a pure function of (data set, recipe, plan, epoch,
    step): the same on every machine, with any number of workers, after any crash. Loaders that ask for the same share
    the work and the memory.

    A loader has one position. A second iterator takes it over from the first, which then raises
    :class:`stoker.WrongState`. One thread at a time.

    Args:
        dataset: its name, see :meth:`stoker.Client.ingest`.
        recipe: what a batch holds: :func:`stoker.gaf`, :func:`stoker.graph`, or such a dictionary. Default: all defaults of
            the data set's kind.
        batch_size: samples a batch of one rank; default 64. Not with ``budget``.
        budget: the most that one batch may hold of ``graphs``, ``nodes``, ``edges``, ``triplets`` and ``bytes``, for
            crystals: ``{"nodes": 2000, "triplets": 400_000}``. Every rank has the same number of steps.
        oversize: what of a sample over budget: ``"fail"`` (default), ``"alone"``, ``"skip"``.
        shuffle, seed: another order in each epoch, by ``(seed, epoch)``; ``generator`` gives the seed if ``seed`` does not.
        rank, world_size: default: of ``torch.distributed`` when it is initialised, else of the launcher's environment
            (torchrun, Open MPI, MPICH, Slurm), else one process.
        drop_last: only full batches.
        tail: instead of ``drop_last``: ``"keep"`` (default: every sample exactly once; the last batch of each rank is
            smaller and may be empty), ``"drop"``, ``"pad"`` (filled up from the start of the epoch).
        prefetch_factor: batches that are asked for ahead; default: 8, of small ones up to 32, less where
            they are large for the arena. Who asks for none for five seconds, or a moment if others wait for room, gives
            them back for others' use; where nobody needed their room they are there again at once.
        transform: a function of the :class:`Batch`; the iterator yields what it returns, such as
            ``stoker.torch_geometric.to_batch``.
        pin_memory: yield :meth:`Batch.pin_memory`, where there is a GPU.
        timeout: seconds to wait for a batch, then :class:`stoker.Timeout`; 0: no limit.
        epoch: the first one.
        transport: ``"auto"``, ``"shm"`` or ``"inline"`` (over the socket, where memory cannot be shared).
        client, address: which daemon; default: :func:`stoker.connect`'s.
        open_timeout: seconds that opening may take.
        reconnect_timeout: seconds to wait for a daemon that went away; the loader goes on at the exact next batch.
        sampler, batch_sampler: refused unless ``None``: the plan is the sampler.
        num_workers, collate_fn, worker_init_fn, multiprocessing_context, persistent_workers, pin_memory_device, in_order,
            snapshot_every_n_steps: DataLoader's; accepted, without effect, with one warning each.

    Raises:
        InvalidRequest: wrong options, naming the field. NotFound: no such data set. Unavailable: no daemon.
    """

    def __init__(
        self,
        dataset: str,
        recipe: Mapping[str, Any] | None = None,
        *,
        batch_size: int | None = None,
        budget: Mapping[str, int] | None = None,
        oversize: str | None = None,
        shuffle: bool = False,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
        tail: str | None = None,
        prefetch_factor: int | None = None,
        transform: Callable[[Batch], T] | None = None,
        pin_memory: bool = False,
        timeout: float = 0.0,
        epoch: int = 0,
        transport: str = "auto",
        client: Client | None = None,
        address: str | os.PathLike[str] | None = None,
        open_timeout: float = 60.0,
        reconnect_timeout: float = 60.0,
        generator: Any = None,
        sampler: None = None,
        batch_sampler: None = None,
        num_workers: int | None = None,
        collate_fn: Any = None,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        persistent_workers: bool | None = None,
        pin_memory_device: str | None = None,
        in_order: bool | None = None,
        snapshot_every_n_steps: int | None = None,
    ) -> None:
        given = locals()
        _warn_of({name: given[name] for name in _MEANINGLESS})
        if sampler is not None or batch_sampler is not None:
            raise InvalidRequest(
                "loader: a sampler cannot be given, as the daemon orders the samples: use shuffle and seed, rank and "
                "world_size, and batch_size or budget"
            )
        if recipe is not None and not isinstance(recipe, Mapping):
            raise InvalidRequest(f"loader: recipe {recipe!r}: must be stoker.gaf(...), stoker.graph(...) or a dictionary")
        if client is not None and address is not None:
            raise InvalidRequest("loader: client and address: give one of them")
        if client is not None and not isinstance(client, Client):
            raise InvalidRequest(f"loader: client {client!r}: must be what stoker.connect() returned; a path is its address=")
        if seed is None:
            seed = generator.initial_seed() if generator is not None else 0
        found_rank, found_world = ranks.detect() if rank is None or world_size is None else (0, 1)
        rank = found_rank if rank is None else rank
        world_size = found_world if world_size is None else world_size
        self._client = client if client is not None else Client(address)
        self._dataset = name_of("loader: dataset", dataset)
        self._recipe = dict(recipe) if recipe is not None else self._default_recipe()
        self._plan = make_plan(batch_size, budget, oversize, shuffle, seed, rank, world_size, drop_last, tail)
        self._prefetch = -1 if prefetch_factor is None else whole("loader: prefetch_factor", prefetch_factor, 0, 65536)
        self._transform = transform
        self._pin = pin_memory and _can_pin()
        self._timeout = seconds("loader: timeout", timeout)
        self._transport = text("loader: transport", transport)
        self._open_timeout = seconds("loader: open_timeout", open_timeout)
        self._reconnect_timeout = seconds("loader: reconnect_timeout", reconnect_timeout)
        self._placement: Placement | None = None
        self._begin((whole("loader: epoch", epoch), 0))
        self._open()

    def _default_recipe(self) -> dict[str, Any]:
        return graph() if self._client.dataset(self._dataset).kind == "CRYSTALS" else gaf()

    # ---- the session ----

    def _begin(self, position: tuple[int, int]) -> None:
        self._start = position  # where a session is opened, if there is none
        self._native: _stoker.Loader | _stoker.DeviceLoader | None = None
        self._last_state: dict[str, Any] | None = None  # of a closed loader
        self._mapped: _stoker.Segments | None = None  # while there is no session for the moment
        self._pid = os.getpid()
        self._closed = False
        self._resume = position[1] > 0  # the next iterator goes on inside an epoch
        self._iterators = 0
        self._iterating = False
        self._epoch_asked: int | None = None

    def _open(self) -> _stoker.Loader | _stoker.DeviceLoader:
        native = self._client._handle().open(
            self._dataset,
            json.dumps(self._recipe),
            json.dumps(self._plan),
            *self._start,
            self._prefetch,
            self._transport,
            self._open_timeout,
            self._reconnect_timeout,
        )
        self._native = native if self._placement is None else self._placement.open(native)
        self._pid = os.getpid()
        self._mapped = None
        _process.loaders.add(self)
        return self._native

    def _handle(self) -> _stoker.Loader | _stoker.DeviceLoader:
        if self._closed:
            raise Closed(f"loader of {self._dataset}: it is closed")
        if self._native is None or self._pid != os.getpid():
            return self._open()
        return self._native

    def _give_up(self) -> bool:
        """Ends the session and the connection unless a batch of it is held; the next batch opens another."""
        native = self._native
        if native is None or self._pid != os.getpid():
            return True
        self._start = native.position
        if not native.pause():
            return False
        self._mapped = _stoker.segments()
        self._native = None
        return True

    def to(
        self,
        device: Any,
        *,
        depth: int = 3,
        memory_limit: int | None = None,
        expand: Mapping[str, Any] | None = None,
        share: bool = False,
    ) -> Loader[T]:
        """From the next batch on, yields :class:`stoker.DeviceBatch` that are in the device's memory. Returns itself.

        While one batch is used, the next are uploaded. The same call again changes nothing.

        Args:
            device: ``"cuda"`` (PyTorch's current device, else 0), ``"cuda:1"`` or such a ``torch.device``; ``"host"``: the
                same with this process' memory for a device's; ``"auto"``: ``"cuda"`` where there is one, else ``"host"``
                with a warning that says why.
            depth: batches on the device at once, from 2: a loop holds one while it asks for the next. Fewer, down to 2,
                where memory is short.
            memory_limit: bytes that they may take together. Each is given what the largest batch of any epoch can need: under
                a budget that is near what batches have, with a batch size the sum of the largest samples.
            expand: a recipe (:func:`stoker.gaf`, :func:`stoker.graph`) whose tensors are made on the device, of batches that
                hold what they are made of: ``Loader(d, stoker.gaf("series")).to("cuda", expand=stoker.gaf("gasf"))``.
            share: with other processes of this user that read the same batches on this device at the same pace, and share
                too, each batch is uploaded once. Then tensors must not be written to in place, but those that ``expand``
                makes. A process that is slower, stopped or dead holds up nobody.

        Raises:
            Unavailable: there is no such device, saying why. Exhausted: two batches of the largest size are over the limit
            or the device's memory. InvalidRequest: wrong options, or tensors that cannot be made of these batches.
        """
        placement = place(device, depth, memory_limit, expand, share, self._client, self._dataset)
        if placement == self._placement:
            return self
        native = self._handle()
        self._start = native.position
        native.close()
        self._native = None
        before, self._placement = self._placement, placement
        try:
            self._open()
        except BaseException:
            self._placement = before  # and goes on as it was
            raise
        return self

    @property
    def device_report(self) -> dict[str, Any]:
        """Of a loader that was moved :meth:`to` a device: its name, bytes allocated there, uploaded and expanded, batches that
        another process had uploaded, and more."""
        native = self._handle()
        return native.report if isinstance(native, _stoker.DeviceLoader) else {}

    # ---- iteration ----

    def __iter__(self) -> Iterator[T]:
        native = self._handle()
        epoch, step = native.position
        if self._epoch_asked is not None:
            native.set_epoch(self._epoch_asked)
        elif step > 0 and not self._resume:
            native.set_epoch(epoch + 1)  # the epoch was left
        self._epoch_asked = None
        self._resume = False
        self._iterating = True
        self._iterators += 1
        return _Iterator(self, self._iterators)

    def _next(self) -> Batch | DeviceBatch | None:
        native = self._handle()
        if isinstance(native, _stoker.DeviceLoader):
            assert self._placement is not None
            uploaded = native.next(self._timeout, self._placement.stream())
            return None if uploaded is None else DeviceBatch(uploaded)
        raw = native.next(self._timeout)
        if raw is None:
            return None
        return Batch(raw).pin_memory() if self._pin else Batch(raw)

    def __len__(self) -> int:
        """Batches of this rank in the current epoch: exact. The same in every epoch, except with a budget."""
        return self._handle().steps_per_epoch

    def set_epoch(self, epoch: int) -> None:
        """The following iterator reads ``epoch``. Not needed: epochs advance by themselves.

        After :meth:`load_state_dict` of a state inside this very epoch, the place in it is kept.
        """
        epoch = whole("loader: epoch", epoch)
        native = self._handle()
        if self._resume and native.position[0] == epoch:
            return
        self._resume = False
        if self._iterating:
            self._epoch_asked = epoch  # the loop that is running goes on
        else:
            native.set_epoch(epoch)

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self.position[0]

    @property
    def position(self) -> tuple[int, int]:
        """``(epoch, step)`` of the next batch. After the last batch of an epoch ``(epoch, len)``, and ``(epoch + 1, 0)`` when
        the loop has ended."""
        return self._start if self._native is None or self._pid != os.getpid() else self._native.position

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, as numbers and short texts (JSON, less than 1 KB): counts what was yielded, not what was
        prefetched. Takes microseconds."""
        if self._last_state is not None:
            return dict(self._last_state)
        state: dict[str, Any] = json.loads(self._handle().save_state())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The following iterator goes on where ``state`` was saved.

        A state from the end of an epoch, saved inside the loop, gives an iterator that ends at once; so loops over epochs
        count on rightly. Another world size is accepted if batch size times world size is the same.

        Raises:
            InvalidRequest: this is no state of a loader. WrongState: of another data set, recipe or order: names which.
        """
        if not isinstance(state, Mapping):
            raise InvalidRequest(f"load state: {state!r} is not what state_dict() gave")
        self._handle().load_state(json.dumps(dict(state)))
        self._resume = True
        self._iterators += 1
        self._iterating = False
        self._epoch_asked = None

    # ---- what it is ----

    @property
    def info(self) -> dict[str, Any]:
        """What the daemon said: samples, schema (shapes of a full batch), classes, digests, lease limit."""
        info: dict[str, Any] = json.loads(self._handle().info())
        info.pop("fetch_token", None)
        return info

    @property
    def classes(self) -> list[str]:
        """Labels; a class id is the place in this list."""
        return [str(entry["label"]) for entry in self.info["classes"]]

    @property
    def dataset(self) -> str:
        """Its name."""
        return self._dataset

    @property
    def recipe(self) -> dict[str, Any]:
        return self._recipe

    @property
    def plan(self) -> dict[str, Any]:
        return self._plan

    @property
    def rank(self) -> int:
        return int(self._plan["rank"])

    @property
    def world_size(self) -> int:
        return int(self._plan["world"])

    @property
    def transport(self) -> str:
        """``"shm"`` or ``"inline"``; ``"none"`` before the first batch."""
        return self._handle().transport

    @property
    def notice(self) -> str:
        """Why batches come inline or are copies, if nobody asked for it; else empty."""
        return self._handle().notice

    def __repr__(self) -> str:
        return f"<stoker.Loader of {self._dataset!r} at {self.position[0]}:{self.position[1]}>"

    # ---- the end ----

    def close(self) -> None:
        """Ends the session. Batches that are held stay readable. May be called twice."""
        native = self._native
        if native is not None and self._pid == os.getpid():
            self._start = native.position
            self._last_state = json.loads(native.save_state())
            native.close()
        self._native = self._mapped = None
        self._closed = True

    def __enter__(self) -> Loader[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_start"] = self.position
        of_this_process = ("_native", "_mapped", "_last_state", "_pid", "_closed", "_resume")
        for name in (*of_this_process, "_iterators", "_iterating", "_epoch_asked"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin(state["_start"])


class _Iterator(Iterator[T]):
    """One epoch of a loader."""

    __slots__ = ("_done", "_loader", "_number")

    def __init__(self, loader: Loader[T], number: int) -> None:
        self._loader = loader
        self._number = number
        self._done = False

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        loader = self._loader
        if loader._iterators != self._number:
            raise WrongState(f"loader of {loader._dataset}: another iterator was begun after this one")
        batch = loader._next()
        if batch is None:
            self._done = True
            loader._iterating = False
            raise StopIteration
        return batch if loader._transform is None else loader._transform(batch)  # type: ignore[return-value,arg-type]

    def __len__(self) -> int:
        return len(self._loader)


def _warn_of(given: dict[str, Any]) -> None:
    for name, (silent, reason) in _MEANINGLESS.items():
        if any(given[name] is value or given[name] == value for value in silent) or name in _warned:
            continue
        _warned.add(name)
        warnings.warn(f"stoker.Loader: {name} has no effect: {reason}", stacklevel=4)


def _can_pin() -> bool:
    import torch

    if torch.cuda.is_available():
        return True
    if "pin_memory" not in _warned:
        _warned.add("pin_memory")
        warnings.warn("stoker.Loader: pin_memory has no effect: there is no GPU", stacklevel=4)
    return False
