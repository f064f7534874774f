# SPDX-License-Identifier: Apache-2.0
"""Arguments of the package's functions, as JSON has them.

Each function takes the argument's name for people, such as ``"loader: seed"``, and raises InvalidRequest with it if the
value does not fit.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any

from .errors import InvalidRequest


def whole(name: str, value: Any, least: int = 0, most: int = 2**64 - 1) -> int:
    """A whole number in [least, most]."""
    try:
        number = operator.index(value)
    except TypeError:
        raise _wrong(name, value, "a whole number") from None
    if number < least:
        raise InvalidRequest(f"{name} {value}: must be at least {least}")
    if number > most:
        raise InvalidRequest(f"{name} {value}: must be at most {most}")
    return number


def number(name: str, value: Any) -> float:
    """A number, or infinity."""
    if isinstance(value, str):  # float() would take it
        raise _wrong(name, value, "a number")
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise _wrong(name, value, "a number") from None
    if math.isnan(found):
        raise _wrong(name, value, "a number")
    return found


def seconds(name: str, value: Any) -> float:
    """A number from 0 on."""
    if number(name, value) < 0:
        raise InvalidRequest(f"{name} {value}: must be at least 0")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False; None is False, as for DataLoader. A string would always be true."""
    if isinstance(value, str) or value not in (True, False, None):
        raise _wrong(name, value, "True or False")
    return bool(value)


def interval(name: str, value: Any) -> dict[str, float]:
    """``(low, high)`` as ``stoker.v1.Range``."""
    if isinstance(value, str) or not isinstance(value, Iterable) or len(ends := tuple(value)) != 2:
        raise _wrong(name, value, "(low, high)")
    low, high = number(name, ends[0]), number(name, ends[1])
    if math.isinf(low) or math.isinf(high):
        raise _wrong(name, value, "(low, high), both finite")
    return {"low": low, "high": high}


def text(name: str, value: Any) -> str:
    """A string, as UTF-8 has it."""
    if not isinstance(value, str):
        raise _wrong(name, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(name, value, "text in UTF-8") from None
    return value


def name_of(name: str, value: Any) -> str:
    """A string that is not empty."""
    if not text(name, value):
        raise _wrong(name, value, "a name")
    return str(value)


def texts(name: str, value: Any) -> list[str]:
    """A string or several, such as names of columns; numbers of columns do too."""
    if isinstance(value, str):
        return [value]
    items = [str(item) if isinstance(item, int) else item for item in value] if isinstance(value, Iterable) else None
    if items is None or not all(isinstance(item, str) for item in items):
        raise _wrong(name, value, "a string or several")
    return items


def constant(name: str, value: Any, prefix: str = "") -> str:
    """The name of an enum's value, from how people write it: ``"u8"``, ``"id-prop"``."""
    return prefix + text(name, value).upper().replace("-", "_")


def path(name: str, value: Any) -> str:
    """An absolute path."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(found := os.fspath(value), bytes):
        raise _wrong(name, value, "a path")
    return os.path.abspath(os.path.expanduser(found))


def paths(name: str, value: Any) -> list[str]:
    """A path or several, made absolute."""
    if isinstance(value, (str, os.PathLike)):
        return [path(name, value)]
    if not isinstance(value, Iterable):
        raise _wrong(name, value, "a path or several")
    return [path(name, item) for item in value]


def _wrong(name: str, value: Any, what: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {value!r}: must be {what}")
