"""Displays: what the descriptors see and where models fail, as pictures.

A display is drawn by the file of the same name. As scikit-learn's displays, each is made by a class method
``from_...``, holds what it shows as attributes, and draws it with ``plot(ax=None)``, which sets ``ax_`` and
``figure_``. Matplotlib is imported when something is drawn.
"""
