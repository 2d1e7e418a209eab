"""Which candidate a prompt gets: quality estimates, the router, the choice."""
