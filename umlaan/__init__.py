"""umlaan: a User Mode Linux kernel as an autonomous node beside its host, declared."""
