"""Files that are whole or absent, and the form of what is in them."""
