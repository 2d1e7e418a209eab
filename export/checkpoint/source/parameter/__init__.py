"""The names and shapes of the parameters that classes of diffusers and transformers have, computed from their settings without torch."""
