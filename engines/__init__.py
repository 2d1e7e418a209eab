"""Components to engines: bundles, backends, the engine store, building and measuring. Importing it loads nothing else."""
