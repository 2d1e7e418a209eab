"""One request, from prompt to pixels."""
