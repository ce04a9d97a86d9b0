"""Where written bytes live until they are in a container.

One file's uncommitted content:

* ``entry``: the content, as the rest of the store uses it;
* ``view``: which bytes are in the data file and which in the base;
* ``datafile``: writing to the data file;
* ``mtime``: the logical modification time;
* ``log``: the log of an entry in use; ``records``: what it consists of, and how to read it back;
* ``reservation``: the space that its container may take;
* ``sequential``: how far a sequential writer has got;
* ``snapshot``: the content of one moment, for a commit.

All entries of a store:

* ``area``: the directory that they are in;
* ``space``: how much space and how many inodes they have reserved;
* ``leftover``: what an earlier daemon left.

Containers in the making:

* ``draft``: the container; ``draftfile``: how it gets to disk; ``draftlock``: which thread may work on it.
"""
