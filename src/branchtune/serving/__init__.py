"""The page and the endpoint of `branchtune serve`."""
