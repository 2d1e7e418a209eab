"""Estimators as a router's files keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.routing.array import AnyArray, within
from costroute_rt.routing.estimator.addition import Addition
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.extended import Extended
from costroute_rt.routing.estimator.knn import Knn
from costroute_rt.routing.estimator.linear import Linear
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.protocol import Estimator
from costroute_rt.routing.estimator.shift import Shift
from costroute_rt.routing.estimator.transformer import Transformer
from costroute_rt.routing.router_network import OpenEngine, no_engine
from costroute_rt.routing.setting import whole_number

_ARRAYS_ONLY: dict[str, type[Average] | type[Knn] | type[Linear]] = {each.kind: each for each in (Average, Knn, Linear)}
"""Estimators without networks or members, by kind."""


def load_estimator(settings: Mapping[str, Any], arrays: Mapping[str, AnyArray], open_engine: OpenEngine = no_engine) -> Estimator:
    """The estimator whose `to_json` and `arrays` these are; raises ValueError, KeyError, TypeError or ConfigError for anything else.

    open_engine: called for its networks' engines whenever it estimates.
    """
    kind = settings["kind"]
    if kind in _ARRAYS_ONLY:
        return _ARRAYS_ONLY[kind].from_saved(settings, arrays)
    if kind == Transformer.kind:
        return Transformer.from_saved(settings, open_engine)
    if kind == Mean.kind:
        members = enumerate(settings["members"])
        return Mean(tuple(load_estimator(member, within(arrays, str(index)), open_engine) for index, member in members))
    if kind == Extended.kind:
        added = enumerate(settings["additions"])
        return Extended(
            load_estimator(settings["base"], within(arrays, "base"), open_engine),
            tuple((Shift if "twin" in each else Addition).from_saved(each, within(arrays, str(index))) for index, each in added),
            tuple(whole_number(each) for each in settings["order"]),
        )
    raise ValueError(f"the estimator {kind!r}: expected {', '.join(_ARRAYS_ONLY)}, transformer, mean or extended")
