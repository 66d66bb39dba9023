"""What a scene looks like, and how far a coded one is from it: in pictures and by attribute."""
