"""Formulas that others published, as they stand: to check against, and to compare with.

Each holds for the set-up of its source. Nothing here is fitted by this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wattbench.core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticPower:
    """Power of one accelerator against its batch, and the step time that goes with it.

    P(b) = P_idle + (P_nominal − P_idle) / (1 + exp(−k · (log₂ b − x₀)))
    t(b) = W₀ + H · context / 8192 · b

    Attributes:
        idle_watts: P_idle.
        nominal_watts: P_nominal.
        slope_ratio: k.
        midpoint_ratio: x₀, in octaves of batch.
        step_s: W₀, weights of a step included.
        step_per_user_s: H, of one user with a context of 8,192 tokens.

    Source: Hassan et al., arXiv 2602.05116, equation 2; figures as in arXiv 2603.16054.
    """

    idle_watts: float
    nominal_watts: float
    slope_ratio: float
    midpoint_ratio: float
    step_s: float
    step_per_user_s: float

    def power_watts(self, users_count: float) -> float:
        """Power at a batch."""
        rise = 1 / (
            1 + math.exp(-self.slope_ratio * (math.log2(users_count) - self.midpoint_ratio))
        )
        return self.idle_watts + (self.nominal_watts - self.idle_watts) * rise

    def tokens_per_joule(self, window_tokens: float, kv_tokens: float = 65_536 * 16) -> float:
        """Output tokens per joule where a full KV cache serves as many users as it holds.

        n = KV / window users share it, with half the window as their mean context. Doubling the
        window halves the users and leaves the step as it is, so tokens per joule all but halve.

        Source: *The 1/W Law*, arXiv 2603.17280.
        """
        users = kv_tokens / window_tokens
        step_s = self.step_s + self.step_per_user_s * (window_tokens / 2 / 8192) * users
        return users / step_s / self.power_watts(users)


H100_LOGISTIC = LogisticPower(
    idle_watts=300.0,
    nominal_watts=600.0,
    slope_ratio=1.0,
    midpoint_ratio=4.2,
    step_s=4e-3,
    step_per_user_s=0.32e-3,
)


def energy_per_query_joules(
    power_watts: float, total_tokens_per_s: float, input_tokens: float, output_tokens: float
) -> float:
    """Joules of one query on a cluster kept full: W / (tokens/s) · (input + output).

    Args:
        power_watts: Of the cluster, provisioned or measured.
        total_tokens_per_s: Input and output tokens together.
        input_tokens: Of a query.
        output_tokens: Of a query.

    Source: *Per-query energy consumption of LLMs*, muxup.com, 2026 Q1.
    """
    return power_watts / total_tokens_per_s * (input_tokens + output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class WilkinsEnergy:
    """Joules of a query from its lengths: α₀·in + α₁·out + α₂·in·out.

    Attributes:
        input_joules: α₀, per input token.
        output_joules: α₁, per output token.
        product_joules: α₂, per product of the two.

    Source: Wilkins, Keshav, Mortier, arXiv 2407.04014: batches of 32 without a KV cache, so not
    the joules of a modern server.
    """

    input_joules: float
    output_joules: float
    product_joules: float

    def query_joules(self, input_tokens: float, output_tokens: float) -> float:
        """Joules of one query.

        Raises:
            UsageError: If the fit gives less than nothing there: α₀ is below zero.
        """
        joules = (
            self.input_joules * input_tokens
            + self.output_joules * output_tokens
            + self.product_joules * input_tokens * output_tokens
        )
        if joules <= 0:
            raise UsageError(
                f"the fit gives {joules:.3g} J for {input_tokens:g} + {output_tokens:g} tokens; it "
                f"does not hold for prompts so long with answers so short"
            )
        return joules


LLAMA_2_7B_A100 = WilkinsEnergy(
    input_joules=-3.894991, output_joules=31.522735, product_joules=0.042712
)


def wafer_interactivity_tokens_per_s_per_user(active_parameters_count: float) -> float:
    """Tokens per second for one user of a wafer: 3322 / N^0.294 ± 20 %, with N in 10⁹.

    Source: tokenomics.info, from served models; gpt-oss-120B (5.1) 2,059, GLM-4.7 (32) 1,201.
    """
    return float(3322.0 / (active_parameters_count / 1e9) ** 0.294)
