"""Every example in the package's own words runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import readyroom

MODULES = ["readyroom", *(f"readyroom.{module.name}" for module in pkgutil.iter_modules(readyroom.__path__))]
PUBLIC = [(name, getattr(readyroom, name)) for name in readyroom.__all__]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("._core")])
def test_the_examples_of_a_module_run(name: str) -> None:
    module = importlib.import_module(name)
    known = {name: getattr(readyroom, name) for name in readyroom.__all__}
    result = doctest.testmod(module, extraglobs=known, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize(("name", "thing"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_every_public_name_says_what_it_is(name: str, thing: object) -> None:
    if isinstance(thing, (type, type(lambda: None))):
        assert ">>>" in (thing.__doc__ or ""), f"{name} has no docstring with an example"
