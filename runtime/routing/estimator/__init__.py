"""Quality estimators: from a prompt's features to the expected quality of each candidate and its standard error."""
