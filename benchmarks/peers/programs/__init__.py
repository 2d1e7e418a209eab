"""Programs that generate images, run as processes of their own: `python -m MODULE JSON`.

Each reads its settings from the JSON object on its command line: an image of `warm_up_steps`, then `repeats` images of `steps`. It writes
the last one to `output`, and prints on its last line a JSON object:

    first_step_s   seconds from `started` (seconds since the epoch) to the first call of the denoiser
    image_s        seconds of each image that counts, from the prompt to pixels in host memory
    step_s         seconds of each denoiser call of the last image
    decode_s       seconds of its decoder
    engines        costroute-rt alone: backend, provider and precision
    precision      costroute-rt alone: what it computes in

Those of other projects import nothing of costroute_rt: they run in environments that do not have it.
"""
