"""The report of a run as one HTML file: a run directory -> plain data -> drawings and tables -> the page."""
