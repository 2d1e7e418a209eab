"""The server behind `costroute-rt serve`: the runtime over HTTP, and over lines of standard input and output."""
