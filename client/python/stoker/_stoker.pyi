# SPDX-License-Identifier: Apache-2.0
# The extension module, client/python/src. Texts called `*_json` and those returned by info, status, datasets and ingest
# are the JSON form of the protocol's messages.
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

version: str

def calls_in_flight() -> int: ...
def grpc_running() -> bool: ...
def end_calls() -> None: ...

class Batch:
    epoch: int
    step: int
    samples: int
    size_bytes: int
    inline_memory: bool
    def check(self) -> None: ...
    def names(self) -> tuple[str, ...]: ...
    def dtype(self, name: str) -> str: ...
    def numpy(self, name: str) -> npt.NDArray[np.generic]: ...
    def dlpack(self, name: str) -> Any: ...

class Loader:
    steps_per_epoch: int
    position: tuple[int, int]
    transport: str
    notice: str
    def next(self, timeout: float) -> Batch | None: ...
    def info(self) -> str: ...
    def set_epoch(self, epoch: int) -> None: ...
    def save_state(self) -> str: ...
    def load_state(self, state_json: str) -> None: ...
    def pause(self) -> bool: ...
    def close(self) -> None: ...

class Client:
    address: str
    def health(self, service: str) -> bool: ...
    def status(self) -> str: ...
    def datasets(self, name: str) -> str: ...
    def drop(self, name: str) -> bool: ...
    def ingest(self, request: str, progress: Callable[[str], None] | None) -> str: ...
    def open(
        self,
        dataset: str,
        recipe_json: str,
        plan_json: str,
        epoch: int,
        step: int,
        prefetch: int,
        transport: str,
        open_timeout: float,
        reconnect_timeout: float,
        /,
    ) -> Loader: ...

def connect(address: str, timeout: float, /) -> Client: ...

class Embedded:
    address: str
    directory: str
    pid: int
    stderr_tail: str
    def stop(self) -> int: ...

def start_embedded(
    program: str,
    arena_bytes: str,
    workers: str,
    cache_dir: str,
    roots: list[str],
    extra: list[str],
    start_timeout: float,
    /,
) -> Embedded: ...
