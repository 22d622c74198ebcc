"""Tables of text and numbers: on a terminal, as Markdown, as JSON and as CSV."""
