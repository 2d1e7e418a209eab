"""costroute-rt through its public interface.

Settings: bundle, home, backend, precision, warm_up and candidate (names of candidates), repeats, prompt, seed, output, started.
"""

from __future__ import annotations

import json
import sys
import time

from costroute_rt import Runtime


def main() -> None:
    settings = json.loads(sys.argv[1])
    where = {name: settings[name] for name in ("home", "backend", "precision")}
    images = []
    with Runtime.open(settings["bundle"], **where, preload=False) as runtime:
        request = {"prompt": settings["prompt"], "seed": settings["seed"]}
        asked = time.time()
        first = runtime.generate(candidate=settings["warm_up"], **request).timings
        before_ms = first.total_ms - sum(first.denoise_ms) - first.decode_ms
        for _ in range(settings["repeats"]):
            began = time.perf_counter()
            result = runtime.generate(candidate=settings["candidate"], **request)
            images.append(time.perf_counter() - began)
        setup = runtime.setup
    result.save(settings["output"])
    print(
        json.dumps(
            {
                "engines": " ".join(setup.values()),
                "precision": setup["precision"],
                "first_step_s": asked - settings["started"] + before_ms / 1000,
                "image_s": images,
                "step_s": [each / 1000 for each in result.timings.denoise_ms],
                "decode_s": result.timings.decode_ms / 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
