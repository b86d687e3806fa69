"""Plain heads, which are nearly all: read in one pass, without llhttp; the .pxd has the C-level interface."""
