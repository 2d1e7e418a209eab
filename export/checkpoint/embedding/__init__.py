"""Textual inversions: learned words, whose vectors are added to the text encoders of a model. No torch."""
