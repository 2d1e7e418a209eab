"""Text states of many prompts: what the family's text encoder says of them, for encoders and estimators that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import PromptError
from costroute_rt.family.conditioning import encode_text
from costroute_rt.family.parts import encode_name
from costroute_rt.family.prompt import Tokenizer, check_prompt
from costroute_rt.routing.prompt_encoder import TextStates

SAY_EVERY = 1000


def read_states(
    bundle: Bundle,
    prompts: Sequence[str],
    *,
    home: str | Path | None = None,
    setup: Setup = USUAL,
    progress: Callable[[str], None] = lambda _: None,
) -> TextStates:
    """One call of the text encoder for each prompt; its engine is built where it is missing.

    Raises PromptError that names a prompt the runtime would refuse, and as building and opening engines do.
    """
    store, name = Store.open(home), encode_name(bundle)
    build_engines(bundle, store, [name], setup, measure=False)
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
            if done % SAY_EVERY == 0:
                progress(f"{done} of {len(tokens)} prompts encoded")
    finally:
        engine.close()
    return TextStates(np.stack(states), np.array([each.length for each in tokens], dtype=np.int64))
