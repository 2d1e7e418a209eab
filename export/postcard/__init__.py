"""The synthetic world of the `postcard` family: what a scene is, how it is drawn, how people would ask for it."""
