"""The conformance kit: does every kind of edit do on this model what it says, and is that what the store tells?

:func:`examine` holds an open model to it, kind by kind, and reports in five states; ``workbench doctor --model NAME`` prints
the report, ``python -m workbench.conformance`` writes the tables in ``docs/`` from tiny random models of every family.
"""

from workbench.conformance.examples import Example, Subject
from workbench.conformance.judge import CHECKS, OUTCOMES, Report, Verdict, examine

__all__ = ["CHECKS", "OUTCOMES", "Example", "Report", "Subject", "Verdict", "examine"]
