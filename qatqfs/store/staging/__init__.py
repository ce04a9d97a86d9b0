"""Where written bytes live until they are in a container.

* ``entry``: the uncommitted content of one file; ``datafile``: writing to it; ``reservation``: its space;
  ``sequential``: how far a sequential writer has got; ``view``: where each of its bytes is;
* ``area``: the directory of entries; ``space``: room that commits are going to need;
* ``log``: the log of an entry in use; ``records``: its records, and reading them back;
  ``leftover``: what an earlier daemon left;
* ``mtime``: the logical mtime; ``snapshot``: the content of one moment, for a commit;
* ``draft``: a container in the making; ``draftlock``: who may work on it; ``writeback``: how it gets to disk.
"""
