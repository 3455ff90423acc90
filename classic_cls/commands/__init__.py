"""The commands of ``classic-cls`` that make and use models, one file each, and what commands share."""
