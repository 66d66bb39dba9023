"""Writes a scene in any format we know: `write.write` dispatches, `formats` is the table.

Does not read, drop or decimate splats. Each format has a file of its own here.
"""
