"""What is there now: each fact one command and one parser."""
