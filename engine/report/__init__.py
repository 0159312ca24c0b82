"""Reports: a document model, what goes into it, and renderers for text and HTML. A walk as text and as JSON besides."""

from engine.report.walks import outcome_json, outcome_text, walk_json, walk_text

__all__ = ["outcome_json", "outcome_text", "walk_json", "walk_text"]
