"""The synthetic world of the `postcard` family: scenes, their drawings and captions, and the training of the family."""
