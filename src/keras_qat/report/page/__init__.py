"""The page: what is on it, computed here, and the template, style and scripts that only lay it out and draw it."""
