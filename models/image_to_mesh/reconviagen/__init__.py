"""ReconViaGen v0.2: several photos of one object, taken from anywhere -> a coloured mesh.

Chang et al., "ReconViaGen: Towards Accurate Multi-view 3D Object Reconstruction via Generation"
(2025). TRELLIS's networks, told of the object by VGGT, which looks at all photos together. This
package knows neither requests nor where weights come from; `pipeline` is the way in.
"""
