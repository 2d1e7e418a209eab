"""A fitted router: the expected quality of each candidate for a prompt, learned from labels."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from costroute_rt.engines.bundle.digest import sha256_file
from costroute_rt.engines.bundle.section import Section, canonical_json, shorten
from costroute_rt.error import ConfigError
from costroute_rt.judgement import Judgement, Neighbour
from costroute_rt.regular_file import ReadFile, read_regular
from costroute_rt.routing.array import AnyArray, Float32Array, FloatArray, row_lengths, within
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.extended import base_of, describe_added
from costroute_rt.routing.estimator.loading import load_estimator
from costroute_rt.routing.estimator.mean import find_knn
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.evidence import Evidence
from costroute_rt.routing.familiarity import Familiarity, fall
from costroute_rt.routing.neighbour import Neighbours
from costroute_rt.routing.prompt_encoder import PromptEncoder, TextStates
from costroute_rt.routing.reduction import Reduction
from costroute_rt.routing.reliability import Reliability
from costroute_rt.routing.router_file import ROUTER_ARRAYS, ROUTER_JSON, read_arrays, read_settings, router_error, write_arrays
from costroute_rt.routing.router_network import Network, OpenEngine, no_engine
from costroute_rt.routing.shrinkage import NO_SHRINKAGE, Shrinkage
from costroute_rt.routing.tagged_encoder import load_encoder

FORMAT, FORMAT_VERSION = "costroute-router", 2
"""Files of version 1 have no shrinkage, but a field `routes_on`: `prompt` or `average`."""
POOL_FIELDS = ("name", "denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder")
"""The fields that identify a labelled candidate."""
NEAREST_COUNTED = 5
"""A prompt's distance is that to the labelled prompt of this rank."""
_SHOWN = 3
_HALVED = frozenset({"features", "familiarity/rows"})
"""Arrays saved as float16."""
_LIMITING = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """Judges prompts for one pool; made by fitting, or by `load`.

    The estimate is average + s * (estimator - average), s = trust * shrinkage.near + (1 - trust) * shrinkage.far. Trust falls from 1 at
    distance `near` of the features to 0 at `far`, times how familiar the kind of prompt is. The two shrinkages measure how much of the
    estimator's effect was real when it was fitted, on kinds that were labelled and on others. From `far` to distance 1, which means nothing
    in common with any labelled prompt, s falls to 0.
    """

    pool: tuple[Mapping[str, Any], ...]
    """The candidates it was fitted for, in order: POOL_FIELDS of each."""
    encoder: PromptEncoder
    reduction: Reduction | None
    """Reduces the encoder's features; None if they are used as they are."""
    estimator: Estimator
    average: Average
    prompts: tuple[str, ...]
    """Labelled prompts."""
    features: Float32Array
    """float32[prompts, width], reduced; if `Knn.fit` got the same array, one search serves both."""
    near: float
    """Distance (see `distance`) up to which trust is 1."""
    far: float
    """Distance from which trust is 0."""
    reason: str
    """How much it routes on the prompt, and why, for users."""
    shrinkage: Shrinkage = NO_SHRINKAGE
    """How much the effect of a prompt counts."""
    familiarity: Familiarity | None = None
    """How familiar the kind of a prompt is; None if every kind counts as familiar."""
    reliability: Reliability | None = None
    """How far its estimates are off; None if that was not measured, so that the estimator's own errors stand in."""
    evidence: Evidence | None = None
    """What a strict router asks at each trade-off; None if it is not strict."""
    text_encoder: str | None = None
    """SHA-256 of the weights of the text encoder whose states it was fitted on; None if it reads no states."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The rest of its JSON: labels, cross-validation ..."""
    _neighbours: Neighbours = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check()
        knn = find_knn(self.estimator)
        shared = knn is not None and knn.neighbours.features is self.features
        object.__setattr__(self, "_neighbours", knn.neighbours if knn is not None and shared else Neighbours(self.features))

    def _check(self) -> None:
        if not 0 <= self.near <= self.far < float("inf"):
            raise ConfigError("near and far", (self.near, self.far), "two distances, the second not smaller")
        if self.features.ndim != 2 or not self.prompts or len(self.features) != len(self.prompts):
            raise ConfigError("features", f"float32{list(self.features.shape)}", f"a row for each of the {len(self.prompts)} prompts")
        if self.reduction is not None and len(self.reduction.center) != self.encoder.width:
            raise ConfigError("reduction", f"of {len(self.reduction.center)} features", f"one of the encoder's {self.encoder.width}")
        width = self.encoder.width if self.reduction is None else self.reduction.width
        if self.features.shape[1] != width or not np.isfinite(self.features).all():
            raise ConfigError("features", f"float32{list(self.features.shape)}", f"{width} finite numbers a prompt")
        if len(self.average.mean) != len(self.pool):
            raise ConfigError("pool", [row["name"] for row in self.pool], f"{len(self.average.mean)} candidates")
        if self.reliability is not None and len(self.reliability.share) != len(self.pool):
            raise ConfigError("reliability", f"of {len(self.reliability.share)} candidates", f"that of {len(self.pool)}")
        if self.evidence is not None and self.evidence.candidates != len(self.pool):
            raise ConfigError("evidence", f"of {self.evidence.candidates} candidates", f"that of {len(self.pool)}")
        if self.estimator.candidates != len(self.pool):
            raise ConfigError("estimator", f"of {self.estimator.candidates} candidates", f"one of {len(self.pool)}")

    @property
    def routes_on(self) -> str:
        """`prompt`, or `average` if the prompt does not count."""
        return "prompt" if self.shrinkage else "average"

    @property
    def needs_states(self) -> bool:
        """Whether `judge` reads text states."""
        return self.routes_on == "prompt" and (self.encoder.needs_states or self.estimator.needs_states)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks that its bundle holds for it."""
        return (*self.encoder.networks, *self.estimator.networks)

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that `judge` runs."""
        return tuple(network.engine for network in self.networks) if self.routes_on == "prompt" else ()

    def judge(self, prompt: str, states: TextStates | None) -> Judgement:
        """The expected quality of each candidate; states: of this prompt, if `needs_states` is true."""
        if self.routes_on == "average":
            basis = f"averages of {len(self.prompts):,} labelled prompts: {self.reason}"
            basis += describe_added(self.estimator, [row["name"] for row in self.pool])
            mean, error, trust = self.estimate([prompt], states)
            return Judgement(mean=mean[0], standard_error=error[0], basis=basis, **self._widths(trust))
        with _one_thread():
            features = self.encode([prompt], states)
            mean, error, trust, share = self._mix([prompt], features, states)
            places, similarities = self._neighbours.search(features, NEAREST_COUNTED)
        nearest = zip(places[0, :_SHOWN].tolist(), similarities[0, :_SHOWN].tolist(), strict=True)
        return Judgement(
            mean=mean[0],
            standard_error=error[0],
            trust=float(trust[0]),
            basis=self._basis(float(share[0])),
            nearest=tuple(Neighbour(self.prompts[place], similarity) for place, similarity in nearest),
            **self._widths(trust),
            average=None if self.evidence is None else self.average.mean,
            evidence=self.evidence,
        )

    def estimate(self, prompts: Sequence[str], states: TextStates | None) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Means and standard errors, float64[prompts, candidates], and trust, float64[prompts]: the numbers of `judge` for many prompts."""
        if self.routes_on == "average":
            mean, error = self.average.estimate(np.empty((len(prompts), 0), dtype=np.float32))
            trust = np.ones(len(prompts))
            return mean, self._errors(trust, error), trust
        return self._mix(prompts, self.encode(prompts, states), states)[:3]

    def _errors(self, trust: FloatArray, own: FloatArray) -> FloatArray:
        return own if self.reliability is None else self.reliability.errors(trust, own)

    def _widths(self, trust: FloatArray) -> dict[str, Any]:
        """What a judgement says about its errors; trust: float64[1]."""
        if self.reliability is None:
            return {}
        return {"label_widths": self.reliability.label_widths(trust)[:, 0], "differences": self.reliability.differences(float(trust[0]))}

    def encode(self, prompts: Sequence[str], states: TextStates | None) -> Float32Array:
        """float32[prompts, width]: the features that the estimator reads, whatever the router routes on."""
        features = self.encoder.encode(prompts, states)
        return features if self.reduction is None else self.reduction.apply(features)

    def _mix(
        self, prompts: Sequence[str], features: Float32Array, states: TextStates | None
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Mean and standard error of the mixture of estimator and average; trust, familiarity included; the estimator's share."""
        if self.reliability is not None and self.reliability.is_complete:  # the estimator's own errors are not needed
            own = self.estimator.predict(features, states)
            trust, factor = self._weigh(prompts, features)
            return self._shrink(own, factor), self.reliability.errors(trust), trust, factor
        own, own_error = self.estimator.estimate(features, states)
        trust, factor = self._weigh(prompts, features)
        mean, share = self._shrink(own, factor), factor[:, None]
        # The variance of a mixture includes the distance between its two means.
        squares = share * (own_error**2 + (own - mean) ** 2)
        squares += (1 - share) * (self.average.standard_error**2 + (self.average.mean - mean) ** 2)
        return mean, self._errors(trust, np.sqrt(squares)), trust, factor

    def _shrink(self, own: FloatArray, factor: FloatArray) -> FloatArray:
        share = factor[:, None]
        return own if (share == 1).all() else self.average.mean + share * (own - self.average.mean)

    def _weigh(self, prompts: Sequence[str], features: Float32Array) -> tuple[FloatArray, FloatArray]:
        """Trust, familiarity included, and the estimator's share; both float64[prompts]."""
        distance = self.distance(features)
        trust = fall(distance, self.near, self.far)
        if self.familiarity is not None:
            trust = trust * self.familiarity.of_prompts(prompts)
        return trust, self.shrinkage.factor(trust, fall(distance, self.far, max(1.0, self.far)))

    def distance(self, features: Float32Array) -> FloatArray:
        """float64[prompts], 0 to 2: how far these features, float32[prompts, width], are from the labelled prompts.

        1 - cosine to the 5th nearest * min(1, length): features are short if no labelled prompt has the prompt's words.
        """
        _, similarities = self._neighbours.search(features, NEAREST_COUNTED)
        known = np.minimum(1, row_lengths(features))
        return np.asarray(1 - similarities[:, -1].astype(np.float64) * known)

    def _basis(self, share: float) -> str:
        text = f"{base_of(self.estimator).kind} estimator on {len(self.prompts):,} labelled prompts"
        mixed = text if share == 1 else f"{text} ({share:.0%}) and averages ({1 - share:.0%})"
        return mixed + describe_added(self.estimator, [row["name"] for row in self.pool])

    def save(self, folder: Path) -> None:
        """Writes router.json and router.safetensors into `folder`, which is created if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        stored, shared = _gather(self)
        write_arrays(folder / ROUTER_ARRAYS, stored)
        settings = {
            **self.record,
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "arrays_sha256": sha256_file(folder / ROUTER_ARRAYS),
            "pool": [dict(row) for row in self.pool],
            "encoder": self.encoder.to_json(),
            "is_reduced": self.reduction is not None,
            "estimator": self.estimator.to_json(),
            "near": self.near,
            "far": self.far,
            "shrinkage": self.shrinkage.to_json(),
            "familiarity": None if self.familiarity is None else self.familiarity.to_json(),
            "reason": self.reason,
            "text_encoder": self.text_encoder,
            "shared": shared,
            "prompts": list(self.prompts),
        }
        (folder / ROUTER_JSON).write_bytes(canonical_json(settings))

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        open_engine: OpenEngine = no_engine,
        read: ReadFile = read_regular,
        may_have_tokenizer: bool = True,
    ) -> Router:
        """The router that `save` wrote into `folder`; raises BundleError for files that are missing, damaged or something else.

        open_engine: called for the engines of its networks whenever it judges.
        read: reads its settings and tokenizer; the arrays are the file whose hash the settings give.
        may_have_tokenizer: whether a tokenizer in the folder is part of the router.
        """
        path = folder / ROUTER_JSON
        section = read_settings(path, read)
        _check_format(section)
        arrays = read_arrays(folder / ROUTER_ARRAYS, section.sha256("arrays_sha256"))
        try:
            values = section.section("encoder").values
            encoder = load_encoder(values, folder if may_have_tokenizer else None, open_engine, read)
            return _build(cls, section, encoder, arrays, open_engine)
        except (ConfigError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise router_error(path, f"it is not a usable router: {error or type(error).__name__}") from error


def describe_pool(pool: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The POOL_FIELDS of each row of a bundle's pool."""
    return tuple({name: row[name] for name in POOL_FIELDS} for row in pool)


