"""Pure pydantic models of the lab, a noun a file. No pyinfra, no I/O."""
