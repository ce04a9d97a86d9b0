"""Random operations on a mount and on a plain directory side by side; scripts/stress runs them.

:mod:`~stress_lib.world` does operations in one directory and says what came out; :mod:`~stress_lib.generator` makes
random ones; :mod:`~stress_lib.worker` is a process that does each in both directories and compares;
:mod:`~stress_lib.shrink` finds a short trace that still fails; :mod:`~stress_lib.session` mounts, kills and
supervises.
"""
