"""Which headers of a request tell who asks, and from where; all of it is C-level, in the .pxd."""
