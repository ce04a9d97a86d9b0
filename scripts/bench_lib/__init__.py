"""Benchmarks: each module has add_arguments, run (figures as a dict) and report (figures as text)."""
