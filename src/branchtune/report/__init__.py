"""What people read of a run: tables and the page."""
