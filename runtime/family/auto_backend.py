"""`backend="auto"`: which engines a pool runs on, by what was measured, or else by what is installed and built. Nothing is built here.

Between which engines, and how they are compared: `generation/fastest.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from costroute_rt.backend_choice import BackendChoice, Basis
from costroute_rt.engines.backends.registry import find_version
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.backends.spec import AUTO
from costroute_rt.engines.building.lookup import engine_key
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import ROUTER_GRAPHS
from costroute_rt.engines.bundle.name import EngineName
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.machine import device
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.store.fastest import Fastest, read_fastest
from costroute_rt.engines.store.store import Store
from costroute_rt.error import ConfigError
from costroute_rt.family.calls import pool_names
from costroute_rt.family.engine_source import EngineSource
from costroute_rt.version import read_version

BACKEND = "COSTROUTE_BACKEND"
"""Environment variable with the backend that `auto` stands for."""
USUAL, OTHER = "onnxruntime", "openvino"
LARGE_BYTES = 512_000_000
"""Of weights. With more of them no engines are built merely to be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The engines to run, and why."""

    setup: Setup
    choice: BackendChoice | None
    """None if nothing was left to `auto`."""


def choose_backend(
    pool: Pool,
    store: Store,
    *,
    backend: str = AUTO,
    provider: str = AUTO,
    precision: str = AUTO,
    threads: int | None = None,
    target: str = "",
    allow_fallback: bool = False,
) -> Chosen:
    """The setup of these options; raises as `Setup.of` does."""
    for name, value in (("backend", backend), ("provider", provider), ("precision", precision), ("target", target)):
        if not isinstance(value, str):
            raise ConfigError(name, value, "a name")
    named = find_named() if backend == AUTO else backend
    if backend == AUTO and is_open(provider, precision) and not target:
        return _choose(pool, store, precision, threads)
    if named == AUTO:  # another provider or precision, which one library has
        is_other = provider in (AUTO, "cpu") and not target and find_version(OTHER) is not None
        named = OTHER if is_other else USUAL
    try:
        setup = Setup.of(named, provider, precision, threads, target=target, allow_fallback=allow_fallback)
    except ConfigError as error:
        raise ConfigError(BACKEND, named, error.expected) if backend == AUTO and error.name == "backend" else error from error
    if backend != AUTO:
        return Chosen(setup=setup, choice=None)
    basis: Basis = "environment" if find_named() != AUTO else "only"
    reason = f"${BACKEND} says so" if basis == "environment" else "what was asked for runs on no other backend"
    return Chosen(setup=setup, choice=make_choice(setup, basis, reason))


def find_named() -> str:
    """The backend that `auto` stands for; `auto` itself unless the environment names another."""
    return os.environ.get(BACKEND) or AUTO


def is_open(provider: str, precision: str) -> bool:
    """Whether `auto` has more than one backend to choose from with these options, as far as they are installed."""
    return find_named() == AUTO and provider in (AUTO, "cpu") and precision in (AUTO, "float32")


def is_large(pool: Pool) -> bool:
    """Whether the pool has too many weights for engines to be built merely to be compared."""
    return sum(_weight_bytes(bundle) for bundle in pool.bundles.values()) > LARGE_BYTES


def make_key(pool: Pool, precision: str) -> str:
    """What a comparison holds for: the networks of the pool's bundles, the machine, the libraries and this package."""
    bundles = sorted(json.dumps([bundle.family, _networks(bundle)]) for bundle in pool.bundles.values())
    machine = [device.cpu_name(), *device.cpu_features(), device.os_name()]
    libraries = {name: find_version(name) for name in (USUAL, OTHER)}
    facts = [bundles, machine, libraries, read_version(), precision]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_choice(
    setup: Setup,
    basis: Basis,
    reason: str,
    image_ms: Mapping[str, Mapping[str, float]] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> BackendChoice:
    return BackendChoice(
        backend=setup.backend,
        provider=setup.provider,
        precision=setup.precision,
        basis=basis,
        reason=reason,
        image_ms=image_ms or {},
        left_out=left_out or {},
    )


def chosen_of(found: Fastest, threads: int | None) -> Chosen:
    """What a comparison has found."""
    setup = Setup.of(found.backend, found.provider, found.precision, threads)
    return Chosen(setup=setup, choice=make_choice(setup, "measured", found.reason, found.image_ms, found.left_out))


def other_setups(precision: str, threads: int | None) -> list[Setup]:
    """The engines that may take the place of the usual ones, the fastest on this processor first."""
    order = ("bfloat16", "float32") if has_fast_bfloat16() else ("float32", "bfloat16")
    return [Setup(backend=OTHER, precision=each, threads=threads) for each in order if precision in (AUTO, each)]


def preferred_by_rule(precision: str, threads: int | None) -> tuple[Setup, str]:
    """The engines that are usually fastest on such a processor, and the reason; raises BackendError for a damaged library."""
    preferred = other_setups(precision, threads)[0]
    reason = f"the models are too large to compare engines, and {preferred} is usually the fastest on this processor"
    return Setup.of(OTHER, "cpu", preferred.precision, threads), reason


def has_fast_bfloat16() -> bool:
    """Whether the processor multiplies matrices faster in bfloat16 than in float32.

    Those with AMX do, and AMD's with AVX-512 (1.9 times as fast on Zen 5); Intel's without AMX take 1.4 times as long.
    """
    features = device.cpu_features()
    return "amx_bf16" in features or ("avx512_bf16" in features and "AMD" in device.cpu_name())


def _choose(pool: Pool, store: Store, precision: str, threads: int | None) -> Chosen:
    if find_version(OTHER) is None:
        usual, missing = Setup.of(USUAL, threads=threads), f"it is not installed ({Fix.extra(OTHER).remedy})"
        return Chosen(setup=usual, choice=make_choice(usual, "only", "it is the only one installed", left_out={OTHER: missing}))
    found = read_fastest(store.root, make_key(pool, precision))
    if found is not None:
        return chosen_of(found, threads)
    names = [name for each in pool_names(pool).values() for name in each]

    def is_ready(setup: Setup) -> bool:
        return bool(names) and EngineSource(pool.holders, store, setup).is_ready(names)

    if is_large(pool):
        return _choose_by_rule(precision, threads, is_ready)
    usual = Setup.of(USUAL, threads=threads)
    ready = None if _exist(pool, store, usual, names) else next(filter(is_ready, other_setups(precision, threads)), None)
    if ready is not None:
        return Chosen(setup=ready, choice=make_choice(ready, "not_measured", f"its engines are built, and those of {usual} are not"))
    return Chosen(setup=usual, choice=make_choice(usual, "not_measured", f"it was not compared with {OTHER} yet"))


def _exist(pool: Pool, store: Store, setup: Setup, names: Sequence[str]) -> bool:
    """Whether all these engines are in the store, good or not: much faster to find out than whether they are ready."""
    digests = [engine_key(pool.holders[EngineName.parse(name).family], name, setup).digest for name in names]
    folders = [store.root / "engines", *(extra / "engines" for extra in store.extras)]
    return all(any(os.path.isdir(folder / digest) for folder in folders) for digest in digests)  # false, too, where reading is forbidden


def _choose_by_rule(precision: str, threads: int | None, is_ready: Callable[[Setup], bool]) -> Chosen:
    """The preferred engines, unless they would have to be built and the usual ones are there."""
    preferred, reason = preferred_by_rule(precision, threads)
    if preferred.backend != USUAL and not is_ready(preferred):
        usual = Setup(threads=threads)
        if is_ready(usual):
            reason = f"its engines are built; those of {preferred}, usually the fastest on this processor, are not"
            return Chosen(setup=usual, choice=make_choice(usual, "rule", reason))
    return Chosen(setup=preferred, choice=make_choice(preferred, "rule", reason))


def _weight_bytes(bundle: Bundle) -> int:
    return sum(bundle.files[name].bytes for name in {name for each in bundle.components.values() for name in each.weights})


def _networks(bundle: Bundle) -> list[list[str]]:
    """The networks that make images: names, weights and graphs of each component."""
    made = [(name, each) for name, each in bundle.components.items() if each.role not in ROUTER_GRAPHS]
    return sorted(
        [name, bundle.weights_sha256(name), *sorted(bundle.files[path].sha256 for path in each.graphs.values())] for name, each in made
    )
