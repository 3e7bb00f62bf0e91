"""How long a purchase of twenty options takes: 10,000 draws of each, in two tiers and the mix.

Run this file: ``.venv/bin/python tests/bench_procure.py``.
"""

from __future__ import annotations

import time

from wattbench.economics import compare, evaluate, lines_of, load_scenario, tornado

OPTIONS = 20
DRAWS = 10_000


def main() -> None:
    """Print seconds by part."""
    scenario = load_scenario("purchase-70b-chat")
    machines = [option for option in scenario.options if option.machine]
    options = tuple(
        machines[number % len(machines)].model_copy(update={"name": f"option-{number}"})
        for number in range(OPTIONS)
    )
    scenario = scenario.model_copy(update={"options": options})
    start = time.perf_counter()
    lines = lines_of(scenario)
    known = time.perf_counter()
    outcomes = evaluate(scenario, lines, draws_count=DRAWS)
    drawn = time.perf_counter()
    pairs = compare(outcomes)
    for outcome in outcomes:
        tornado(scenario, outcome)
    end = time.perf_counter()
    print(
        f"{OPTIONS} options, {DRAWS} draws, {len(outcomes)} outcomes, {len(pairs)} pairs: points "
        f"{known - start:.2f} s, draws {drawn - known:.2f} s, comparisons and tornados "
        f"{end - drawn:.2f} s"
    )


if __name__ == "__main__":
    main()
