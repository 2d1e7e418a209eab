"""This machine: processor, drivers, what is installed, durable files."""
