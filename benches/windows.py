"""Where the windows of an epoch end: what is timed or weighed is whole windows, and not the small first ones."""

from __future__ import annotations

from itertools import accumulate

from settings import Settings


def full_windows(n_rows: int, settings: Settings) -> list[tuple[int, int]]:
    """Batches of an epoch before, and up to the end of, each window that is full, in order.

    Raises
    ------
    SystemExit
        If there are fewer than three.
    """
    from annfeed.order.epoch import EpochPlan

    # Sizes are the same in every order.
    plan = EpochPlan(n_rows=n_rows, batch_size=settings.batch, window=settings.window, shuffle=False)
    counts = [window.n_batches for window in plan.windows()]
    ends = list(accumulate(counts))
    full = max(1, settings.window // settings.batch)
    spans = [(end - count, end) for count, end in zip(counts, ends, strict=True) if count == full]
    if len(spans) < 3:
        raise SystemExit(
            f"{settings.file}: {n_rows:,} rows have {len(spans)} full windows of {settings.window:,} rows, where three "
            "were expected: give a smaller --window"
        )
    return spans
