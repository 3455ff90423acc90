"""Leaves out the files that need the extra "deep" where it is not installed: "test" does not ask for it."""

from importlib.util import find_spec

_installed = find_spec("torch") and find_spec("skorch")
collect_ignore = [] if _installed else ["classic_cls/_nets.py", "classic_cls/deep.py"]
