"""The kinds of tasks, one file each; `task.py` holds the base class of them and of your own."""
