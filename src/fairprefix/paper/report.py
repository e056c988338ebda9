"""The report: one HTML file with everything in it, and docs/reproduction.md from the same sections."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from attrs import frozen

from fairprefix.paper import rules
from fairprefix.paper.published import explanations, published
from fairprefix.paper.section import Section, Table, Verdict

TITLE = "DLPM and D²LPM: the evaluation, reproduced in virtual time"
_MARKS = {True: "✓", False: "✗", None: "–"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap }
th:first-child, td:first-child { text-align: left } .wide { overflow-x: auto }
img { max-width: 100% } li.yes::marker { color: #009e73; content: "✓ " } li.no::marker { color: #d55e00; content:
"✗ " }
li.open::marker { content: "– " } pre { white-space: pre-wrap; background: #f7f7f7; padding: 1rem; font-size: 13px
} nav a { margin-right: 1rem } .word { color: #666 }
"""


@frozen
class Origin:
    """Where the results come from."""

    commit: str
    version: str
    scale: str
    seeds: tuple[int, ...]
    cpu_s: float
    """Processor time of all simulations that the report rests on."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Return what a smaller scale leaves out."""
        if self.scale == "full":
            return ()
        left_out = (
            "This is not the full run: it has one seed and D = 1, 2. What the paper shows for D = 4 and 8 is "
            "not here, "
            "nor are two of the frontier's workloads; `fairprefix paper` without --quick runs them."
        )
        return (left_out,)

    @property
    def lines(self) -> tuple[str, ...]:
        """Return it as sentences."""
        return (
            f"fairprefix {self.version}, commit {self.commit}.",
            (
                f"Scale: {self.scale}; seeds: {', '.join(map(str, self.seeds))}. "
                f"The simulations took {self.cpu_s:,.0f} s of processor time."
            ),
            *self.missing,
            f"Published: {published()['source']}. {published()['how']}",
        )


def html(sections: Sequence[Section], origin: Origin) -> str:
    """Return the report as one page that needs nothing else."""
    body = "".join(_html_section(section) for section in sections)
    links = "".join(f'<a href="#{escape(s.name)}">{escape(_heading(s))}</a> ' for s in sections)
    about = "".join(f"<p>{escape(line)}</p>" for line in origin.lines)
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(TITLE)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    )
    return (
        f"{head}<h1>{escape(TITLE)}</h1>{about}<nav>{links}</nav>"
        f"<h2>Rules</h2><pre>{escape(_rules())}</pre>{body}</html>\n"
    )


def _html_section(section: Section) -> str:
    verdicts = "".join(_html_verdict(section, verdict) for verdict in section.verdicts)
    pictures = "".join(
        f'<p><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></p>'
        for name, data in section.pictures.items()
    )
    tables = "".join(_html_table(table) for table in section.tables)
    return (
        f'<h2 id="{escape(section.name)}">{escape(_heading(section))}: {escape(section.title)}</h2>'
        f"<p>{escape(section.text)}</p><ul>{verdicts}</ul>{pictures}{tables}"
    )


def _html_verdict(section: Section, verdict: Verdict) -> str:
    kind = {True: "yes", False: "no", None: "open"}[verdict.holds]
    return (
        f'<li class="{kind}"><b>{escape(verdict.claim)}</b> <span class="word">[{verdict.word}]</span>: '
        f"{escape(verdict.why)}.{escape(_because(section, verdict))}</li>"
    )


def _because(section: Section, verdict: Verdict) -> str:
    """Return the explanation of a claim that does not hold, as far as there is one."""
    found = explanations().get((section.name, verdict.claim)) if verdict.holds is False else None
    return f" Why: {found}." if found else ""


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.headers)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return (
        f'<div class="wide"><table><caption>{escape(table.caption)}</caption><tr>{head}</tr>{rows}</table></div>'
    )


def markdown(sections: Sequence[Section], origin: Origin, preface: str = "") -> str:
    """Return the report as a page of the documentation, without pictures."""
    parts = [
        f"# {TITLE}",
        "This page is generated by `fairprefix paper`; what is written by hand stands in the package's rules. "
        + " ".join(origin.lines),
    ]
    if preface:
        parts.append(preface)
    parts += ["## Rules", "```text\n" + _rules() + "\n```"]
    parts += [_markdown_section(section) for section in sections]
    return "\n\n".join(parts) + "\n"


def _markdown_section(section: Section) -> str:
    verdicts = "\n".join(
        f"* {_MARKS[verdict.holds]} **{verdict.claim}** [{verdict.word}]: {verdict.why}."
        f"{_because(section, verdict)}"
        for verdict in section.verdicts
    )
    tables = [_markdown_table(table) for table in section.tables]
    parts = [f"## {_heading(section)}: {section.title}", section.text, verdicts, *tables]
    return "\n\n".join(part for part in parts if part)


def _markdown_table(table: Table) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (table.headers, *table.rows)]
    lines.insert(1, "|" + "---|" * len(table.headers))
    return f"**{table.caption}**\n\n" + "\n".join(lines)


def summary(sections: Sequence[Section]) -> str:
    """Return the verdicts as lines for a terminal."""
    return "\n".join(
        f"{_MARKS[verdict.holds]} {_heading(section)}: {verdict.claim}: {verdict.why}"
        for section in sections
        for verdict in section.verdicts
    )


def pictures(sections: Sequence[Section]) -> Mapping[str, bytes]:
    """Return all pictures by file name."""
    return {f"{name}.png": data for section in sections for name, data in section.pictures.items()}


def _heading(section: Section) -> str:
    return f"Figure {section.name}" if section.name.isdigit() else section.name.capitalize()


def _rules() -> str:
    return (rules.__doc__ or "").strip()
