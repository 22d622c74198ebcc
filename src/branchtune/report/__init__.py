"""What people read of a run: tables, pictures of predictions, and the page."""
