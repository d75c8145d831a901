"""Checks of arguments: what is wrong is named."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    return str(value.value) if isinstance(value, enum.Enum) else value


def optional_text(name: str, value: Any) -> str | None:
    return None if value is None else text(name, value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    word = text(name, value)
    if word not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {word!r}")
    return word


def whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {value}")
    return value


def seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, not {value}")
    return float(value)


def dollars(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of US dollars, not {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name} must be above zero, not {value}")
    return float(value)


def optional_seconds(name: str, value: Any) -> float | None:
    return None if value is None else seconds(name, value)


def path(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {type(value).__name__}")
    return os.fsdecode(value)


def optional_path(name: str, value: Any) -> str | None:
    return None if value is None else path(name, value)


def paths(name: str, value: Any) -> list[str]:
    if isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a list of paths; for one, write [{value!r}]")
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of paths, not {type(value).__name__}")
    return [path(name, each) for each in value]


def words(name: str, value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of strings, not {type(value).__name__}")
    return [text(name, each) for each in value]


def environment(name: str, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of strings, not {type(value).__name__}")
    return {text(name, key): text(f"{name}[{key!r}]", each) for key, each in value.items()}
