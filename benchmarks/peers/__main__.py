"""The same images by costroute-rt and by other programs, each in its best settings.

    python -m benchmarks.peers --work FOLDER                   the shipped family at 256 px: 12 GB of disk, most of it environments
    python -m benchmarks.peers --model sd15 --work FOLDER      Stable Diffusion 1.5 at 512 px, random weights: 25 GB more
    python -m benchmarks.peers --model sdxl --work FOLDER      SDXL at 1024 px, random weights: 60 GB more

All programs have the same weights. Models of full size are exported by costroute-rt from a single file. Each export, build and image is
made by a process of its own; the images by one program after the other, in several rounds. Other programs get environments of their own
(from PyPI; stable-diffusion.cpp is compiled and reads models of full size only). With --work, what exists there is used again;
exports and builds are then not measured again. Without --programs, all run:
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.peers import bench
from benchmarks.peers.job import JOBS
from benchmarks.peers.program import PROGRAMS
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("peers", (__doc__ or "") + "".join(f"    {name}\n" for name in PROGRAMS))
    parser.add_argument("--model", choices=sorted(JOBS), default="postcard", help="what to measure (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where environments, models, bundles and engines are kept")
    parser.add_argument("--programs", nargs="+", metavar="NAME", choices=PROGRAMS, default=list(PROGRAMS), help="only these")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="processes of each program and image; 0: export and build only (default: 3)"
    )
    args = parser.parse_args(argv)
    os.environ["COSTROUTE_BACKEND"] = "auto"  # all programs but one name their backend
    return run_benchmark("peers", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        return bench.run(JOBS[args.model], (args.work or Path(folder)).resolve(), args.programs, 1 if args.quick else args.rounds)


if __name__ == "__main__":
    sys.exit(main())
