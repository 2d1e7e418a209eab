"""Trains the whole postcard family with one command, on a CPU or a CUDA device.

    python -m costroute_rt.export.postcard.train --work runs/postcard --out checkpoint

Every stage saves its result in the work folder and is skipped if the result exists; an interrupted run continues from its last checkpoint
(it loses at most two minutes). `--from STAGE` repeats that stage and all later ones. With `--start BUNDLE` the denoisers and the text
encoder of a bundle of the family go on learning, and its other networks stay. The result is a diffusers directory.
"""

import argparse
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPTokenizerFast

from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.export.decoder import export_decoder
from costroute_rt.export.postcard.autoencoder import psnr, reconstruct, train_decoder, train_together
from costroute_rt.export.postcard.bundle import pool
from costroute_rt.export.postcard.cleanness import Cleanness, mean_logits, set_scale, train_cleanness
from costroute_rt.export.postcard.dataset import GRID, IMAGE_SIZE, Shard, render_dataset, shards
from costroute_rt.export.postcard.denoiser import CONTINUED_RATE, RATE, Latents, encode_dataset, train_denoiser
from costroute_rt.export.postcard.faults import CLEAN, UNCLEAN, generated_rows, make_examples
from costroute_rt.export.postcard.latent_scorer import LatentScorer, train_latent_scorer
from costroute_rt.export.postcard.networks import LATENT_CHANNELS, make_denoiser, make_scheduler, make_text_encoder, make_vae
from costroute_rt.export.postcard.pairs import Teacher, make_pairs
from costroute_rt.export.postcard.refine import refine_base
from costroute_rt.export.postcard.scene import ATTRIBUTES
from costroute_rt.export.postcard.scorer import Scorer, accuracies, train_scorer
from costroute_rt.export.postcard.text import AttributeHeads, deepen, train_text, train_tokenizer
from costroute_rt.export.postcard.tiny_decoder import (
    Generator,
    TinyDecoder,
    agreement,
    encode_drawings,
    make_decodings,
    train_tiny_decoder,
)
from costroute_rt.export.postcard.turbo import train_turbo
from costroute_rt.export.postcard.warm_start import START, START_TURBO, add_change, adopt
from costroute_rt.export.scorer import export_scorer

logger = logging.getLogger(__name__)
IMAGE_DATASET = "pictures"
"""Name of the data set of images, which seeds its scenes; the shipped weights were trained on this one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of the data sets, and minutes of training per network; `scale` multiplies the minutes."""

    images: int = 14_000
    scenes: int = 32_000
    pairs: int = 28_000
    autoencoder: float = 30
    decoder: float = 3.5
    scorer: float = 4
    text: float = 45
    base: float = 130
    latent_scorer: float = 4
    refined: float = 36
    turbo: float = 50
    decodings: int = 5_000
    tiny_decoder: float = 45
    examples: int = 3_000
    cleanness: float = 12
    scale: float = 1.0
    processes: int = 2

    def minutes(self, stage: str) -> float:
        return float(getattr(self, stage)) * self.scale


