"""Containers to verified bytes.

* ``container``: an open container, ranges of it through the cache, read-ahead;
* ``cache``: decoded chunks, one LRU for all files; ``buffers``: the memory they are decoded into;
* ``walks``: where the chunks of containers without an index are;
* ``damage``: what is known to be damaged.
"""
