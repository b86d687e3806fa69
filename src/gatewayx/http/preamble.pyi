"""What stands before each request that a process relays to another; the .pxd has the C-level interface."""
