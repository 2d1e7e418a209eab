"""Models as people have them: diffusers folders, hub ids and single files, read without torch and without loading weights."""
