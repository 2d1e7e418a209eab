"""Images of costroute-rt beside those of diffusers' pipelines: the same weights, prompts, schedulers and noise.

    python -m benchmarks.parity                        every case, at most 2/255 apart in each pixel
    python -m benchmarks.parity --only 'sdxl.*Euler'   those whose name matches

The models are the real classes with random weights, narrow, with every type of block. Weights are scaled such that images have contrast
and are not saturated; each row shows the spread of its image, because equal grey images would prove nothing.
"""
