"""Pure: (wanted, found) -> changes with reasons, hashes, parsers of what machines print."""
