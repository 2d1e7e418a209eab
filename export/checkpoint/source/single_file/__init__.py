"""Single files of Stable Diffusion in the layout of its first program (latent diffusion, "LDM"), as A1111 and ComfyUI read them."""
