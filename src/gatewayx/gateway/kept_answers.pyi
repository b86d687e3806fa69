"""What is answered of a kept job; all of it is C-level, in the .pxd."""
