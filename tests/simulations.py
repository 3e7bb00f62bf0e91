"""Small scenarios of the simulator, as files."""

from __future__ import annotations

from pathlib import Path

SMALL = """\
about: "two small machines and a large one"
sites:
  - {name: north, pue: 1.5, network_s: 0.01, price_usd_per_kwh: 0.1, carbon_gco2e_per_kwh: 400}
  - name: south
    price_usd_per_kwh: {at_s: [0, 5], values: [0.3, 0.05]}
    carbon_gco2e_per_kwh: 50
pools:
  - name: small
    site: south
    count: 2
    step:
      memory: {base: 0.02, per_request: 0.001, per_prompt_token: 0.0002, per_context_token: 1.0e-6}
      energy: {base: 1, per_request: 0.1, per_prompt_token: 0.01}
      busy_watts: 30
    max_batch: 4
    max_step_tokens: 64
    kv_capacity_tokens: 1000
    idle_watts: 10
    sleep_after_s: 2
    sleep_watts: 1
    wake_s: 0.5
    wake_joules: 15
  - name: large
    site: north
    step:
      memory: {tokens: [[1, 0.005], [64, 0.006], [256, 0.02]], batch: [[0, 0], [8, 0.001]]}
      energy: {tokens: [[1, 2], [256, 20]]}
      busy_watts: 100
      kind: measured
    max_batch: 8
    max_step_tokens: 128
    kv_capacity_tokens: 2000
    idle_watts: 80
router: {decision_s: 0.001, decision_joules: 0.2, site: south, signals_every_s: 0.1}
policies: [round_robin, least_outstanding, "cost,ttft_s=1"]
trace: poisson,rate=20,count=200,input=40,output=12,sigma=0.5
slo: ttft:p95<500ms,tpot:p95<50ms
seeds: 2
"""
BY_HAND = """\
sites:
  - name: site
    pue: 2
    network_s: 0.25
    price_usd_per_kwh: {at_s: [0, 3], values: [1, 2]}
    carbon_gco2e_per_kwh: 3.6e6
pools:
  - name: one
    step:
      memory: {base: 0.5, per_request: 0.1, per_prompt_token: 0.01}
      energy: {base: 10, per_request: 1, per_prompt_token: 0.5}
      busy_watts: 20
    max_batch: 2
    max_step_tokens: 16
    kv_capacity_tokens: 100
    idle_watts: 4
router: {decision_s: 0.05, decision_joules: 3}
policies: [round_robin]
trace: one.csv
horizon_s: 4
"""
"""One machine at one site, whose figures can be worked out by hand."""


def scenario(folder: Path, *changes: tuple[str, str], text: str = SMALL) -> str:
    """The path of the small scenario, each first text replaced by the second one."""
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)
