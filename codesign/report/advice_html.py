"""`codesign advise --html`: one self-contained page for those who make the network and those who make the chip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path

from codesign.advice.advice import Advice, Ranked, Suggestion, Trial
from codesign.errors import CodesignError
from codesign.report.advice_words import (
    RANKING,
    change_texts,
    cosine_text,
    figure_names,
    left_lines,
    objective_text,
    price_text,
    row_note,
    size_text,
    sqnr_text,
    standing_word,
    suggestion_texts,
    worst,
)
from codesign.report.html_report import PageTemplate
from codesign.report.numbers import bytes_text, count_text, energy_text, shorten


def write_advice_html(advice: Advice, path: Path) -> None:
    """Write the page, over an earlier one. Raises CodesignError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(advice_html(advice), encoding="utf-8")
    except OSError as error:
        raise CodesignError(str(path), f"cannot be written: {error.strerror}", "choose another file") from error


def advice_html(advice: Advice) -> str:
    """The page. Every name from the model, the machine or a pass is escaped."""
    folder = files("codesign.report")
    name = escape(shorten(advice.model.name, 60))
    lossy = any(ranked.trial.outputs for ranked in advice.ranked)
    notes = (*RANKING, *([f"Outputs against the baseline's, on {advice.data}."] if lossy else []))
    return PageTemplate((folder / "advice_page.html").read_text(encoding="utf-8")).substitute(
        style=(folder / "style.html").read_text(encoding="utf-8"),
        title=f"Advice: {name} on {escape(advice.hardware.name)}",
        model=name,
        hardware=escape(advice.hardware.name),
        subtitle=escape(f"baseline ({advice.base or 'no pass'}): {price_text(advice, advice.baseline)}"),
        cards=_cards(advice),
        wanted=escape(f"wanted: least {objective_text(advice)}"),
        table=_table(advice),
        ranking=_items(notes),
        exact=_suggestion(advice, advice.exact),
        all=_suggestion(advice, advice.all),
        others="\n".join(_others(advice)),
        footer=escape(f"codesign {advice.codesign} · {advice.model.sha256[:12]} · {advice.hardware.sha256[:12]}"),
    )


def _cards(advice: Advice) -> str:
    before, exact, everything = advice.baseline, advice.exact.price, advice.all.price
    cards = (
        ("Cycles", *(count_text(price.cycles) for price in (before, exact, everything))),
        ("Energy", *(energy_text(price.energy_pj) for price in (before, exact, everything))),
        (advice.off_chip, *(bytes_text(price.dram_bytes) for price in (before, exact, everything))),
        ("Parameters", *(count_text(price.parameters) for price in (before, exact, everything))),
        ("MACs", *(count_text(price.macs) for price in (before, exact, everything))),
    )
    return "\n".join(
        f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{old}</div>'
        f'<div class="note">{new} with the EXACT ones, {all_} with all</div></div>'
        for label, old, new, all_ in cards
    )


def _table(advice: Advice) -> str:
    names = [escape(name) for name in figure_names(advice)]
    groups = f'<th colspan="5"></th><th colspan="{len(names)}" class="edge">alone</th>'
    groups += f'<th colspan="{len(names) + 1}" class="edge">on top of those taken above</th>'
    groups += '<th colspan="3" class="edge">outputs</th>'
    heads = ["#", "rewrite", "applied", "parameters", "MACs", *names, *names, "", "cosine", "SQNR", "notes"]
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = "".join(_row(advice, number, ranked) for number, ranked in enumerate(advice.ranked, 1))
    return f"<table><thead><tr>{groups}</tr><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(advice: Advice, number: int, ranked: Ranked) -> str:
    trial, shown = ranked.trial, worst(ranked.trial.outputs)
    price = trial.price or advice.baseline
    taken = " taken" if ranked.standing.is_taken else ""
    cells = (
        f'<td class="number">{number}</td>',
        f'<td class="name">{escape(trial.text)} <span class="tag">{escape(trial.effect)}</span></td>',
        f"<td>{_applied(trial)}</td>",
        f'<td class="number">{size_text(price.parameters, advice.baseline.parameters)}</td>',
        f'<td class="number">{size_text(price.macs, advice.baseline.macs)}</td>',
        *_changes(change_texts(advice, trial.price, advice.baseline)),
        *_changes(change_texts(advice, ranked.after, ranked.before)),
        f'<td><span class="tag{taken}">{standing_word(ranked)}</span></td>',
        f'<td class="number edge">{cosine_text(shown)}</td><td class="number">{sqnr_text(shown)}</td>',
        f'<td class="text">{escape(row_note(advice, ranked))}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _changes(texts: tuple[str, ...]) -> Iterator[str]:
    for at, text in enumerate(texts):
        kinds = ["number", *(["edge"] if not at else []), *(["gain"] if text.startswith("-") and text != "-" else [])]
        yield f'<td class="{" ".join(kinds)}">{text}</td>'


def _applied(trial: Trial) -> str:
    """How often, and where it was declined, folded up."""
    declined = trial.record.declined if trial.record is not None else ()
    if not declined:
        return str(trial.applied)
    reasons = _items(f"{part.where}: {part.reason}" for part in declined)
    return f"{trial.applied} <details><summary>{len(declined)} declined</summary><ul>{reasons}</ul></details>"


def _suggestion(advice: Advice, suggestion: Suggestion) -> str:
    first, *others = suggestion_texts(advice, suggestion)
    return f"<pre>{escape(first)}</pre><ul>{_items(others)}</ul>"


def _others(advice: Advice) -> Iterator[str]:
    for title, lines in left_lines(advice):
        yield f"<section><h2>{escape(title.capitalize())}</h2><ul>{_items(lines)}</ul></section>"


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)
