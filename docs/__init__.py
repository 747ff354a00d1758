"""Documents, and the command that writes the generated tables in them."""
