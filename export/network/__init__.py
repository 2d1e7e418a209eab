"""The graphs of one network of a model, made without loading its weights."""
