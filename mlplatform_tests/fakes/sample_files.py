"""A sample file as somebody might have one: deliveries of some vans, written by a spreadsheet."""

import random
from datetime import datetime, timedelta
from pathlib import Path

header = ("Van ID", "Ordered at", "Delivered at", "Distance (km)", "Weather", "Remark", "Late")


def deliveries(path: Path, *, days: int = 40, rows_per_day: int = 30, seed: int = 3) -> Path:
    """Write deliveries: late when far, and when the van is slow; some weather is not known, every remark is new."""
    chance = random.Random(seed)
    lines = [";".join(header)]
    for number in range(days * rows_per_day):
        ordered = datetime(2024, 1, 1) + timedelta(days=1) / rows_per_day * number
        van, distance = chance.randrange(6), round(chance.uniform(1, 20), 1)
        weather = chance.choice(["dry", "wet", ""])
        minutes = 15 + 3 * distance + 3 * van + chance.gauss(0, 6)
        delivered = ordered + timedelta(minutes=minutes)
        late = "yes" if minutes > 60 else "no"
        told = (
            f"van {van}",
            f"{ordered:%d.%m.%Y %H:%M}",
            f"{delivered:%d.%m.%Y %H:%M}",
            f"{distance}".replace(".", ","),
        )
        lines.append(";".join([*told, weather, f"remark {number}", late]))
    path.write_text("\n".join(lines) + "\n")
    return path
