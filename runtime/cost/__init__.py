"""What an image costs on this device: the cost model, its correction, and one budget divided over many prompts."""
