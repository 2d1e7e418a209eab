"""Generation: the run of one request, from prompt to pixels."""
