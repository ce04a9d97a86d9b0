"""From staging to containers.

* ``engine``: the steps of a commit. ``making``: a draft becomes a complete container. ``metadata_copy``: the container
  is given the metadata of its file. ``placing``: it takes its place;
* ``in_place``: commits of files with several names. ``as_raw``: commits of files that a rule wants raw.
  ``committed``: entries that are to be removed now;
* ``schedule``: when a commit happens. ``syncs``: syncs that another process asks for and looks after;
* ``ahead``: drafts of files that are still being written;
* ``durability``: makes content durable some seconds after it was written, without an fsync of the program;
* ``recovery``: what a starting store does. ``places``: which file an entry belongs to.
"""
