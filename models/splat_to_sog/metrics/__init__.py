"""What a scene looks like, and how far a coded one is from it: rendered and attribute by attribute."""
