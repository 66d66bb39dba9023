"""Gaussian splats: any format in, operations on the scene between, SOG or another format out.

Entry point: `pipeline.load`. The main path is `pipeline.run`; how a SOG is coded, `encode.encode`.
"""
