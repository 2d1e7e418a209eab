"""Programs that generate one image each, run as processes of their own: `python FILE JSON`.

Each reads its settings from the JSON object on its command line, makes an image of a few steps to warm up and one that counts, which it
writes to `output`, and prints on its last line a JSON object: `first_step_s`, seconds from `started` (seconds since the epoch) to the first
call of the denoiser; `step_s`, seconds of each denoiser call of the image that counts; `decode_s`, of its decoder.

Those of other projects import nothing of this one: they run in environments that do not have it.
"""
