"""Reports: one HTML file about a run, several runs, a sweep or a cross-validation. `linreg report` uses it.

`writing.write_report` is the door. `single`, `several` and `trials` describe their subject as a `Page` of plain
sections; `charts` places marks in inline SVG; `page` renders everything through autoescaped templates, because names
in tables are the input of strangers. `measured` reads the data once.
"""
