"""An open bundle: tokenizers, conditioning, the calls of its candidates, and the engines that are resident."""
