"""Stable Diffusion of full size, from a single file to images: export, build, and the time of a step beside other programs.

    python -m benchmarks.peers --work FOLDER                   Stable Diffusion 1.5 at 512 px: 25 GB of disk
    python -m benchmarks.peers --model sdxl --work FOLDER      SDXL at 1024 px: 60 GB of disk

Weights are random; every program has the same ones. Each export, build and image is made by a process of its own; the images by one program
after the other, in several rounds. OpenVINO GenAI gets an environment of its own (from PyPI), in which optimum-intel exports the model for
it. With --work, what exists there is used again; the export and the builds are then not measured again. Without --programs, all run:
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.peers import bench
from benchmarks.peers.program import PROGRAMS
from benchmarks.report import make_parser, run_benchmark
from benchmarks.scenario import Outcome


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser("peers", (__doc__ or "") + "".join(f"    {name}\n" for name in PROGRAMS))
    parser.add_argument("--model", choices=sorted(bench.JOBS), default="sd15", help="what to measure (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where models, bundles and engines are kept")
    parser.add_argument("--programs", nargs="+", metavar="NAME", choices=PROGRAMS, default=list(PROGRAMS), help="only these")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="processes of each program; 0: export and build only (default: 3)"
    )
    args = parser.parse_args(argv)
    return run_benchmark("full_size", args, argv, partial(run, args))


def run(args: argparse.Namespace) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        return bench.run(bench.JOBS[args.model], (args.work or Path(folder)).resolve(), args.programs, 1 if args.quick else args.rounds)


if __name__ == "__main__":
    sys.exit(main())
