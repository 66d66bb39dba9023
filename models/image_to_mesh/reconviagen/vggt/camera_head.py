"""The camera head: the camera tokens of all images become poses, refined in a few rounds.

VGGT, sec. 3.3. It knows tokens and encoded poses; `poses` makes matrices of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.reconviagen.vggt.block import Block
from models.nn.dinov2 import Mlp

POSE = 9
"""Translation (3), quaternion (4, the real part last), field of view (2: height, width)."""
EPS = 1e-6


class CameraHead(nn.Module):
    def __init__(
        self, width: int, depth: int = 4, num_heads: int = 16, mlp_ratio: float = 4
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(Block(width, num_heads, mlp_ratio) for _ in range(depth)))
        self.token_norm = nn.LayerNorm(width)
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE))
        self.embed_pose = nn.Linear(POSE, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.pose_branch = Mlp(width, width // 2, POSE)

    def forward(
        self,
        tokens: Tensor,  # fp32 [B, S, P, 2C] of the aggregator's last layer; the camera's is first
        rounds: int = 4,
    ) -> list[Tensor]:  # of each round, fp32 [B, S, 9]
        """Encoded poses; only the last round's are meant to be used."""
        cameras = self.token_norm(tokens[:, :, 0])  # [B, S, 2C]
        normed = F.layer_norm(cameras, cameras.shape[-1:], eps=EPS)
        pose = self.empty_pose_tokens.expand(*cameras.shape[:2], -1)
        found: list[Tensor] = []
        for i in range(rounds):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(pose)).chunk(3, dim=-1)
            h = self.trunk(cameras + gate * (normed * (1 + scale) + shift))
            change = self.pose_branch(self.trunk_norm(h))
            pose = change if i == 0 else pose + change  # the first round replaces the empty pose
            found.append(torch.cat((pose[..., :7], F.relu(pose[..., 7:])), dim=-1))
        return found
