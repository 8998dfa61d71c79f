"""The same nouns as facts/: converge them, and yield nothing when nothing differs."""
