"""Large numbers of operations and parameters as text."""

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_count(number: float) -> str:
    """A count with three digits and a unit: "142 M", "17.6 M", "43.5 G", "960"."""
    for size, unit in UNITS:
        if number >= 0.9995 * size:
            value = number / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{number:.0f}"
