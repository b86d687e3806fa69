"""Which path means what; all of it is C-level, in the .pxd."""
