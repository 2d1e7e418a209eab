"""From labels to a router: label tables, the labelling job, fitting and judging."""
