"""The family's tokenizer, byte-level BPE in CLIP's format, so that it accepts any text; and its text encoder, a small CLIPTextModel.

The text encoder is pretrained to classify which attributes a caption states; training with the denoiser keeps this as an auxiliary loss.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizerFast

from costroute_rt.export.postcard.caption import caption
from costroute_rt.export.postcard.networks import MAX_TOKENS, TEXT_WIDTH
from costroute_rt.export.postcard.scene import ATTRIBUTES, Scene, Value, sample_scene
from costroute_rt.export.postcard.training import Run

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's pattern (Radford et al. 2021)."""
MERGES = 1400
PLAIN = ("embedding", "heads")
"""Layers trained by AdamW, see Optimizer."""
BATCH = 192


def train_tokenizer(folder: Path, captions: int = 60_000) -> CLIPTokenizerFast:
    """Learns merges from captions of the grammar; writes the files of a CLIP tokenizer into `folder`."""
    rng = random.Random("tokenizer")
    texts = [caption(sample_scene(rng), rng)[0] for _ in range(captions)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES, initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=8, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    entries = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(pair) for pair in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(dict.fromkeys(entries))}, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    tokenizer = CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def tokenize(tokenizer: CLIPTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Token ids int64[B, MAX_TOKENS], padded with the end token as in StableDiffusionPipeline."""
    encoded = tokenizer(list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return encoded.input_ids


class AttributeHeads(nn.Module):
    """One classifier per scene attribute over the pooled text float[B, width]; class 0 is "not stated". Only used in training."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, len(values) + 1) for values in ATTRIBUTES.values())

    def loss(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """Mean cross-entropy over the attributes; classes: int64[B, attributes]."""
        losses = [F.cross_entropy(head(pooled).float(), classes[:, i]) for i, head in enumerate(self.heads)]
        return torch.stack(losses).mean()


def stated_classes(stated: dict[str, Value]) -> list[int]:
    """Class of each attribute; 0 where the caption does not state it."""
    return [values.index(stated[name]) + 1 if name in stated else 0 for name, values in ATTRIBUTES.items()]


def make_captions(scenes: Sequence[Scene], rng: random.Random, drop: float, vague: float) -> tuple[list[str], Tensor]:
    """Texts, and classes int64[B, attributes]; a share `drop` of the captions is empty and states nothing; vague: see `caption`."""
    pairs = [("", {}) if rng.random() < drop else caption(scene, rng, vague=vague) for scene in scenes]
    return [text for text, _ in pairs], torch.tensor([stated_classes(stated) for _, stated in pairs])


def train_text(
    text: CLIPTextModel, heads: AttributeHeads, tokenizer: CLIPTokenizerFast, path: Path, minutes: float, *, is_frozen: bool = False
) -> None:
    """Pretrains the text encoder and its heads, or the heads alone if it is frozen; leaves averaged weights in what was trained."""
    trained = nn.ModuleDict({"heads": heads} if is_frozen else {"text": text, "heads": heads})
    run = Run(trained, path, minutes, 1.5e-3, () if is_frozen else PLAIN)
    device = next(text.parameters()).device
    rng = random.Random(f"text-{run.steps}")
    for _ in run:
        texts, classes = make_captions([sample_scene(rng) for _ in range(BATCH)], rng, 0.0, 0.0)
        with torch.set_grad_enabled(not is_frozen):
            pooled = text(tokenize(tokenizer, texts).to(device)).pooler_output
        run.step(heads.loss(pooled, classes.to(device)))
    trained.load_state_dict(run.average.state_dict())
