"""Each error has a text with its remedy and an exit code, and can be pickled and copied."""

from __future__ import annotations

import copy
import pickle
import sys
from enum import Enum
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

from costroute_rt import error
from costroute_rt.error import Reason

SETUP = {"backend": "openvino", "provider": "gpu", "precision": "float16", "target": ""}
CASES = [
    (error.ConfigError("threads", 0, "1 or more"), 2, "threads is 0: expected 1 or more"),
    (error.PromptError("the prompt is empty"), 2, "the prompt is empty"),
    (
        error.BudgetError(5, "tiny@1", 11.6),
        3,
        "nothing fits in 5 ms: the fastest candidate, tiny@1, needs about 12 ms even on an idle machine; "
        "allow more time or ask for the fastest",
    ),
    (error.LabelError("/l.csv", "line 3: score is nan", "label again"), 2, "/l.csv: line 3: score is nan; label again"),
    (error.BundleError("/b", "it is damaged", "copy it again", reason=Reason.ROUTER), 4, "/b: it is damaged; copy it again"),
    (error.BundleError(None, "the denoiser is odd", "export another"), 4, "the denoiser is odd; export another"),
    (
        error.EngineError("its content is odd", reason=Reason.DAMAGED, engine="tiny/vae/decode@64x96", path="/e", setup=SETUP, bundle="/b"),
        5,
        "tiny/vae/decode@64x96 (/e): its content is odd; build the engine again",
    ),
    (error.EngineError("there is none", reason=Reason.MISSING, engine="a/vae/decode"), 5, "a/vae/decode: there is none; build the engines"),
    (
        error.EngineError("it is odd", reason=Reason.NO_MEMORY),
        5,
        "it is odd; free some of the device's memory, or use a smaller bundle or image size",
    ),
    (
        error.StoreFullError("there is no room", reason=Reason.FULL, path="/e"),
        5,
        "/e: there is no room; free some space, or set COSTROUTE_HOME to another disk",
    ),
    (
        error.BackendError("provider cuda", "only cpu", "install x", ["x[cuda]"], uninstall=["y"], instead={"provider": "cpu"}),
        6,
        "asked for provider cuda, found only cpu; install x",
    ),
    (error.OutputError("/o.png", "the disk is full"), 7, "cannot write /o.png: the disk is full"),
    (error.make_closed_error(), 8, "the runtime is closed; open another one: Runtime.open(...)"),
    (error.BusyError(3, 3, 840.4), 9, "the queue is full: 3 requests may wait; try again in about 840 ms"),
    (error.CancelledError(), 130, "cancelled"),
]  # fmt: skip
ERRORS = [case[0] for case in CASES]


@pytest.mark.parametrize(("raised", "exit_code", "text"), CASES, ids=[type(each).__name__ for each in ERRORS])
def test_text_and_exit_code(raised: error.CostrouteError, exit_code: int, text: str) -> None:
    assert (raised.exit_code, str(raised)) == (exit_code, text)
    assert isinstance(raised, error.CostrouteError)


def test_every_error_class_has_a_case() -> None:
    classes = {each for each in vars(error).values() if isinstance(each, type) and issubclass(each, error.CostrouteError)}
    assert {type(each) for each in ERRORS} == {each for each in classes if each.__name__ not in ("CostrouteError", "_FileError")}


@pytest.mark.parametrize("raised", ERRORS, ids=[type(each).__name__ for each in ERRORS])
@pytest.mark.parametrize(
    "send", [lambda each: pickle.loads(pickle.dumps(each)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"]
)
def test_a_copy_has_the_same_text_and_fields(raised: error.CostrouteError, send: object) -> None:
    found = send(raised)  # type: ignore[operator]
    assert type(found) is type(raised)
    assert (str(found), found.args, vars(found)) == (str(raised), raised.args, vars(raised))


class Colour(Enum):
    RED = "red"


class TwoArguments(Exception):
    """An exception that does not unpickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("text")


@pytest.mark.parametrize("found", [Path("/a"), Reason.FULL, Colour.RED, 1.5, np.float64(2), (1, "a"), {"a": [None]}, b"x", 10**30])
def test_a_value_that_can_be_pickled_stays(found: object) -> None:
    assert pickle.loads(pickle.dumps(error.ConfigError("value", found, "another"))).found == found


@pytest.mark.parametrize("found", [Lock(), TwoArguments(1, 2), lambda: 0, [Lock()], sys.stdout], ids=lambda each: type(each).__name__)
def test_a_value_that_cannot_be_pickled_becomes_text(found: object) -> None:
    raised = error.ConfigError("value", found, "another")
    for send in (copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))):
        sent = send(raised)
        assert (str(sent), sent.found) == (str(raised), repr(found))
    assert copy.copy(raised).found is found


def test_locating_an_error_fills_missing_fields_only() -> None:
    raised = error.StoreFullError("there is no room", reason=Reason.FULL, path="/e")
    found = raised.located(engine="tiny/vae/decode", path="/other", setup=SETUP, bundle="/b")
    assert type(found) is error.StoreFullError
    assert (found.problem, found.reason, found.engine, found.path) == ("there is no room", Reason.FULL, "tiny/vae/decode", "/e")
    assert (found.setup, found.bundle) == (SETUP, "/b")
    assert raised.engine is None
    again = found.located(engine="tiny/base/step", setup={}, bundle="/c")
    assert (again.engine, again.setup, again.bundle) == (found.engine, SETUP, "/b")


NOT_OF_ENGINES = {
    Reason.EXISTS, Reason.FOREIGN, Reason.ROUTER, Reason.LABELS, Reason.DRIVER, Reason.NOT_A_BUNDLE, Reason.CHECKPOINT, Reason.NESTED,
    Reason.OTHER_PROCESS, Reason.TOO_SLOW, Reason.QUEUE, Reason.LOAD,
}  # fmt: skip


@pytest.mark.parametrize("reason", [each for each in Reason if each not in NOT_OF_ENGINES])
def test_every_reason_of_an_engine_error_has_a_remedy(reason: Reason) -> None:
    assert error.EngineError("it is odd", reason=reason).remedy
