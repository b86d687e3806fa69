"""What texts of HTTP are made of; all of it is C-level, in the .pxd."""
