"""A run: its directory, its phases from data to results, and what is done with a finished one."""
