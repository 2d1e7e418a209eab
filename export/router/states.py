"""Text states of many prompts, for encoders and estimators that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.building.setup import USUAL, Setup
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.engines.store.store import Store
from costroute_rt.error import PromptError
from costroute_rt.family.conditioning import encode_text
from costroute_rt.family.parts import encode_name
from costroute_rt.family.prompt import check_prompt
from costroute_rt.routing.prompt_encoder import TextStates

REPORT_EVERY = 1000


def read_states(
    bundle: Bundle,
    prompts: Sequence[str],
    *,
    home: str | Path | None = None,
    setup: Setup = USUAL,
    progress: Callable[[str], None] = lambda _: None,
) -> TextStates:
    """The text encoder's states, by one call per prompt; its engine is built if it is missing.

    Raises PromptError, naming the prompt, for one that the runtime would refuse, and errors of building and opening engines.
    """
    store, name = Store.open(home), encode_name(bundle)
    build_engines(bundle, store, setup, graphs=[name], measure=False)
    tokenizer = Tokenizer.from_bundle(bundle)
    tokens = []
    for number, prompt in enumerate(prompts, 1):
        try:
            tokens.append(tokenizer.encode(check_prompt(prompt)))
        except PromptError as error:
            raise PromptError(f"labelled prompt {number}, {prompt[:60]!r}: {error}") from error
    states = []
    engine = open_engine(bundle, store, name, setup)
    try:
        for done, each in enumerate(tokens, 1):
            states.append(encode_text(engine, each)[0])
            if done % REPORT_EVERY == 0:
                progress(f"{done} of {len(tokens)} prompts encoded")
    finally:
        engine.close()
    return TextStates(np.stack(states), np.array([each.length for each in tokens], dtype=np.int64))
