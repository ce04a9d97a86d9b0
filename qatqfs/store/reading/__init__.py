"""From containers to verified bytes.

* ``container``: an open container: reading ranges through the cache, and reading ahead;
* ``cache``: decoded chunks, one LRU for all files, and the memory that they are decoded into;
* ``walks``: where the chunks of containers without an index are;
* ``damage``: what is known to be damaged.
"""
