"""Logical names over BACKING, and the files that are open or dirty.

* ``tree``: which stored file a path means, and the table of nodes;
* ``state``: what a node, an open or dirty file, knows, and which lock protects it; ``node``: reading and writing one;
* ``handle``: an open file handle; ``pending``: how much is in no container yet;
* ``opening``: open and create; ``changes``: mkdir, link, unlink, rename;
* ``metadata``: attributes, times, xattrs; ``inode_copy``: what a new container takes over from the old one;
* ``shown_ctimes``: the ctime that programs see over a commit;
* ``own_files``: files of this user whose mode forbids to open them.
"""