class Recipe:
    """The stages in order; each is a method that saves a file or folder of the same name in `work`."""

    STAGES = (
        *("tokenizer", "images", "autoencoder", "decoder", "latents", "text", "base"),
        *("scorer", "latent_scorer", "refined", "pairs", "turbo", "decodings", "tiny_decoder"),
        *("examples", "cleanness"),
    )

    def __init__(self, work: Path, plan: Plan, device: torch.device, start: Path | None = None) -> None:
        """start: a bundle of the family, whose networks go on learning; also where `work` has begun with one."""
        self.work, self.plan, self.device = work, plan, device
        if start is not None:
            adopt(start, work)
        self.is_continued = (work / START).exists()

    def run(self, first_stage: str | None = None) -> None:
        if first_stage is not None:
            for stage in self.STAGES[self.STAGES.index(first_stage) :]:
                self.forget(stage)
        for stage in self.STAGES:
            if not self.done(stage).exists():
                logger.info("stage %s", stage)
                work: Callable[[], None] = getattr(self, stage)
                work()
                self.done(stage).touch()

    def done(self, stage: str) -> Path:
        return self.work / f"{stage}.done"

    def checkpoint(self, stage: str) -> Path:
        return self.work / f"{stage}.pt"

    def forget(self, stage: str) -> None:
        self.done(stage).unlink(missing_ok=True)
        self.checkpoint(stage).unlink(missing_ok=True)
        shutil.rmtree(self.work / stage, ignore_errors=True)

    # -- results of stages

    @cached_property
    def words(self) -> CLIPTokenizerFast:
        return CLIPTokenizerFast.from_pretrained(self.work / "tokenizer")

    def vae(self, stage: str) -> AutoencoderKL:
        return AutoencoderKL.from_pretrained(self.work / stage).to(self.device, memory_format=torch.channels_last)

    def unet(self, stage: str) -> UNet2DConditionModel:
        return UNet2DConditionModel.from_pretrained(self.work / stage / "unet").to(self.device, memory_format=torch.channels_last)

    def text_encoder(self, stage: str) -> CLIPTextModel:
        return CLIPTextModel.from_pretrained(self.work / stage / "text_encoder", attn_implementation="eager").to(self.device)

    def trained_scorer(self) -> Scorer:
        scorer = Scorer()
        scorer.load_state_dict(load_file(self.work / "scorer" / "model.safetensors"))
        return scorer.eval()

    def trained_latent_scorer(self) -> LatentScorer:
        scorer = LatentScorer().to(self.device, memory_format=torch.channels_last)
        scorer.load_state_dict(load_file(self.work / "latent_scorer" / "model.safetensors"))
        return scorer.eval().requires_grad_(False)

    def image_shards(self) -> tuple[list[Shard], Shard]:
        """The shards to train on, and the held-out shard."""
        *train, held_out = shards(self.work / "images", self.plan.images)
        return train, held_out

    # -- stages

    def tokenizer(self) -> None:
        train_tokenizer(self.work / "tokenizer")

    def images(self) -> None:
        for shard in render_dataset(self.work / "images", IMAGE_DATASET, self.plan.images, self.plan.processes):
            logger.info("images: shard %d", shard.number)

    def autoencoder(self) -> None:
        torch.manual_seed(0)
        vae = make_vae().to(self.device, memory_format=torch.channels_last)
        train_together(vae, self.image_shards()[0], self.checkpoint("autoencoder"), self.plan.minutes("autoencoder"))
        self.save_vae(vae, "autoencoder")

    def decoder(self) -> None:
        vae = self.vae("autoencoder")
        train_decoder(vae, self.image_shards()[0], self.checkpoint("decoder"), self.plan.minutes("decoder"))
        self.save_vae(vae, "decoder")

    def save_vae(self, vae: AutoencoderKL, stage: str) -> None:
        vae.eval().save_pretrained(self.work / stage)
        held_out = self.image_shards()[1].array("images")[:256]
        logger.info("%s: %.2f dB on 256 held-out drawings", stage, psnr(reconstruct(vae, held_out), held_out))

    def latents(self) -> None:
        encode_dataset(self.vae("autoencoder").eval(), self.work / "latents", self.plan.scenes, self.plan.processes)

    def text(self) -> None:
        torch.manual_seed(1)
        end, minutes, heads = self.words.eos_token_id, self.plan.minutes("text"), AttributeHeads().to(self.device)
        before = self.text_encoder(START).requires_grad_(False) if self.is_continued else None
        encoder = (make_text_encoder(len(self.words), end) if before is None else deepen(before)).to(self.device)
        train_text(encoder, heads, self.words, self.checkpoint("text"), minutes, before=before)
        encoder.save_pretrained(self.work / "text" / "text_encoder")
        save_file(heads.state_dict(), self.work / "text" / "heads.safetensors")

    def base(self) -> None:
        torch.manual_seed(2)
        unet = self.unet(START) if self.is_continued else make_denoiser().to(self.device, memory_format=torch.channels_last)
        data, minutes, rate = self.scene_latents(), self.plan.minutes("base"), CONTINUED_RATE if self.is_continued else RATE
        encoder, heads = self.text_encoder("text"), None
        if not self.is_continued:
            heads = AttributeHeads().to(self.device)
            heads.load_state_dict(load_file(self.work / "text" / "heads.safetensors"))
        train_denoiser(unet, encoder, heads, self.words, data, self.checkpoint("base"), minutes, rate=rate)
        unet.save_pretrained(self.work / "base" / "unet")
        encoder.save_pretrained(self.work / "base" / "text_encoder")

    def scene_latents(self) -> Latents:
        return Latents(self.work / "latents", self.plan.scenes)

    def refined(self) -> None:
        unet, data = self.unet("base"), self.scene_latents()
        text, minutes = self.text_encoder("base"), self.plan.minutes("refined")
        refine_base(unet, text, self.words, self.trained_latent_scorer(), data, self.checkpoint("refined"), minutes)
        unet.save_pretrained(self.work / "refined" / "unet")

    def pairs(self) -> None:
        teacher = Teacher(
            unet=self.unet("base").eval(),
            text=self.text_encoder("base").eval(),
            tokenizer=self.words,
            vae=self.vae("decoder").eval(),
            scorer=self.trained_scorer().to(self.device, memory_format=torch.channels_last),
        )
        make_pairs(teacher, self.work / "pairs", self.plan.pairs)

    def turbo(self) -> None:
        unet = self.unet("base")
        if self.is_continued:
            unet = self.unet(START_TURBO)
            add_change(unet, self.unet(START), self.unet("base"))
        train_turbo(
            unet,
            self.text_encoder("base"),
            self.words,
            judge=self.trained_latent_scorer(),
            pairs=shards(self.work / "pairs", self.plan.pairs),
            data=self.scene_latents(),
            path=self.checkpoint("turbo"),
            minutes=self.plan.minutes("turbo"),
        )
        unet.save_pretrained(self.work / "turbo" / "unet")

    def decodings(self) -> None:
        vae = self.vae("decoder").eval()
        encode_drawings(vae, self.image_shards()[0])
        generator = self.generator([row for row in pool() if row["decoder"] == "vae"])
        make_decodings(generator, vae, self.work / "decodings", self.plan.decodings)

    def generator(self, candidates: Sequence[Mapping[str, object]]) -> Generator:
        """What makes images as these candidates do, with the final denoisers."""
        stages = {"base": "refined", "turbo": "turbo"}
        return Generator(
            denoisers={name: self.unet(stages[name]).eval() for name in {str(row["denoiser"]) for row in candidates}},
            text=self.text_encoder("base").eval(),
            tokenizer=self.words,
            candidates=candidates,
        )

    def tiny_decoder(self) -> None:
        torch.manual_seed(6)
        decoder = TinyDecoder().to(self.device, memory_format=torch.channels_last)
        *generated, held_out = shards(self.work / "decodings", self.plan.decodings)
        minutes = self.plan.minutes("tiny_decoder")
        train_tiny_decoder(decoder, self.image_shards()[0], generated, self.checkpoint("tiny_decoder"), minutes)
        decoder.eval().save_pretrained(self.work / "tiny_decoder")
        logger.info("tiny decoder: %.2f dB to the full decoder on held-out generated latents", agreement(decoder, held_out))

    def examples(self) -> None:
        vae, folder = self.vae("decoder").eval(), self.work / "examples"
        drawings = shards(self.work / "images", self.plan.examples)
        encode_drawings(vae, drawings)
        make_decodings(self.generator(generated_rows()), vae, folder / "generated", self.plan.examples)
        for drawn, generated in zip(drawings, shards(folder / "generated", self.plan.examples), strict=True):
            make_examples(vae, drawn, generated, folder)

    def cleanness(self) -> None:
        torch.manual_seed(7)
        network = Cleanness().to(memory_format=torch.channels_last)
        *train, held_out = shards(self.work / "examples", self.plan.examples)
        clean, unclean = ([shard.array(kind) for shard in train for kind in kinds] for kinds in (CLEAN, UNCLEAN))
        train_cleanness(network, clean, unclean, self.checkpoint("cleanness"), self.plan.minutes("cleanness"))
        set_scale(network, held_out.array("decoded"))
        logits = {kind: mean_logits(network, held_out.array(kind)) for kind in (*CLEAN, *UNCLEAN)}
        logger.info("cleanness: mean logits of held-out examples %s", {kind: round(float(each.mean()), 3) for kind, each in logits.items()})
        self.save_scorer(network, "cleanness")

    def trained_cleanness(self) -> Cleanness:
        network = Cleanness()
        network.load_state_dict(load_file(self.work / "cleanness" / "model.safetensors"))
        return network.eval()

    def latent_scorer(self) -> None:
        torch.manual_seed(5)
        scorer = LatentScorer().to(self.device, memory_format=torch.channels_last)
        minutes = self.plan.minutes("latent_scorer")
        accuracy = train_latent_scorer(scorer, self.scene_latents(), self.checkpoint("latent_scorer"), minutes)
        logger.info("latent scorer: held-out accuracy %.4f", accuracy)
        self.save_scorer(scorer, "latent_scorer")

    def scorer(self) -> None:
        torch.manual_seed(4)
        scorer, (train, held_out) = Scorer().to(self.device, memory_format=torch.channels_last), self.image_shards()
        train_scorer(scorer, train, self.checkpoint("scorer"), self.plan.minutes("scorer"))
        logger.info("scorer: held-out accuracy %s", {name: round(share, 4) for name, share in accuracies(scorer, held_out).items()})
        self.save_scorer(scorer, "scorer")

    def save_scorer(self, scorer: nn.Module, stage: str) -> None:
        (self.work / stage).mkdir(exist_ok=True)
        save_file({name: t.contiguous() for name, t in scorer.state_dict().items()}, self.work / stage / "model.safetensors")

    def export(self, out: Path) -> None:
        """Writes the family as a diffusers directory in float16, with further folders for turbo, the tiny decoder and the scorer."""
        pipeline = StableDiffusionPipeline(
            vae=self.vae("decoder"),
            text_encoder=self.text_encoder("base"),
            tokenizer=CLIPTokenizer.from_pretrained(self.work / "tokenizer"),
            unet=self.unet("refined"),
            scheduler=make_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.to(dtype=torch.float16).save_pretrained(out)
        self.unet("turbo").half().save_pretrained(out / "unet_turbo")
        tiny = TinyDecoder.from_pretrained(self.work / "tiny_decoder")
        export_decoder(tiny, out / "tiny", latent_channels=LATENT_CHANNELS, cells=GRID)
        scorer, cleanness = self.trained_scorer(), self.trained_cleanness()
        export_scorer(scorer, ATTRIBUTES, out / "scorer", height=IMAGE_SIZE, width=IMAGE_SIZE, cleanness=cleanness)


def main() -> None:
    opt_out_hub()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, checkpoints and results")
    parser.add_argument("--out", type=Path, help="diffusers directory to write")
    parser.add_argument("--from", dest="first_stage", choices=Recipe.STAGES, help="repeat this stage and all later ones")
    parser.add_argument("--start", type=Path, metavar="BUNDLE", help="bundle of the family whose networks go on learning")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all training times (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(args.work, Plan(scale=args.scale), torch.device(args.device), args.start)
    recipe.run(args.first_stage)
    if args.out:
        recipe.export(args.out)


if __name__ == "__main__":
    main()
