"""Models of the Hugging Face hub: named as OWNER/NAME, read from the cache of huggingface_hub, downloaded where that lacks them."""
