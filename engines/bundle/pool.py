"""Pools: the candidates of one bundle or several, in one order, with the router over them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.manifest import ROUTER_GRAPHS, Component
from costroute_rt.engines.bundle.pool_file import (
    REMEDY,
    ROUTER_NAME,
    PoolBundle,
    PoolCandidate,
    PoolFile,
    PoolRouter,
    pool_path,
)
from costroute_rt.error import BundleError, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """An open pool. A bundle by itself is one too."""

    root: Path
    """The pool's folder, or the bundle."""
    metric: str
    bundles: Mapping[str, Bundle]
    """By name in the pool. Their candidates have their names in the pool, and only those that may be used are left."""
    candidates: tuple[PoolCandidate, ...]
    """Those that may be used, in the order of preference."""
    judged: tuple[PoolCandidate, ...]
    """All that the router judges, in its order: also those left out by `select`."""
    rows: tuple[Mapping[str, Any], ...]
    """What a router is fitted for: name, denoiser, scheduler, num_inference_steps, guidance_scale and decoder of each judged candidate.

    In a pool of bundles, denoisers and decoders are called NAME/COMPONENT; a candidate without a bundle has nothing but its name.
    """
    router: Bundle | None
    """Holds the router's files and networks: the bundle itself, or a view of the pool's folder; None without a router."""
    states_bundle: str | None
    """Name of the bundle whose text encoder the router reads, if it reads one."""
    is_bundle: bool = False
    """Whether it is a bundle by itself."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Pool:
        """Reads the pool in the folder `path` and opens its bundles, without hashing their files.

        Raises BundleError for a pool or bundle that is damaged, and for a bundle that was changed since the pool was made.
        """
        root = pool_path(path).resolve()
        file = PoolFile.open(root)
        whole = {name: _open_bundle(root, name, entry) for name, entry in file.bundles.items()}
        section = {} if file.router is None else file.router.section
        states = section.get("bundle")
        bundles = {
            name: pool_view(bundle, file.candidates, file.metric, section["states"] if name == states else None)
            for name, bundle in whole.items()
        }
        return cls(
            root=root,
            metric=file.metric,
            bundles=bundles,
            candidates=file.candidates,
            judged=file.candidates,
            rows=pool_rows(file.candidates, bundles),
            router=None if file.router is None else _router_view(root, file, file.router, None if states is None else bundles[states]),
            states_bundle=states,
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Pool:
        """The candidates of one bundle, with its router."""
        means = bundle.quality["candidates"]
        candidates = tuple(
            PoolCandidate(
                name=str(row["name"]), bundle=bundle.name, candidate=str(row["name"]), license=bundle.license, **means[row["name"]]
            )
            for row in bundle.pool
        )
        return cls(
            root=bundle.root,
            metric=str(bundle.quality["metric"]),
            bundles={bundle.name: bundle},
            candidates=candidates,
            judged=candidates,
            rows=bundle.pool,
            router=None if bundle.router is None else bundle,
            states_bundle=bundle.name,
            is_bundle=True,
        )

    @property
    def holders(self) -> dict[str, Bundle]:
        """All that holds engines, by the first part of their names: the bundles, and the router of a pool."""
        return {**self.bundles, **({} if self.router is None else {self.router.name: self.router})}

    def names(self) -> list[str]:
        """Names of the candidates that may be used."""
        return [each.name for each in self.candidates]

    def select(
        self, *, candidates: Sequence[str] = (), exclude: Sequence[str] = (), licenses: Sequence[str] = (), prefer: Sequence[str] = ()
    ) -> Pool:
        """The pool with fewer candidates, or in another order; raises ConfigError if one is unknown, or if none is left.

        candidates: only these. exclude: all but these. licenses: only those with one of these licences. prefer: these come first.
        """
        for option, named in (("candidates", candidates), ("exclude", exclude), ("prefer", prefer)):
            _check_known(option, named, self.names())
        allowed = [each for each in self.candidates if (not candidates or each.name in candidates) and each.name not in exclude]
        kept = [each for each in allowed if not licenses or each.license.casefold() in map(str.casefold, licenses)]
        if not kept:
            known = sorted({each.license or "unknown" for each in allowed})
            expected = f"one of those of the candidates: {', '.join(known)}" if allowed else "fewer than all candidates"
            raise ConfigError("license" if allowed else "exclude", ", ".join(licenses if allowed else exclude), expected)
        order = {name: place for place, name in enumerate(prefer)}
        kept.sort(key=lambda each: order.get(each.name, len(order)))
        return self if kept == list(self.candidates) else replace(self, candidates=tuple(kept), bundles=self._left(kept))

    def _left(self, candidates: Iterable[PoolCandidate]) -> dict[str, Bundle]:
        """The bundles with no other candidates than these, in this order; of the others only that whose text encoder the router reads."""
        place = {each.name: index for index, each in enumerate(candidates)}
        read = self.states_bundle if self.router is not None else None
        left = {}
        for name, bundle in self.bundles.items():
            rows = sorted((row for row in bundle.pool if row["name"] in place), key=lambda row: place[row["name"]])
            if rows or name == read:
                left[name] = replace(bundle, pool=tuple(rows))
        return left


def _check_known(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(option, name, f"one of {', '.join(known)}")


def pool_rows(candidates: Iterable[PoolCandidate], bundles: Mapping[str, Bundle]) -> tuple[dict[str, Any], ...]:
    """`Pool.rows` of these candidates, whose bundles have them under their names in the pool."""
    by_bundle = {name: {str(row["name"]): row for row in bundle.pool} for name, bundle in bundles.items()}

    def row_of(candidate: PoolCandidate) -> dict[str, Any]:
        blank = dict.fromkeys(("denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder"))
        if candidate.bundle is None:
            return {"name": candidate.name, **blank}
        row = by_bundle[candidate.bundle][candidate.name]
        return {
            **{name: row[name] for name in ("name", *blank)},
            **{part: f"{candidate.bundle}/{row[part]}" for part in ("denoiser", "decoder")},
        }

    return tuple(map(row_of, candidates))


def _open_bundle(root: Path, name: str, entry: PoolBundle) -> Bundle:
    bundle = Bundle.open(root / entry.path, verify=False)
    if bundle.manifest_sha256 != entry.manifest_sha256:
        raise BundleError(bundle.root, f"this bundle was changed since the pool {root} was made of it", REMEDY)
    return replace(bundle, alias=None if name == bundle.family else name)


def pool_view(bundle: Bundle, candidates: Iterable[PoolCandidate], metric: str, states: str | None = None) -> Bundle:
    """The bundle with those of a pool's candidates that are its own, under their names in the pool, and without its own router.

    states: the output of its text encoder that the pool's router reads, if it does. Raises BundleError for a candidate that it lacks.
    """
    rows, means = {row["name"]: row for row in bundle.pool}, {}
    wanted = [each for each in candidates if each.bundle == bundle.name]
    for each in wanted:
        if each.candidate not in rows:
            problem = f"the pool's candidate {each.name} is its {each.candidate}, but it has only {', '.join(rows)}"
            raise BundleError(bundle.root, problem, REMEDY)
        means[each.name] = {"mean": each.mean, "standard_error": each.standard_error}
    networks = [part for part in bundle.components.values() if part.role in ROUTER_GRAPHS]
    left_out = {file for part in networks for file in (*part.graphs.values(), *part.weights)}
    return replace(
        bundle,
        pool=tuple({**rows[each.candidate], "name": each.name} for each in wanted),
        quality={"metric": metric, "candidates": means},
        components={key: part for key, part in bundle.components.items() if part.role not in ROUTER_GRAPHS},
        files={name: entry for name, entry in bundle.files.items() if name not in left_out},
        graphs={name: spec for name, spec in bundle.graphs.items() if name not in left_out},
        router=None if states is None else {"states": states},
    )


def _router_view(root: Path, file: PoolFile, router: PoolRouter, states: Bundle | None) -> Bundle:
    """The pool's folder as a bundle that holds nothing but the router, for all that builds and opens engines.

    states: the bundle whose text encoder it reads: lengths of its text states are taken from there.
    """
    networks = {
        role: Component(name=role, role=role, graphs={each["graph"]: each["file"]}, weights=(each["weights"],))
        for role, each in router.networks.items()
    }
    encoders = {} if states is None else {name: part for name, part in states.components.items() if part.role == "text_encoder"}
    base = states if states is not None else _blank(root)
    view = replace(
        base,
        root=root,
        family=ROUTER_NAME,
        alias=None,
        files=file.files,
        components={**encoders, **networks},
        graphs={**base.graphs, **router.graphs},
        pool=(),
        router=dict(router.section),
    )
    view.check_places()
    return view


def _blank(root: Path) -> Bundle:
    """A bundle without anything."""
    from costroute_rt.engines.bundle.manifest import ImageSpec

    return Bundle(
        root=root, family=ROUTER_NAME, revision="", license="", made_with={}, files={}, components={}, graphs={}, tokenizers={},
        negative_prompt="empty_text", image=ImageSpec(height=8, width=8, vae_scale_factor=8, latent_channels=4, sizes=((8, 8),)),
        preview=None, schedulers={}, pool=(), quality={"metric": "", "candidates": {}}, quality_gates={}, router=None, manifest_sha256="",
    )  # fmt: skip
