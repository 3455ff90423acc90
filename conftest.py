"""Leaves out the files that need torch where it is not installed: the tests do not ask for it."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["classic_cls/_nets.py", "classic_cls/deep.py"]
