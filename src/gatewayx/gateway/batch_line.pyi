"""A line of a batch that is under way; the .pxd has the C-level interface."""
