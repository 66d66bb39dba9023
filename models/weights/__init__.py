"""The networks' weights: what exists, where it lies, how it is fetched and checked.

Knows nothing of the networks. Importing it loads neither torch nor an HTTP library.
"""
