"""LoRA files: read, checked, and fused into the weights of a model tensor by tensor. No torch."""
