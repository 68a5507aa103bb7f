"""DRAM bytes of the mapping problems: where ours are more than the compulsory ones, and why they are not fewer."""

from __future__ import annotations

from collections.abc import Iterator

from mapping_rows import Optimum, Peer

_WHY = (
    "Layers whose least EDP moves more DRAM bytes than each byte once. Least: of any mapping in the declared space,",
    "proven with DRAM as the only memory that takes energy. EDP there: of the mapping of least energy among those that",
    "move so few, over the least EDP, which is proven over all mappings: none with fewer bytes goes below it. A tile",
    "that is refilled is read whole: rows that two neighbouring tiles of the input share are read twice, as ZigZag",
    "counts them. On conv1 that is all of the difference, 6,870 bytes: 5 rows of 229 pixels and 3 channels, twice.",
)


def dram_section(rows: list[Optimum], peers: list[Peer]) -> str:
    """A section of the page, empty where every layer moves the compulsory bytes alone."""
    beyond = [row for row in rows if row.least_dram_bytes]
    if not beyond:
        return ""
    return "\n".join(["## DRAM bytes beyond the compulsory ones", "", *_WHY, "", *_table(beyond, peers), ""])


def _table(rows: list[Optimum], peers: list[Peer]) -> Iterator[str]:
    yield "| problem | layer | lanes | compulsory | AccelForge's | at our least EDP | least | EDP there | fewer bytes |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---|"
    for row in rows:
        same = [peer for peer in peers if (peer.layer.problem, peer.layer.name) == (row.problem, row.layer)]
        others = [f"{peer.dram_bytes:,}" for peer in same if peer.tool.startswith("AccelForge")]
        compulsory = same[0].layer.compulsory_dram_bytes
        proven = "" if row.least_dram_proven else ", not proven"
        yield (
            f"| {row.problem} | {row.layer} | {'free' if row.free_lanes else 'K, C'} | {compulsory:,} "
            f"| {', '.join(others) or '-'} | {row.dram_bytes:,} | {row.least_dram_bytes:,}{proven} "
            f"| {row.least_dram_edp / row.edp:.3f} | {_verdict(row, compulsory)} |"
        )


def _verdict(row: Optimum, compulsory: int) -> str:
    """Why the bytes are what they are."""
    if row.dram_bytes == row.least_dram_bytes:
        return "cannot be"
    return "cost EDP" if row.least_dram_bytes == compulsory else "cost EDP, and compulsory cannot be"
