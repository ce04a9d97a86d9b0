"""Fuzzing of the codec: what to feed (targets), and how to make inputs where atheris is not installed (mutate)."""
