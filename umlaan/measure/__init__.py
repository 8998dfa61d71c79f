"""The procedure's tests as runs, their ledger, and the report made of it."""
