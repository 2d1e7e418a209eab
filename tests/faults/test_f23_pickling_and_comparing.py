"""F23: errors reach the process that waits for them; values can be pickled, copied, compared and hashed."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Lock
from typing import Any, NoReturn

import numpy as np
import pytest

import costroute_rt
from costroute_rt.engines.backends.polling import LimitError
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import (
    BackendError,
    BudgetError,
    BundleError,
    BusyError,
    CancelledError,
    ConfigError,
    CostrouteError,
    EngineError,
    LabelError,
    OutputError,
    PromptError,
    Reason,
    StoreFullError,
    make_closed_error,
)
from costroute_rt.request import Request
from tests.runtime.fakes import FakeDevice, open_fake_runtime


class OfAnApplication(ConfigError):
    """An error that an application derives, with arguments of its own."""

    def __init__(self, field: str) -> None:
        super().__init__(field, None, "a value")
        self.code = 3


ERRORS = (
    ConfigError("threads", 0, "1 or more"),
    ConfigError("prompt", Lock(), "text"),
    PromptError("the prompt is empty"),
    LabelError("labels.csv", "line 3 has no score", "label again"),
    BudgetError(100, "turbo@1", 250.5, prompts=3),
    BundleError(None, "it is damaged", "copy it again", reason=Reason.ROUTER),
    EngineError("it is missing", reason=Reason.MISSING, engine="a/b/c", setup={"backend": "openvino"}),
    LimitError("the build took longer than 120 s and was stopped", reason=Reason.TOO_LONG),
    StoreFullError("no room is left", reason=Reason.FULL, path="/store"),
    BackendError("provider cuda", "cpu", "install it", ["costroute-rt[cuda]"], instead={"provider": "cpu"}),
    OutputError("a.png", "no room is left"),
    make_closed_error(),
    BusyError(3, 3, 840.5),
    CancelledError(),
    OfAnApplication("field"),
)
LOCK = type(Lock())
SENDS = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "copy": copy.copy, "deepcopy": copy.deepcopy}


def fail(error: BaseException) -> NoReturn:
    raise error


def all_error_classes() -> set[type]:
    """Every class that derives from CostrouteError, wherever it is defined outside the torch side."""
    for module in pkgutil.walk_packages(costroute_rt.__path__, "costroute_rt."):
        if not any(part in module.name for part in (".export", "__main__", ".backends.", "__pyinstaller")):
            importlib.import_module(module.name)
    found, todo = set(), [CostrouteError]
    while todo:
        subclasses = todo.pop().__subclasses__()
        found.update(subclasses)
        todo += subclasses
    return {each for each in found if not each.__name__.startswith("_")}


def test_f23_every_error_class_is_tested() -> None:
    ours = {each for each in all_error_classes() if each.__module__.startswith("costroute_rt")}
    assert ours == {type(each) for each in ERRORS if type(each).__module__.startswith("costroute_rt")}


def test_f23_errors_of_a_workers_process_reach_the_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for error in ERRORS:
            with pytest.raises(type(error)) as caught:
                pool.submit(fail, error).result(timeout=60)
            assert str(caught.value) == str(error)
            assert (caught.value.exit_code, caught.value.reason) == (error.exit_code, error.reason)
        assert pool.submit(len, "alive").result(timeout=60) == 5
        assert pool.submit(BudgetError, 100, "turbo@1", 250.5).result(timeout=60).fastest_ms == 250.5


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_f23_a_copy_of_an_error_has_its_fields(error: CostrouteError, send: Callable[[Any], Any]) -> None:
    found = send(error)
    assert type(found) is type(error)
    assert (str(found), found.args) == (str(error), error.args)
    assert vars(found).keys() == vars(error).keys()
    for name, value in vars(error).items():
        assert getattr(found, name) == (repr(value) if name == "found" and send is not copy.copy and isinstance(value, LOCK) else value)


@pytest.fixture
def device(tiny_bundle: Any) -> FakeDevice:
    return open_fake_runtime(Bundle.open(tiny_bundle))


def make_values(device: FakeDevice) -> dict[str, Any]:
    """One of each public value, as they come out of a runtime."""
    request = Request(prompt="a red house", max_ms=300, seed=7, preview=True, negative_prompt="fog")
    *events, result = device.runtime.stream(request)
    route = device.runtime.route(request)
    return {
        "request": request,
        "candidate": route.chosen,
        "route": route,
        "option": route.option,
        "cost": route.option.cost,
        "judgement": route.judgement,
        "event": events[1],
        "result": result,
        "timings": result.timings,
    }


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_f23_values_are_equal_to_their_copies(device: FakeDevice, send: Callable[[Any], Any]) -> None:
    for name, value in make_values(device).items():
        found = send(value)
        assert found == value, name
        assert hash(found) == hash(value), name
        assert len({found, value}) == 1
        assert value != "another type"


def test_f23_the_same_work_gives_equal_values(tiny_bundle: Any) -> None:
    first, second = (make_values(open_fake_runtime(Bundle.open(tiny_bundle))) for _ in range(2))
    assert first == second
    assert {name: hash(value) for name, value in first.items()} == {name: hash(value) for name, value in second.items()}


def test_f23_values_of_other_content_differ(device: FakeDevice) -> None:
    runtime = device.runtime
    assert runtime.route("a red house") != runtime.route("a blue house")
    assert runtime.route("a red house", max_ms=300) != runtime.route("a red house", max_ms=301)
    result = runtime.generate("a red house", seed=7)
    changed = copy.deepcopy(result)
    changed.pixels[0, 3, 4, 1] ^= 1
    assert changed != result
    assert np.shares_memory(copy.copy(result).pixels, result.pixels)


def test_f23_pools_return_values(device: FakeDevice) -> None:
    values = make_values(device)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for name, value in values.items():
            assert pool.submit(copy.copy, value).result(timeout=60) == value, name
