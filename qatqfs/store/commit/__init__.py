"""From staging to containers.

* ``engine``: how a commit goes; ``in_place``: the same for files with several names; ``as_raw``: for files that
  a rule wants raw; ``finished``: entries that are done with;
* ``schedule``: when it goes; ``syncs``: syncs that somebody looks after from outside;
* ``ahead``: drafts of files that are still being written;
* ``durability``: what nobody synced, some seconds later;
* ``recovery``: what a starting store does; ``places``: where entries belong.
"""
