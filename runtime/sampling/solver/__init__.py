"""The solvers: each a pure function from the steps of a run to its step table.

Noise levels come in three kinds, named by how they relate a latent x to the clean latent x0 and unit noise n:

    unscaled     x = x0 + sigma n                        euler, euler_ancestral, heun, kdpm2, dpmpp_2s_ancestral, dpmpp_sde
    preserving   x = sqrt(1 - level^2) x0 + level n      ddim, ddpm, lcm, tcd: level 0 to 1
                 x = (x0 + sigma n) / sqrt(1 + sigma^2)  dpmpp_2m, 3m, 2s, 3s and unipc: the same latents, measured in sigma
    flow         x = (1 - sigma) x0 + sigma n            flow_*: sigma 0 to 1
"""
