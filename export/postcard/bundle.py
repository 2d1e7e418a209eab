"""Exports a trained postcard checkpoint as the bundle that ships with the package.

    python -m costroute_rt.export.postcard.bundle --checkpoint checkpoint --out runtime/bundles/postcard --revision 1
    python -m benchmarks.quality --bundle runtime/bundles/postcard --write-table quality.json
    python -m costroute_rt.export.postcard.bundle ... --quality quality.json --labels export/postcard/labels.csv.gz

The first export has no measured quality: all candidates have 0 and the metric is "unmeasured". The second also fits the router, to labels
that `costroute-rt label` made with the first bundle for captions of `costroute_rt.export.postcard.captions`. With `--extend FORMER` it
takes the router of another bundle instead, and adds the candidates that this one lacks by their labels.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.export.checkpoint.checkpoint import export_bundle
from costroute_rt.export.checkpoint.recipe import BundleRecipe
from costroute_rt.export.router.extending import extend_pool
from costroute_rt.export.router.job import Source, fit_bundle

logger = logging.getLogger(__name__)
GUIDANCE = 5.0
STEPS = {"turbo": (1, 2, 3, 4), "base": (4, 6, 8, 16)}
"""Numbers of steps per denoiser; turbo runs without guidance, because it was distilled from guided steps."""
DECODERS = {"vae": "", "tiny": "-tiny"}
"""The ending of a candidate's name for each decoder."""


def pool(decoders: Sequence[str] = tuple(DECODERS)) -> tuple[dict[str, Any], ...]:
    """The family's candidates, roughly from cheap to expensive: each number of steps with each of these decoders."""
    return tuple(
        {
            "name": f"postcard-{denoiser}@{steps}{DECODERS[decoder]}",
            "denoiser": denoiser,
            "scheduler": "default",
            "num_inference_steps": steps,
            "guidance_scale": 1.0 if denoiser == "turbo" else GUIDANCE,
            "decoder": decoder,
        }
        for denoiser, counts in STEPS.items()
        for steps in counts
        for decoder in decoders
    )


def make_recipe(revision: str, quality: Mapping[str, Any] | None, decoders: Sequence[str] = tuple(DECODERS)) -> BundleRecipe:
    """The export recipe; quality: the table that `benchmarks.quality --write-table` wrote, None if it is not measured yet."""
    rows = pool(decoders)
    found = quality or {"metric": "unmeasured", "candidates": {row["name"]: {"mean": 0.0, "standard_error": 0.0} for row in rows}}
    own = {row["name"]: found["candidates"][row["name"]] for row in rows}
    return BundleRecipe(
        family="postcard",
        revision=revision,
        license="Apache-2.0",
        pool=rows,
        quality={**found, "candidates": own},
        sizes=((256, 256),),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="diffusers directory written by costroute_rt.export.postcard.train")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory; replaced if it exists")
    parser.add_argument("--revision", required=True, help="name of this version of the weights")
    parser.add_argument("--quality", type=Path, help="measured quality per candidate")
    parser.add_argument("--labels", type=Path, help="labels to fit the router to (default: the bundle has no router)")
    parser.add_argument(
        "--decoders", nargs="+", choices=DECODERS, default=list(DECODERS), help="decoders that candidates use (default: all)"
    )
    parser.add_argument("--extend", type=Path, help="bundle whose router is extended to new candidates, instead of fitting one")
    args = parser.parse_args()
    if args.extend and not args.labels:
        parser.error("--extend needs --labels")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quality = json.loads(args.quality.read_text()) if args.quality else None
    export_bundle(args.checkpoint, args.out, make_recipe(args.revision, quality, args.decoders), overwrite=True)
    source = Source(labels=args.labels)
    if args.extend:
        new, former = (Pool.of_bundle(Bundle.open(path)) for path in (args.out, args.extend))
        extend_pool(new, former, source, args.out, force=True, say=logger.info)
    elif args.labels:
        fit_bundle(Bundle.open(args.out), source, args.out, force=True, say=logger.info)


if __name__ == "__main__":
    main()
