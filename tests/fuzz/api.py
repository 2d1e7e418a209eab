"""Calls of the Python interface with values of every type."""

from __future__ import annotations

import asyncio
import copy
import inspect
import io
import pickle
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from costroute_rt import Bundle, Candidate, CostrouteError, Request, RequestOptions, Result, Runtime, read_settings
from costroute_rt.export.checkpoint.recipe import BundleRecipe
from tests.fuzz.case import Case, fifos, in_folder, set_variables
from tests.fuzz.odd import Text, Whole, odd_object, odd_text, show
from tests.fuzz.place import NAMES, forget_temporary_folder

_WRONG_CALL = re.compile(r"unexpected keyword argument|missing \d+ required|positional argument|multiple values")
"""Python's own errors about calls that no signature allows."""

PLAUSIBLE: dict[str, tuple[Any, ...]] = {
    "prompt": ("a lake", Text("a red house"), Request(prompt="a boat"), Request(prompt="a boat", count=2, seed=1)),
    "negative_prompt": (None, "blue", ""),
    "max_ms": (None, 50, 5000.0),
    "candidate": (None, *NAMES),
    "seed": (None, 7, Whole(9)),
    "count": (1, 2),
    "height": (None, 64, 128),
    "width": (None, 64, 96),
    "lam": (0.0, 0.01),
    "tolerance": (0.0, 0.1),
    "or_fastest": (True, False),
    "preview": (True, False),
    "on_step": (None, lambda event: None, lambda event: False),
    "cancel": (None,),
    "latest": (None, "box"),
    "total_ms": (None, 1000, 5.0),
    "mean_ms": (None, 100),
    "prompts": (["a lake", "a boat"], [], ("a lake",)),
    "backend": ("onnxruntime", "openvino"),
    "provider": ("auto", "cpu"),
    "precision": ("auto", "float32"),
    "threads": (None, 1),
    "extra_stores": ((), []),
    "max_waiting": (None, 3),
    "progress": (None, lambda event: None, lambda event: False),
    "build": (False, True),
    "background_build": (False,),
    "preload": (True, False),
    "allow_fallback": (False, True),
    "format": (None, "png", "jpeg", "webp"),
    "index": (0, 1),
    "quality": (90, 1),
    "target": ("../tmp/x.png", "y.webp"),
    "timeout": (10.0,),
}  # fmt: skip
_SHORT = {"count": lambda value: 100 < value <= 10_000}
"""Values that are fine and would take minutes."""


def try_calls(case: Case) -> None:
    """A few calls on one runtime, whose arguments are of any type."""
    environment = case.place.environment
    case.place.make_odd_paths()
    with set_variables(environment), in_folder(case.place.root / "cwd"), fifos(case.place):
        forget_temporary_folder()
        if case.random.random() < 0.25:
            attempt(case, Runtime.open, lambda runtime: runtime.close(), first=(str(case.place.root / "bundle"),))
            return
        with Runtime.open(case.place.root / "bundle", preload=False) as runtime:
            for _ in range(case.random.choice((5, 10, 20))):
                _call(case, runtime)
    case.problems += case.place.problems(case.template, may_change={"user"})


def _call(case: Case, runtime: Runtime) -> None:
    kind = case.random.randrange(13)
    match kind:
        case 0 | 1:
            attempt(case, runtime.generate, lambda result: _use(case, result))
        case 2:
            attempt(case, runtime.stream, lambda stream: list(stream))
        case 3:
            attempt(case, runtime.route, check_value)
        case 4 | 5:
            attempt(case, runtime.plan, lambda routes: [check_value(each) for each in routes])
        case 6:
            attempt(case, runtime.submit, lambda job: _wait(case, job))
        case 7:
            attempt(case, runtime.generate_async, asyncio.run)
        case 8:
            attempt(case, runtime.stream_async, lambda events: asyncio.run(drain(events)))
        case 9:
            attempt(case, runtime.route_async, asyncio.run)
        case 10:
            attempt(case, Request, check_value)
            attempt(case, Candidate, check_value)
            attempt(case, BundleRecipe, None)
        case 11:
            attempt(case, read_settings, None)
            attempt(case, Bundle.open, None)
        case _:
            attempt(case, runtime.preload, None)


