"""The optimizer: who proposes, who runs it, what is written down, and what it is worth.

``session`` is the whole; below it ``samplers`` propose points of a ``space``, ``workers`` run them,
``journal`` keeps every result, ``criteria`` judges, ``walk_forward`` cuts time into windows, and
``settings`` reads the file that says all this.
"""
