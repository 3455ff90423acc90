"""The benchmark's records as tables that people read in a terminal."""

from rich import box
from rich.table import Table

from .runner import FLOORS


def print_tables(records, console):
    """Print, for each data set, a table of its classifiers, one of its clusterers, and what failed.

    Parameters
    ----------
    records : list of dict
        As in :class:`classic_cls.benchmark.BenchmarkResult`.
    console : rich.console.Console
        Where to print.
    """
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        rows = [record for record in records if record["dataset"] == dataset]
        console.print(f"{dataset}: {rows[0]['n_train']} images to train, {rows[0]['n_test']} to test", style="bold")
        _print_classifiers([row for row in rows if row["accuracy"] is not None], console)
        _print_clusterers([row for row in rows if row["matched_accuracy"] is not None], console)
        for row in rows:
            if row["error"]:
                message = " ".join(row["error"].split())
                console.print(f"{row['pipeline']} failed: {message}\n", style="red", soft_wrap=True)


def _print_classifiers(rows, console):
    if not rows:
        return
    several = rows[0]["mean_average_precision"] is not None  # labels of an image
    table = _table(
        "pipeline", "all right" if several else "accuracy", "95 % interval", "mAP" if several else "balanced"
    )
    for row in sorted(rows, key=_rank):
        interval = f"{row['accuracy_low']:.3f}-{row['accuracy_high']:.3f}"
        last = row["mean_average_precision"] if several else row["balanced_accuracy"]
        scores = (f"{row['accuracy']:.3f}", interval, f"{last:.3f}")
        table.add_row(row["pipeline"], *scores, *_costs(row), style="dim" if row["pipeline"] in FLOORS else None)
    console.print(table)
    console.print()


def _rank(row):
    """Sort the best first and the floor of floors last."""
    return row["pipeline"] == "majority", -(row["mean_average_precision"] or row["accuracy"])


def _print_clusterers(rows, console):
    if not rows:
        return
    table = _table("clusters", "matched", "adjusted Rand", "NMI")
    for row in sorted(rows, key=lambda row: -row["matched_accuracy"]):
        scores = [f"{row[key]:.3f}" for key in ("matched_accuracy", "adjusted_rand", "normalized_mutual_info")]
        table.add_row(row["pipeline"], *scores, *_costs(row))
    console.print(table)
    console.print()


def _table(name, *scores):
    """Make a table that fits in 80 columns, and whose columns stand below those of the other tables."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(name, overflow="fold", width=17)
    widths = (8, 13, 8, 6, 8, 6)
    for heading, width in zip((*scores, "fit s", "images/s", "model"), widths, strict=True):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    return table


def _costs(row):
    if row["fit_seconds"] is None:  # a model from elsewhere
        return "-", "-", "-"
    return f"{row['fit_seconds']:.2f}", _count(row["images_per_second"]), _size(row["model_bytes"])


def _count(number):
    """Return a number such as 950, 12,345 or 1.2M.

    Examples
    --------
    >>> _count(95.04), _count(12_345), _count(1_234_567)
    ('95', '12,345', '1.2M')
    """
    return f"{number:,.0f}" if number < 999_999.5 else f"{number / 1e6:.1f}M"


def _size(n_bytes):
    """Return a size such as 512 B, 340 kB or 1.2 MB.

    Examples
    --------
    >>> _size(512), _size(340_200), _size(1_230_000), _size(None)
    ('512 B', '340 kB', '1.2 MB', '-')
    """
    if n_bytes is None:
        return "-"
    if n_bytes < 1000:
        return f"{n_bytes} B"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 999_500 else f"{n_bytes / 1000:.0f} kB"
