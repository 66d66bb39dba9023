"""The guard: can this installation serve on this machine? Answered before anything is served.

Standard library only, and nothing else of the project: it must run when everything else is broken.
"""
