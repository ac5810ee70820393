"""What every transport does, whatever lies behind it. A transport subclasses `TransportConformance` and says how one
is opened.
"""

from __future__ import annotations

from tests.integration.transfer.landing_conformance import LandingConformance
from tests.integration.transfer.names_conformance import NamesConformance
from tests.integration.transfer.proof_conformance import ProofConformance
from tests.integration.transfer.steering_conformance import SteeringConformance


class TransportConformance(NamesConformance, LandingConformance, SteeringConformance, ProofConformance):
    """The whole suite."""
