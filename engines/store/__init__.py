"""Engines on disk and their measured costs."""
