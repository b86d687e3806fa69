"""Settings: what they are, how a value is read, and where the values come from."""
