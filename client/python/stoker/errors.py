# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, as a small tree below :class:`StokerError`.

The daemon and the C++ client say what went wrong by a code; each code has one class here, so that programs branch on
classes, never on texts. The message names what was being done, the object (file, line, record, field), the reason and
the remedy.
"""

from __future__ import annotations

__all__ = [
    "Closed",
    "DataLoss",
    "Exhausted",
    "InternalError",
    "InvalidRequest",
    "LeaseLost",
    "NotAllowed",
    "NotFound",
    "StokerError",
    "Timeout",
    "Unavailable",
    "WrongState",
]


class StokerError(Exception):
    """Any error of Stoker. ``code`` is the name of its gRPC code, such as ``"NOT_FOUND"``."""

    code = "UNKNOWN"

    def __init__(self, message: str = "", code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidRequest(StokerError, ValueError):
    """The request is wrong, or the data it names is: fix it."""

    code = "INVALID_ARGUMENT"


class NotFound(StokerError, LookupError):
    """There is no such data set, tensor, program or service."""

    code = "NOT_FOUND"


class NotAllowed(StokerError, PermissionError):
    """A path outside the daemon's roots, or a socket that may not be used."""

    code = "PERMISSION_DENIED"


class Exhausted(StokerError):
    """Not enough memory, ``/dev/shm`` or disk, or a limit was reached, such as that of batches held at once."""

    code = "RESOURCE_EXHAUSTED"


class WrongState(StokerError):
    """Not in this state: a state of another configuration, a data set in use, a daemon that is starting."""

    code = "FAILED_PRECONDITION"


class Unavailable(StokerError, ConnectionError):
    """No daemon answers, or none came back in time."""

    code = "UNAVAILABLE"


class Timeout(StokerError, TimeoutError):
    """The time that was allowed for this passed."""

    code = "DEADLINE_EXCEEDED"


class DataLoss(StokerError):
    """Bytes of a store or a segment are not what they must be."""

    code = "DATA_LOSS"


class LeaseLost(StokerError):
    """The memory of this batch may hold another one: read it again."""

    code = "ABORTED"


class Closed(StokerError):
    """The loader or the daemon was closed."""

    code = "CANCELLED"


class InternalError(StokerError):
    """A bug of Stoker: please report it with its message."""

    code = "INTERNAL"


# absl::StatusCode, which is google.rpc.Code: a number's place in this list is its meaning.
_CODES: tuple[tuple[str, type[StokerError]], ...] = (
    ("OK", InternalError),
    ("CANCELLED", Closed),
    ("UNKNOWN", InternalError),
    ("INVALID_ARGUMENT", InvalidRequest),
    ("DEADLINE_EXCEEDED", Timeout),
    ("NOT_FOUND", NotFound),
    ("ALREADY_EXISTS", WrongState),
    ("PERMISSION_DENIED", NotAllowed),
    ("RESOURCE_EXHAUSTED", Exhausted),
    ("FAILED_PRECONDITION", WrongState),
    ("ABORTED", LeaseLost),
    ("OUT_OF_RANGE", InvalidRequest),
    ("UNIMPLEMENTED", InternalError),
    ("INTERNAL", InternalError),
    ("UNAVAILABLE", Unavailable),
    ("DATA_LOSS", DataLoss),
    ("UNAUTHENTICATED", NotAllowed),
)


def from_status(code: int, message: str) -> StokerError:
    """The exception of a status; called by the extension module."""
    name, kind = _CODES[code] if 0 <= code < len(_CODES) else ("UNKNOWN", InternalError)
    return kind(message, name)
