"""A page on which trained generators run in the reader's browser: its files, and the page."""
