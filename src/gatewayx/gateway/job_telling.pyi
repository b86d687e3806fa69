"""What is told of a request's job; all of it is C-level, in the .pxd."""
