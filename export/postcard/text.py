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
from costroute_rt.export.postcard.networks import MAX_TOKENS, TEXT_WIDTH, make_text_encoder
from costroute_rt.export.postcard.scene import ATTRIBUTES, Scene, Value, sample_scene
from costroute_rt.export.postcard.training import Run

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's pattern (Radford et al. 2021)."""
MERGES = 1400
PLAIN = ("embedding", "heads")
"""Layers trained by AdamW, see Optimizer."""
BATCH = 192
SORTED = 8
"""Number of batches whose captions are sorted by length."""
RATE, CONTINUED_RATE = 1.5e-3, 8e-4
"""Peak learning rates of new weights and of trained ones."""
KEPT_SHARE = 0.5
"""Weight of what is kept of a trained encoder, relative to the heads' loss."""


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
    text: CLIPTextModel,
    heads: AttributeHeads,
    tokenizer: CLIPTokenizerFast,
    path: Path,
    minutes: float,
    *,
    before: CLIPTextModel | None = None,
) -> None:
    """Pretrains the text encoder and its heads; leaves averaged weights in both.

    before: the encoder with which denoisers have learned. What it says about a text that excludes nothing is then kept, nearly, so that
    these denoisers still understand the encoder.
    """
    trained = nn.ModuleDict({"text": text, "heads": heads})
    run = Run(trained, path, minutes, RATE if before is None else CONTINUED_RATE, PLAIN)
    device = next(text.parameters()).device
    rng = random.Random(f"text-{run.steps}")
    batches: list[list[tuple[str, Scene]]] = []
    for _ in run:
        batches = batches or draw_batches(rng)
        batch = batches.pop()
        tokens = unpadded([each for each, _ in batch], tokenizer).to(device)
        encoded = text(tokens)
        loss = heads.loss(encoded.pooler_output, torch.tensor([stated_classes(stated) for _, stated in batch]).to(device))
        if before is not None:
            plain = [not excludes(stated) for _, stated in batch]
            with torch.no_grad():
                target = before(tokens[plain]).last_hidden_state
            loss = loss + KEPT_SHARE * (encoded.last_hidden_state[plain] - target).square().mean()
        run.step(loss)
    trained.load_state_dict(run.average.state_dict())


def draw_batches(rng: random.Random) -> list[list[tuple[str, Scene]]]:
    """Batches of new captions with what they state, each of captions that are about equally long, in random order."""
    pairs = [caption(sample_scene(rng), rng, vague=0.02) for _ in range(SORTED * BATCH)]
    pairs.sort(key=lambda pair: len(pair[0]))
    batches = [pairs[first : first + BATCH] for first in range(0, len(pairs), BATCH)]
    rng.shuffle(batches)
    return batches


def unpadded(texts: Sequence[str], tokenizer: CLIPTokenizerFast) -> Tensor:
    """Token ids int64[B, length], padded to the longest text: what the pooled text needs."""
    return tokenizer(list(texts), padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").input_ids


def excludes(stated: Scene) -> bool:
    """True if a text states that something is absent."""
    return any(value in ("none", 0) for value in stated.values())


def deepen(encoder: CLIPTextModel) -> CLIPTextModel:
    """An encoder of TEXT_LAYERS that computes what `encoder` does: the layers it adds at the end change nothing yet."""
    deeper = make_text_encoder(encoder.config.vocab_size, encoder.config.eos_token_id)
    deeper.load_state_dict(deeper.state_dict() | encoder.state_dict())
    with torch.no_grad():
        for layer in deeper.text_model.encoder.layers[encoder.config.num_hidden_layers :]:
            for last in (layer.self_attn.out_proj, layer.mlp.fc2):
                last.weight.zero_()
                last.bias.zero_()
    return deeper
