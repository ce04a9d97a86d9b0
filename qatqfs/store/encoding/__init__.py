"""Turn the bytes of a file into the payloads of a container.

* ``chunks``: encodes chunks, and verifies each payload at once;
* ``plan``: decides which chunks are encoded and which are copied;
* ``workers``: the threads that make the payloads and append them to a draft.
"""
