"""Judgements: notes and JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from costroute_rt.judgement import Judgement, Neighbour


def make_judgement(trust: float = 1.0) -> Judgement:
    nearest = (Neighbour("a red house", 0.98765),)
    return Judgement(mean=np.array([0.5, 0.6]), standard_error=np.array([0.1, 0.1]), trust=trust, basis="test", nearest=nearest)


@pytest.mark.parametrize(("trust", "warns"), [(1.0, False), (0.5, False), (0.49, True), (0.0, True)])
def test_a_judgement_of_low_trust_has_a_note(trust: float, warns: bool) -> None:
    assert (make_judgement(trust).note is not None) == warns


def test_a_judgement_can_be_written_as_json() -> None:
    data = json.loads(json.dumps(make_judgement(0.25).to_json(), allow_nan=False))
    assert data == {"basis": "test", "trust": 0.25, "nearest": [{"prompt": "a red house", "similarity": 0.9877}]}
