"""One stage of the procedure each: a typed @deploy function of a few operations."""
