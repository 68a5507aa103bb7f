"""A vision transformer with Linformer's attention: keys and values of a few made tokens instead of those of all."""

from __future__ import annotations

import torch
from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.attention import LinformerAttention, SelfAttention, TransformerBlock


class VisionTransformer(nn.Module):
    """ViT: patches as tokens and one for the class, learned positions, transformer blocks, a dense layer on that one.

    rank: of Linformer's attention; 0 for attention between all tokens, as in ViT.
    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; ViT-Tiny is from Touvron et al., DeiT, 2021.
    """

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        rank: int = 64,
        patch: int = 16,
        resolution: int = 224,
        classes: int = 1000,
        channels: int = 3,
    ) -> None:
        super().__init__()
        tokens = (resolution // patch) ** 2 + 1
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, tokens, width) * 0.02)

        def attention() -> SelfAttention:
            return LinformerAttention(width, heads, tokens, rank) if rank else SelfAttention(width, heads)

        blocks = (TransformerBlock(attention(), width, 4 * width, nn.GELU, 1e-6) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(width, eps=1e-6))
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(x.shape[0], -1, -1), tokens), 1) + self.positions
        return self.head(self.blocks(tokens)[:, 0])


ARCHITECTURES = (
    Architecture(
        "vit_tiny_linformer",
        "Linformer",
        IMAGENET,
        VisionTransformer,
        "Wang et al., Linformer, 2020, equation 7, in ViT-Tiny",
        "The paper has language models only, so no figures are printed for images. Chosen: 64 made tokens for the 197 "
        "of ViT-Tiny, and a projection for the keys and one for the values of every block. 6.020 M parameters, "
        "1191.0 M MACs; with attention between all tokens it would be 5.717 M and 1253.7 M.",
    ),
)
GENERATORS: dict[str, Generator] = {"vit_linformer": VisionTransformer}
