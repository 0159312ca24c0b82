"""The colours of a report, light and dark, and its style sheet. The colours are those of the window."""

from engine.effects.compare import Class

LIGHT = {
    "ground": "#FFFFFF", "line": "#E3E3DF", "text": "#1F2328", "muted": "#5F6670", "accent": "#2563EB",
    "accent-ground": "#E8EEFD", "hazard": "#D55E00", "hazard-text": "#A84300", "hazard-ground": "#FCEBDD",
}  # fmt: skip
DARK = {
    "ground": "#1F2226", "line": "#32363B", "text": "#E6E8EA", "muted": "#9AA2AC", "accent": "#6EA1FF",
    "accent-ground": "#253552", "hazard": "#FF8A3D", "hazard-text": "#FFA76B", "hazard-ground": "#46301F",
}  # fmt: skip
LEVELS = ("#8A8F98", "#E69F00", "#009E73", "#56B4E9", "#3A86C8", "#CC79A7")
"""Fill of each level, 1 .. 5; 0 is the page. The same in light and dark."""
OUTCOMES = {
    Class.SAME: "#7D93A8", Class.RESTORED: "#7D93A8", Class.NOT_PRESENT: "#C9CED6", Class.RESERVED: "#B7A6DE",
    Class.PERMISSION: "#E0B84C", Class.ANOTHER_PAGE: "#C9847E", Class.TABLE_PAGE: "#B3261E", Class.HOST_PAGE: "#8C2F5A",
    Class.OTHER_VM: "#B0529E", Class.OUTSIDE_RAM: "#4A5058", Class.UNKNOWN: "#8A8F98",
}  # fmt: skip
HATCHES = {
    Class.NOT_PRESENT: "/", Class.RESERVED: "\\", Class.PERMISSION: "-", Class.TABLE_PAGE: "/\\", Class.HOST_PAGE: "|",
    Class.OTHER_VM: "-|", Class.OUTSIDE_RAM: "-", Class.UNKNOWN: "|-",
}  # fmt: skip
"""The directions of the lines over a colour, so that it is told apart without seeing the colour."""

MONO = "ui-monospace, 'JetBrains Mono', 'DejaVu Sans Mono', 'Liberation Mono', monospace"
SANS = "system-ui, 'DejaVu Sans', 'Liberation Sans', sans-serif"


def variables(colors: dict[str, str]) -> str:
    return " ".join(f"--{name}: {color};" for name, color in colors.items())


SHEET = f"""
:root {{ color-scheme: light dark; {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; {variables(LIGHT)} }} }}
body {{ margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 {SANS}; }}
main {{ max-width: 60rem; margin: 0 auto; padding: 24px 24px 64px; }}
h1 {{ font-size: 1.75rem; line-height: 1.25; margin: 16px 0 24px; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 48px 0 12px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }}
h3 {{ font-size: 1rem; margin: 32px 0 8px; overflow-wrap: anywhere; }}
p, ul {{ max-width: 46rem; overflow-wrap: anywhere; }}
nav ol {{ margin: 0; padding-left: 24px; columns: 2; }}
a {{ color: var(--accent); }}
a:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
.scroll {{ overflow-x: auto; margin: 12px 0; }}
table {{ border-collapse: collapse; font-size: 0.875rem; line-height: 1.4; }}
caption {{ text-align: left; color: var(--muted); padding: 4px 0; }}
th, td {{ text-align: left; vertical-align: top; padding: 4px 24px 4px 0; }}
thead th {{ border-bottom: 1px solid var(--line); color: var(--muted); font-weight: 600; }}
th.group {{ padding-top: 12px; color: var(--muted); font-weight: 600; }}
.right {{ text-align: right; }}
code, .code {{ font-family: {MONO}; font-size: 0.95em; }}
td.code {{ white-space: nowrap; }}
tr.marked > * {{ background: var(--hazard-ground); }}
.hazard {{ color: var(--hazard-text); }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 4px 24px; margin: 12px 0; font-size: 0.9375rem; }}
dt {{ color: var(--muted); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
ol.steps {{ list-style: none; padding: 0; }}
ol.steps > li {{ display: grid; grid-template-columns: 3rem 1fr; padding: 8px 0;
  border-bottom: 1px solid var(--line); }}
ol.steps > li > .number {{ color: var(--muted); font-variant-numeric: tabular-nums; }}
ol.steps > li > div > p:first-child {{ margin: 0; font-weight: 600; }}
ol.steps p, ol.steps ul {{ margin: 4px 0; }}
ol.steps > li.marked > .number {{ color: var(--hazard-text); font-weight: 600; }}
figure {{ margin: 16px 0; overflow-x: auto; }}
figcaption {{ color: var(--muted); font-size: 0.875rem; margin-bottom: 8px; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 4px 24px; margin: 8px 0 0; padding: 0; list-style: none;
  font-size: 0.875rem; }}
.legend li {{ display: flex; align-items: center; gap: 8px; }}
svg text {{ font-family: {SANS}; }}
svg .mono {{ font-family: {MONO}; }}
@media print {{
  main {{ max-width: none; padding: 0; }}
  body {{ font-size: 10pt; }}
  h2, h3 {{ break-after: avoid; }}
  tr, figure, ol.steps > li {{ break-inside: avoid; }}
  .scroll, figure {{ overflow: visible; }}
  nav {{ display: none; }}
}}
@media (max-width: 40rem) {{ dl {{ grid-template-columns: 1fr; }} dt {{ margin-top: 8px; }} nav ol {{ columns: 1; }} }}
"""
