"""Judgements: when they warn, and how they compare."""

from __future__ import annotations

import json

import numpy as np
import pytest

from costroute_rt.candidate import Candidate
from costroute_rt.judgement import Judgement, Neighbour
from costroute_rt.route import Cost, Option
from costroute_rt.routing.choice import choose


def make_judgement(trust: float = 1.0) -> Judgement:
    nearest = (Neighbour("a red house", 0.98765),)
    return Judgement(mean=np.array([0.5, 0.6]), standard_error=np.array([0.1, 0.1]), trust=trust, basis="test", nearest=nearest)


@pytest.mark.parametrize(("trust", "warns"), [(1.0, False), (0.5, False), (0.49, True), (0.0, True)])
def test_a_prompt_unlike_the_labelled_ones_gets_a_note(trust: float, warns: bool) -> None:
    assert (make_judgement(trust).note is not None) == warns


def test_a_judgement_is_plain_data() -> None:
    data = json.loads(json.dumps(make_judgement(0.25).to_json(), allow_nan=False))
    assert data == {"basis": "test", "trust": 0.25, "nearest": [{"prompt": "a red house", "similarity": 0.9877}]}


def test_judgements_and_routes_can_be_compared_and_hashed() -> None:
    candidate = Candidate(name="fast", denoiser="base", scheduler="default", num_inference_steps=1)
    cost = Cost(overhead_ms=0, text_ms=0, swap_ms=0, denoise_ms=20, decode_ms=0)
    option = Option(candidate=candidate, quality=0.5, quality_error=0.1, cost=cost, memory_bytes=0, resident=True)
    first, second = make_judgement(), make_judgement()
    route = choose("a house", [option], judgement=first)
    assert route == choose("a house", [option], judgement=first) != choose("a house", [option], judgement=second)
    assert len({route, choose("a house", [option], judgement=first)}) == 1
