"""Schedules, solvers, step tables and noise: NumPy alone, no engine."""
