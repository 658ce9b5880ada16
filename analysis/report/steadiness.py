"""The tables of a run's report about its two halves, and about what wears drives."""

from xml.etree.ElementTree import Element

from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.markup import element, table
from kvbench_analysis.summary.endurance_print import endurance_notes, endurance_table


def half_table(content: Content) -> Element | None:
    """Each figure of the first half of the window and of the second; None where there is none."""
    halves = content.summary.halves
    if halves.empty:
        return None
    rows = [
        (
            f"{row['what']}, {row['figure']}",
            f"{row['first']:.3g} {row['unit']}",
            f"{row['second']:.3g} {row['unit']}",
            f"{row['change']:+.1%}",
            "differs" if row["differs"] else "within the noise",
        )
        for row in halves.to_dict("records")
    ]
    return table(
        ["", "first half", "second half", "change", ""],
        rows,
        caption="The two halves of the measured window. Told to differ is what a test over blocks of time finds (one "
        "steady run in a hundred at most), and is more than a tenth.",
    )


def endurance_elements(content: Content) -> list[Element]:
    """What was written in a day of this load, and what that is of a rating."""
    found = content.summary.endurance
    assert found is not None
    title, headings, rows = endurance_table(found)
    return [table(headings, rows, caption=f"{title}."), *(element("p", line) for line in endurance_notes(found))]
