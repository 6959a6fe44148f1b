"""What is written into a run: edits as frozen data, and the ordered plan that holds them.

Three verbs, one module each: :mod:`reroute` changes which experts a token uses, :mod:`skip` leaves parts of the model
out, :mod:`mask` silences units. Nothing here runs a model; :mod:`workbench.runtime` applies a plan.
"""

from workbench.interventions import mask, reroute, skip
from workbench.interventions.edit import Edit, Span
from workbench.interventions.plan import Plan

__all__ = ["Edit", "Plan", "Span", "mask", "reroute", "skip"]
