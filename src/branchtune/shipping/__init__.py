"""Save a trained model in a folder and load it again, without the frozen backbone's weights."""
