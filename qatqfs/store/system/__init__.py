"""Linux below the store: descriptors, system calls that Python has not, and every change of BACKING.

* ``files``: descriptors that close themselves, the identity of a file, calls through the C library;
* ``backing``: one method for each system call that changes something below BACKING, for tests to replace;
* ``descriptors``: how many files may be open at once.
"""
