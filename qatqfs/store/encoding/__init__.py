"""Bytes of a file to payloads of a container.

* ``chunks``: chunks to payloads, each verified at once;
* ``plan``: what a draft is made of;
* ``workers``: the threads that make and append it.
"""
