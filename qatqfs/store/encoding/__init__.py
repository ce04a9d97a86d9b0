"""Bytes of a file to payloads of a container.

* ``chunks``: chunks to payloads, each decoded and compared at once, and whole files to containers;
* ``plan``: what a draft is made of;
* ``workers``: the threads that make and append it.
"""
