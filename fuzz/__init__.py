"""Coverage-guided fuzzing: `make fuzz`, or `python -m fuzz TARGET FILE` to run an input again."""
