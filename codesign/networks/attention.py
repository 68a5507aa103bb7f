"""Attention between tokens: tensors are (batch, tokens, channels) unless a docstring says otherwise."""

from __future__ import annotations

import torch
from torch import nn

from codesign.networks.blocks import Activation


class SelfAttention(nn.Module):
    """Every token takes from all tokens what softmax of query times key says, per head of channels / heads channels.

    Source: Vaswani et al., Attention Is All You Need, 2017.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.projection = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(self.mixed(x))

    def mixed(self, x: torch.Tensor) -> torch.Tensor:
        """What comes before the last dense layer; tokens in, tokens out."""
        query, key, value = self.query_key_value(x).chunk(3, -1)
        key, value = self.shortened(key, value)
        scores = self._by_head(query * self.scale) @ self._by_head(key).transpose(-2, -1)
        mixed = torch.softmax(scores, -1) @ self._by_head(value)
        return mixed.transpose(1, 2).reshape(x.shape)

    def shortened(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and the values that are looked at: all of them here."""
        return key, value

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, channels) to (batch, heads, tokens, channels of a head)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class LinformerAttention(SelfAttention):
    """Self-attention with keys and values of `rank` made tokens each, linear combinations of those of all tokens.

    Its work grows with tokens x rank, not with tokens squared. tokens: how many there are, always.
    Source: Wang et al., Linformer, 2020, equation 7; the two projections are the same for all heads.
    """

    def __init__(self, channels: int, heads: int, tokens: int, rank: int) -> None:
        super().__init__(channels, heads)
        self.of_keys = nn.Linear(tokens, rank, bias=False)
        self.of_values = nn.Linear(tokens, rank, bias=False)

    def shortened(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, tokens, channels) to (batch, rank, channels), both."""
        return self.of_keys.weight @ key, self.of_values.weight @ value


class TransformerBlock(nn.Module):
    """Attention, then two dense layers with `hidden` channels between; each after a LayerNorm, added to its input."""

    def __init__(
        self, attention: SelfAttention, channels: int, hidden: int, activation: Activation, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(channels, eps=epsilon), attention)
        self.dense = nn.Sequential(
            nn.LayerNorm(channels, eps=epsilon),
            nn.Linear(channels, hidden),
            activation(),
            nn.Linear(hidden, channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        return x + self.dense(x)
