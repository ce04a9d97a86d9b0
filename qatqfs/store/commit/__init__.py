"""From staging to containers.

* ``engine``: the steps of a commit; ``making``: a draft becomes a complete container; ``placing``: the container takes
  its place; ``in_place``: commits of files with several names; ``as_raw``: of files that a rule wants raw;
  ``finished``: entries that are done with;
* ``schedule``: when it goes; ``syncs``: syncs that somebody looks after from outside;
* ``ahead``: drafts of files that are still being written;
* ``durability``: what nobody synced, some seconds later;
* ``recovery``: what a starting store does; ``places``: where entries belong.
"""
