"""Text states of many prompts, for encoders and estimators that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from costroute_rt.engines.backends.setup import USUAL, Setup
from costroute_rt.engines.building.build import build_engines, open_engine
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
from costroute_rt.error import PromptError
from costroute_rt.family.conditioning import StatesSource, text_states
from costroute_rt.family.family import Family
from costroute_rt.request import check_prompt
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
    store, family, source = Store.open(home), Family.open(bundle), StatesSource.open(bundle)
    name = source.call.engine
    build_engines(bundle, store, [name], setup, measure=False)
    tokens = []
    for number, prompt in enumerate(prompts, 1):
        try:
            found = family.tokenize(check_prompt(prompt), [source.tokenizer])
            tokens.append({name: each.chunk(0) for name, each in found.items()})
        except PromptError as error:
            raise PromptError(f"labelled prompt {number}, {prompt[:60]!r}: {error}") from error
    states = []
    engine = open_engine(bundle, store, name, setup)
    try:
        for done, each in enumerate(tokens, 1):
            tensors = family.encode(source.encoder, each, engine)
            states.append(text_states(bundle, source, tensors, each, family.tokenizers))
            if done % REPORT_EVERY == 0:
                progress(f"{done} of {len(tokens)} prompts encoded")
    finally:
        engine.close()
    return TextStates(np.concatenate([each.states for each in states]), np.concatenate([each.lengths for each in states]))
