"""Text states: what the denoiser is told of a prompt."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.tokenizer import Tokens
from costroute_rt.routing.prompt_encoder import TextStates

if TYPE_CHECKING:
    from costroute_rt.engines.backends.engine import Engine

_KEPT = 16
"""Negative prompts whose states are kept; applications use a few over and over."""

States = npt.NDArray[np.float32]


class NegativeStates:
    """Text states of recent negative prompts. Not safe to use from several threads at once, except `in`."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, States] = OrderedDict()

    def __contains__(self, text: str) -> bool:
        return text in self._states

    def get(self, text: str) -> States | None:
        """float32[1, tokens, width], or None where they are not kept."""
        states = self._states.get(text)
        if states is not None:
            self._states.move_to_end(text)
        return states

    def put(self, text: str, states: States) -> None:
        """Keep them, and forget those not used for longest."""
        self._states[text] = states
        while len(self._states) > _KEPT:
            self._states.popitem(last=False)


def as_text_states(states: States, tokens: Tokens) -> TextStates:
    """One prompt's states as a router reads them."""
    return TextStates(states, np.array([tokens.length]))


def encode_text(engine: Engine, tokens: Tokens) -> States:
    """float32[1, tokens, width], on the host: one call of the text encoder."""
    ids = tokens.ids.astype(engine.inputs["input_ids"].dtype, copy=False)
    outputs = engine.run({"input_ids": engine.to_device(ids)})
    return np.asarray(engine.to_host(outputs["last_hidden_state"]), dtype=np.float32)


def condition_text(engine: Engine, states: States) -> dict[str, Any]:
    """What a denoiser's steps may read of the text, on the device: its states, and what its `condition` engine makes of them."""
    text_states = engine.to_device(states)
    return {"text_states": text_states, **engine.run({"text_states": text_states})}
