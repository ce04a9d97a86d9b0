"""Linux below the store: descriptors, system calls that Python lacks, and every change of BACKING.

* ``fd``: descriptors that close themselves; opening directories, reading files;
* ``calls``: Linux calls through ctypes, and what the system says about the machine;
* ``identity``: what tells one container from any other;
* ``backing``: one method for each system call that changes something below BACKING, so that tests can replace it;
* ``descriptors``: how many files may be open at once.
"""
