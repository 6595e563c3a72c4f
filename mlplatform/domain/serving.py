"""STUB until the breaker is there."""
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class BreakerSettings:
    """stub"""