def _wait(case: Case, job: Any) -> None:
    """Odd times to wait for a job, then its end."""
    with suppress(TimeoutError):
        attempt(case, job.result, None)
    job.add_done_callback(lambda job: None)
    job.cancel()
    with suppress(CostrouteError):
        job.result(20)


async def drain(events: Any) -> list[Any]:
    return [each async for each in events]


def check_value(value: Any) -> None:
    """Public values can be shown, compared, hashed, copied and pickled."""
    repr(value)
    if copy.copy(value) != value or pickle.loads(pickle.dumps(value)) != value:
        raise AssertionError(f"the copy differs: {value!r}")
    hash(value)


def _use(case: Case, result: Result) -> None:
    """Odd arguments for what a result offers."""
    repr(result)
    target = case.random.choice((io.BytesIO(), io.StringIO(), "../odd/x.png", *case.place.make_or_list_odd_paths()))
    attempt(case, result.save, None, first=(target,) if case.random.random() < 0.7 else ())
    attempt(case, result.image_bytes, None)
    attempt(case, result.png_bytes, None)
    attempt(case, result.image_settings, None)


def attempt(case: Case, function: Callable[..., Any], use: Callable[[Any], object] | None, first: tuple[Any, ...] = ()) -> None:
    """Call the function with drawn arguments and use its result; any error but ours is a problem."""
    arguments = draw_arguments(case, function, skip=len(first))
    case.note(f"{getattr(function, '__qualname__', function)}({show(first, 200)}, **{show(arguments, 1500)})")
    try:
        found = function(*first, **arguments)
        if use is not None:
            use(found)
    except CostrouteError as error:
        try:
            str(error), repr(error), pickle.loads(pickle.dumps(error))
        except Exception as problem:
            case.problems.append("an error cannot be shown or pickled: " + "".join(traceback.format_exception(problem))[-2000:])
    except (KeyboardInterrupt, TimeoutError):
        pass
    except BaseException as error:
        if not (isinstance(error, TypeError) and _WRONG_CALL.search(str(error))):
            case.problems.append(
                f"{getattr(function, '__qualname__', function)} with {show(arguments)} raised "
                + "".join(traceback.format_exception(error))[-2500:]
            )


def draw_arguments(case: Case, function: Callable[..., Any], *, skip: int = 0) -> dict[str, Any]:
    """Values for some of the function's parameters, as its signature has them."""
    random, names = case.random, []
    for name, parameter in list(inspect.signature(function).parameters.items())[skip:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            names += random.sample(list(RequestOptions.__annotations__), random.choice((0, 1, 2, 4)))
        elif parameter.kind is not parameter.VAR_POSITIONAL and (parameter.default is parameter.empty or random.random() < 0.3):
            names.append(name)
    oddness = random.choice((0.1, 0.3, 1.0))
    return {name: draw_value(case, name, oddness) for name in names}


def draw_value(case: Case, name: str, oddness: float) -> Any:
    if case.random.random() > oddness and name in PLAUSIBLE:
        return case.random.choice(PLAUSIBLE[name])
    if name in ("home", "bundle", "extra_stores", "source", "root", "target") and case.random.random() < 0.6:
        return case.random.choice(case.place.make_or_list_odd_paths())
    value = odd_text(case.random).lstrip("/") if case.random.random() < 0.2 else odd_object(case.random)
    if name in ("on_step", "progress", "callback") and callable(value):
        return lambda *_: None  # errors of the caller's own function are the caller's
    try:
        return 1 if name in _SHORT and _SHORT[name](value) else value
    except Exception:
        return value
