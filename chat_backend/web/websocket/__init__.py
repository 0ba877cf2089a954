"""The live side of the web process."""
