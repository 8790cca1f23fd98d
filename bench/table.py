"""A report as people read it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench.figures import Report


def show(report: Report, console: Console) -> None:
    """Print the figures of each part, then the goals."""
    for part, all_series in report.parts.items():
        table = Table(title=part, title_justify="left", title_style="bold")
        table.add_column("")
        for heading in ("median", "p99", "unit", "n"):
            table.add_column(heading, justify="right" if heading != "unit" else "left")
        for each in all_series:
            p99 = f"{each.p99:,.1f}" if len(each.values) > 1 else ""
            name = f"{each.name} [dim]({each.note})[/]" if each.note else each.name
            table.add_row(name, f"{each.median:,.1f}", p99, each.unit, str(len(each.values)))
        console.print(table)
    if report.findings:
        console.print(_goals(report))
    for remark in report.remarks:
        console.print(f"[yellow]note:[/] {remark}")


def _goals(report: Report) -> Table:
    table = Table(title="goals", title_justify="left", title_style="bold")
    for heading in ("", "figure", "goal", ""):
        table.add_column(heading, justify="right" if heading == "figure" else "left")
    for each in report.findings:
        verdict = "[green]met[/]" if each.met else "[red]missed[/]"
        table.add_row(each.name, f"{each.value:.2f}", str(each.goal), verdict)
    return table
