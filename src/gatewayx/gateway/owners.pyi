"""Which process of a gateway owns a key; the .pxd has the C-level interface."""

class Owners:
    """The processes of a gateway, as owners of keys."""
