"""An open bundle: tokenizers, conditioning, the calls of its candidates, and its resident engines."""