def pool_difference(wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> str | None:
    """How the pool a router was fitted for (`found`) differs from the bundle's (`wanted`), in words; None if they are the same."""
    names, others = [row["name"] for row in wanted], [row["name"] for row in found]
    missing, unknown = [name for name in names if name not in others], [name for name in others if name not in names]
    if missing or unknown:
        parts = [f"it was not fitted for {', '.join(missing)}"] if missing else []
        return "; ".join(parts + ([f"it was fitted for {', '.join(unknown)}, which the bundle does not have"] if unknown else []))
    if names != others:
        return f"it has the candidates in the order {', '.join(others)}, the bundle in {', '.join(names)}"
    for row, other in zip(wanted, found, strict=True):
        for name in POOL_FIELDS:
            if row[name] != other[name]:
                return f"it was fitted for {row['name']} with {name} {other[name]}, the bundle has {row[name]}"
    return None


def fingerprint(pool: Sequence[Mapping[str, Any]]) -> str:
    """Hexadecimal SHA-256 of `describe_pool`."""
    return hashlib.sha256(canonical_json(list(describe_pool(pool)))).hexdigest()


_OWN = frozenset(
    {"format", "format_version", "arrays_sha256", "pool", "encoder", "is_reduced", "estimator", "average", "near", "far"}
    | {"routes_on", "shrinkage", "familiarity", "reason", "text_encoder", "shared", "prompts"}
)
"""Fields of a router's JSON that are not part of its record."""


def _gather(router: Router) -> tuple[dict[str, AnyArray], dict[str, str]]:
    """The arrays by their names in the file, and for each array that is stored under another name already, that name."""
    arrays: dict[str, AnyArray] = {"features": router.features}
    parts: dict[str, Mapping[str, AnyArray]] = {"average": router.average.arrays(), "estimator": router.estimator.arrays()}
    if router.reduction is not None:
        parts["reduction"] = router.reduction.arrays()
    if router.familiarity is not None:
        parts["familiarity"] = router.familiarity.arrays()
    if router.reliability is not None:
        parts["reliability"] = router.reliability.arrays()
    if router.evidence is not None:
        parts["evidence"] = router.evidence.arrays()
    shared: dict[str, str] = {}
    for part, inner in parts.items():
        for name, array in inner.items():
            if array is router.features:
                shared[f"{part}/{name}"] = "features"
            else:
                arrays[f"{part}/{name}"] = array
    return {name: array.astype("<f2" if name in _HALVED else "<f4") for name, array in arrays.items()}, shared


def _check_format(section: Section) -> None:
    if section.values.get("format") != FORMAT:
        section.fail(f"its format is {shorten(section.values.get('format'))}: expected {FORMAT!r}")
    version = section.integer("format_version", minimum=1)
    if version > FORMAT_VERSION:
        section.fail(f"it has format version {version}, this costroute-rt reads up to {FORMAT_VERSION}: upgrade costroute-rt")


def _build(
    cls: type[Router],
    section: Section,
    encoder: PromptEncoder,
    arrays: dict[str, npt.NDArray[np.float32]],
    open_engine: OpenEngine,
) -> Router:
    for name, other in section.texts("shared").items():
        arrays[name] = arrays[other]
    prompts = section.items("prompts")
    if not set(map(type, prompts)) <= {str}:
        section.fail("its prompts are not all text")
    return cls(
        pool=describe_pool([{**row.values, "name": row.text("name")} for row in section.rows("pool")]),
        encoder=encoder,
        reduction=Reduction.from_saved(within(arrays, "reduction")) if section.flag("is_reduced", False) else None,
        estimator=load_estimator(section.section("estimator").values, within(arrays, "estimator"), open_engine),
        average=Average.from_saved({}, within(arrays, "average")),
        prompts=tuple(prompts),
        features=arrays["features"],
        near=section.number("near"),
        far=section.number("far"),
        shrinkage=_read_shrinkage(section),
        familiarity=_read_familiarity(section, arrays),
        evidence=Evidence.from_saved(asked) if (asked := within(arrays, "evidence")) else None,
        reliability=Reliability.from_saved(found) if (found := within(arrays, "reliability")) else None,
        reason=section.text("reason"),
        text_encoder=None if section.values.get("text_encoder") is None else section.sha256("text_encoder"),
        record={name: value for name, value in section.values.items() if name not in _OWN},
    )


def _read_familiarity(section: Section, arrays: Mapping[str, AnyArray]) -> Familiarity | None:
    if section.values.get("familiarity") is None:  # routers of older versions have no such field either
        return None
    return Familiarity.from_saved(section.section("familiarity").values, within(arrays, "familiarity"))


def _read_shrinkage(section: Section) -> Shrinkage:
    if section.integer("format_version", minimum=1) > 1:
        return Shrinkage.from_json(section.section("shrinkage").values)
    routes_on = section.text("routes_on")
    if routes_on not in ("prompt", "average"):
        section.fail(f"it routes on {shorten(routes_on)}: expected prompt or average")
    return Shrinkage(1.0 if routes_on == "prompt" else 0.0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits NumPy's matrix library to one thread: idle threads would keep spinning on the cores that the engines need next.

    The limit is process-wide, so only one caller at a time sets it: a second would restore the first one's limit.
    """
    with _LIMITING:
        pools = _thread_pools()
        has_more = any(library.num_threads != 1 for library in pools.lib_controllers)
        with pools.limit(limits=1) if has_more else nullcontext():
            yield


@cache
def _thread_pools() -> ThreadpoolController:
    """The thread pools of matrix libraries loaded by the first prompt, NumPy's among them; finding them takes a millisecond."""
    return ThreadpoolController().select(user_api="blas")
