"""The static report: one HTML file that opens offline, from the templates beside this file."""

from lowdata_cpt.analysis.report.build import build_report

__all__ = ["build_report"]
