"""The page: its head, its sections in order, and the script's data. All text goes through `markup`, which escapes."""

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Final
from xml.etree.ElementTree import Element

from kvbench_analysis.figures.sharing import is_shared
from kvbench_analysis.report import causes, details, first_tokens, provenance, steadiness
from kvbench_analysis.report.answer import answer
from kvbench_analysis.report.collect import Content
from kvbench_analysis.report.compared import comparison_figures, comparison_table, differences, ratio_table
from kvbench_analysis.report.markup import data, element, script, to_html
from kvbench_analysis.report.packed import packed, packed_plotly
from kvbench_analysis.report.shown import Shown

_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Nothing may be fetched: what the page needs is in it."""
_CAN_DRAW: Final = 'if ("DecompressionStream" in window) document.documentElement.className = "drawing";'
"""What hides the line below, and makes room for plots, before the first of the page is seen."""
_WITHOUT_PLOTS: Final = (
    "The plots of this page are not drawn: they need JavaScript, and a browser that unpacks by itself what draws them "
    "(Chrome and Edge from version 80, Firefox from 113, Safari from 16.4). The text and all tables are complete "
    "without them; kvbench report RUN.h5 -o REPORT.html --png DIR writes the plots as picture files."
)


def page(contents: Sequence[Content]) -> str:
    """The whole page as HTML."""
    title = _title(contents[0]) if len(contents) == 1 else f"{len(contents)} runs"
    several = len(contents) > 1
    sections = [_run(content, f"run-{number}", several) for number, content in enumerate(contents, start=1)]
    return to_html(
        element(
            "html",
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("title", f"{title}: kvbench report"),
                element("style", _resource("page.css")),
                script(_CAN_DRAW),
            ),
            element(
                "body",
                element(
                    "main",
                    element("header", element("p", "kvbench report", class_="eyebrow"), element("h1", title)),
                    element("p", _WITHOUT_PLOTS, class_="without-plots"),
                    _contents(contents) if several else None,
                    _comparison(contents) if several else None,
                    sections,
                    _footer(),
                ),
                data("plotly", packed_plotly()),
                script(_resource("page.js")),
            ),
            lang="en",
        )
    )


def figure(prefix: str, shown: Shown) -> Element:
    """A figure with its title and note, or a line that says why there is none."""
    if shown.figure is None:
        return element("div", element("h4", shown.title), element("p", f"Not shown: {shown.absent}.", class_="absent"))
    key = f"{prefix}-{shown.key}"
    drawn = shown.figure.to_plotly()
    height = f"height:{drawn.layout.height}px"
    return element(
        "figure",
        element("h4", shown.figure.title),
        element(
            "div",
            element("p", "This plot is not drawn: the line at the top of the page says why.", class_="undrawn"),
            class_="plot",
            id=key,
            style=height,
            role="figure",
            aria_label=shown.title,
        ),
        data(f"{key}-data", packed(drawn.to_json())),
        element("figcaption", shown.figure.note),
    )


def _title(content: Content) -> str:
    """The name of the run's configuration, and its file."""
    name = content.run.config.get("name")
    return f"{name} ({content.name})" if isinstance(name, str) and name and name != content.name else content.name


def _run(content: Content, prefix: str, several: bool) -> Element:
    shown = {key: figure(prefix, one) for key, one in content.figures.items()}

    def part(title: str, *children: Element | list[Element] | None) -> Element:
        return element("section", element("h3", title), *children)

    return element(
        "section",
        element("h2", content.name) if several else None,
        answer(content),
        part("Time to first token", shown["first-token"], shown["break-even"], *first_tokens.tables(content)),
        *([part("The highest load", shown["load-curve"])] if "load-curve" in shown else []),
        part("Latency", shown["latency"], details.percentile_table(content)),
        part(
            "Where the time went",
            shown["slow-operations"],
            causes.tail_table(content),
            shown["ranks"],
            causes.straggler_table(content),
        ),
        part(
            "Contention",
            shown["contention"],
            causes.contention_table(content),
            _more("Contention of each rank", causes.contention_table(content, of_ranks=True)),
        ),
        part("Over time", shown["timeline"], shown["heatmap"], steadiness.half_table(content)),
        *([part("Before the load", shown["precondition"])] if "precondition" in shown else []),
        *([part("Endurance", *steadiness.endurance_elements(content))] if content.summary.endurance else []),
        part(
            "Operations, nodes and ranks",
            details.operation_table(content),
            details.node_table(content),
            _more("Ranks", details.rank_table(content)),
        ),
        *([part("One key space for all ranks", *details.sharing_elements(content))] if is_shared(content.run) else []),
        part("Requests and cache", *details.request_tables(content)),
        part(
            "Machine and configuration",
            provenance.calibration_table(content),
            provenance.machine_table(content),
            _more("Configuration", provenance.configuration(content)),
            _more("Attributes of the file", provenance.attribute_table(content)),
        ),
        class_="run",
        id=prefix,
    )


def _comparison(contents: Sequence[Content]) -> Element:
    found = differences(contents)
    noted = (
        element("aside", element("ul", (element("li", line) for line in found)), class_="warnings") if found else None
    )
    figures = [figure("comparison", shown) for shown in comparison_figures(contents)]
    return element(
        "section",
        element("h2", "Comparison"),
        noted,
        comparison_table(contents),
        figures,
        ratio_table(contents),
        class_="run",
        id="comparison",
    )


def _more(title: str, content: Element | None) -> Element | None:
    return None if content is None else element("details", element("summary", title), content)


def _contents(contents: Sequence[Content]) -> Element:
    links: Iterator[Element] = (
        element("li", element("a", content.name, href=f"#run-{number}"))
        for number, content in enumerate(contents, start=1)
    )
    return element("nav", element("ul", element("li", element("a", "Comparison", href="#comparison")), links))


def _footer() -> Element:
    return element(
        "footer",
        "Figures are of the operations of the measured phase that ended without an error; GiB is 2^30 bytes. "
        "Device, host and run queue are what the kernel accounted for each operation's thread; they add up to its "
        "wall time, or where operations overlap to that of their batch.",
    )


def _resource(name: str) -> str:
    return resources.files("kvbench_analysis.report").joinpath(name).read_text(encoding="utf-8")
