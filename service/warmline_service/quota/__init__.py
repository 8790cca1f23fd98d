"""What each tenant may use: how often it may ask, how much at once, and how much in all."""

from warmline_service.quota._allowance import Allowance
from warmline_service.quota._pause import slow_down
from warmline_service.quota._policies import Policies
from warmline_service.quota._prices import Prices, Tokens
from warmline_service.quota._quota import Budget, Quota
from warmline_service.quota._rates import Rates
from warmline_service.quota._stored import Measure
from warmline_service.quota._turns import Place

__all__ = [
    "Allowance",
    "Budget",
    "Measure",
    "Place",
    "Policies",
    "Prices",
    "Quota",
    "Rates",
    "Tokens",
    "slow_down",
]
