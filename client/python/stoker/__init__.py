# SPDX-License-Identifier: Apache-2.0
"""Stoker: batches of Gramian angular fields and crystal graphs, made by a daemon, read in place.

>>> import stoker
>>> client = stoker.connect()
>>> client.ingest("sahu", "/data/sahu.csv", window=96, stride=96, label="fault")
>>> for batch in stoker.Loader("sahu", stoker.gaf(dtype="u8"), batch_size=64, shuffle=True):
...     images = batch.torch()["gasf"]

Adapters are modules of their own, as they need other packages: ``stoker.torch``, ``stoker.torch_geometric``,
``stoker.alignn``, ``stoker.dgl``.
"""

from . import _stoker
from .batch import Batch
from .client import Client, connect
from .device import DeviceBatch, DeviceTensor
from .embedded import Embedded, embedded
from .errors import (
    Closed,
    DataLoss,
    Exhausted,
    InternalError,
    InvalidRequest,
    LeaseLost,
    NotAllowed,
    NotFound,
    StokerError,
    Timeout,
    Unavailable,
    WrongState,
)
from .loader import Loader
from .recipes import gaf, graph

__version__ = _stoker.version

__all__ = [
    "Batch",
    "Client",
    "Closed",
    "DataLoss",
    "DeviceBatch",
    "DeviceTensor",
    "Embedded",
    "Exhausted",
    "InternalError",
    "InvalidRequest",
    "LeaseLost",
    "Loader",
    "NotAllowed",
    "NotFound",
    "StokerError",
    "Timeout",
    "Unavailable",
    "WrongState",
    "connect",
    "embedded",
    "gaf",
    "graph",
]
